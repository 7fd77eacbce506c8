"""Ranges of a policy's inputs in training, as its file says them: refused where they are none."""

from __future__ import annotations

import math
from typing import Any


def check_ranges(low: Any, high: Any, count: int) -> None:
    """Refuse ranges that inputs cannot be compared with.

    Args:
        low: of each input, a list of numbers; empty where they were not measured.
        high: likewise.
        count: of the inputs.

    Raises:
        ValueError: saying which is wrong, and what was expected.
    """
    for name, values in (("low", low), ("high", high)):
        is_list = isinstance(values, list | tuple)
        if not is_list or len(values) not in (0, count) or not all(map(_is_number, values)):
            raise ValueError(f"'{name}' is {str(values)[:40]}, expected {count} numbers or none")
    if len(low) != len(high):
        raise ValueError(f"it has {len(low)} values 'low' and {len(high)} 'high', expected as many")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
