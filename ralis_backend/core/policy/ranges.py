"""What a policy's file says of its inputs, numbers: refused where nothing can be done with them."""

from __future__ import annotations

from typing import Any

LARGEST = 1e9
"""Of what a policy's file may say of its inputs, which are shares, logarithms and their like."""


def check_numbers(name: str, values: Any, count: int) -> None:
    """Refuse what is no list of so many numbers, none of them huge.

    Raises:
        ValueError: saying what it is, and what was expected.
    """
    if not _are_numbers(values) or len(values) != count:
        raise ValueError(f"'{name}' is {str(values)[:40]}, expected {count} numbers")


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
        if not _are_numbers(values) or len(values) not in (0, count):
            raise ValueError(f"'{name}' is {str(values)[:40]}, expected {count} numbers or none")
    if len(low) != len(high):
        raise ValueError(f"it has {len(low)} values 'low' and {len(high)} 'high', expected as many")


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -LARGEST <= value <= LARGEST  # not so of NaN either
