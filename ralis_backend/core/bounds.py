"""Numbers of a configuration -> refused where they are none, or out of bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Bounds:
    """Where a number may lie.

    low, high: smallest and largest. is_above, is_below: they themselves are not among them.
    is_rising: of several numbers none may be smaller than the one before.
    """

    low: float
    high: float = math.inf
    is_above: bool = False
    is_below: bool = False
    is_rising: bool = False

    def hold(self, value: float) -> bool:
        """Whether a number lies within."""
        is_high = value > self.low if self.is_above else value >= self.low
        return is_high and (value < self.high if self.is_below else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.is_above else 'at least'} {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if self.is_below else 'at most'} {self.high:g}"


COUNT = Bounds(1)
AMOUNT = Bounds(0)
POSITIVE = Bounds(0, is_above=True)
SHARE = Bounds(0, 1)


def check_bounds(config: object, bounds: Mapping[str, Bounds]) -> None:
    """Refuse a configuration, a dataclass, that no work can be done with.

    A field that is annotated as `int` must be a whole number, one of `tuple[int, int]` two of
    them, one of `tuple[float, ...]` one number or more; None may be what its type allows.

    Args:
        config: whose fields are looked at.
        bounds: of each number, by name of the field.

    Raises:
        ValueError: naming the field, its value, and what was expected.
    """
    types = get_type_hints(type(config))
    for name, bound in bounds.items():
        _check(name, getattr(config, name), types[name], bound)


def _check(name: str, value: Any, annotation: Any, bound: Bounds) -> None:
    options = get_args(annotation) if NoneType in get_args(annotation) else (annotation,)
    if value is None and NoneType in options:
        return
    wanted = next(it for it in options if it is not NoneType)
    is_several = get_origin(wanted) is tuple
    kinds = get_args(wanted) if is_several else (wanted,)
    values = value if is_several else (value,)
    if not _is_as_many(values, kinds) or not all(
        _is_within(it, kinds[0] is int, bound) for it in values
    ):
        raise ValueError(f"'{name}' is {value!r}, expected {_expected(kinds, is_several)}{bound}")
    if bound.is_rising and list(values) != sorted(values):
        raise ValueError(f"'{name}' is {value!r}, expected the smallest first")


def _is_as_many(values: Any, kinds: Sequence[Any]) -> bool:
    if not isinstance(values, tuple | list):
        return False
    return len(values) > 0 if Ellipsis in kinds else len(values) == len(kinds)


def _is_within(value: Any, is_whole: bool, bound: Bounds) -> bool:
    is_number = isinstance(value, Integral if is_whole else Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and bound.hold(value)


def _expected(kinds: Sequence[Any], is_several: bool) -> str:
    number = "whole number" if kinds[0] is int else "number"
    if not is_several:
        return f"a {number}, "
    return f"{'one or more' if Ellipsis in kinds else len(kinds)} {number}s, each "
