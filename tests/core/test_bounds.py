from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from ralis_backend.core.bounds import AMOUNT, COUNT, POSITIVE, SHARE, Bounds, check_bounds


@dataclass(frozen=True)
class Config:
    count: int = 1
    rate: float = 0.5
    size: tuple[int, int] = (2, 3)
    powers: tuple[float, ...] = (0.0, 1)
    limit: float | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        bounds = {"count": COUNT, "rate": POSITIVE, "size": replace(COUNT, is_rising=True)}
        check_bounds(self, {**bounds, "powers": AMOUNT, "limit": POSITIVE, "share": SHARE})


def test_numbers_within_their_bounds_are_taken():
    Config()
    Config(np.int64(7), 1, (3, 3), (0.25,), 2.0, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "'count' is 0, expected a whole number, at least 1"),
        ({"count": 2.0}, "'count' is 2.0, expected a whole number"),
        ({"count": True}, "'count' is True"),
        ({"count": None}, "'count' is None"),
        ({"rate": 0}, "'rate' is 0, expected a number, above 0"),
        ({"rate": float("nan")}, "'rate' is nan"),
        ({"rate": float("inf")}, "'rate' is inf"),
        ({"rate": "1"}, "'rate' is '1'"),
        ({"rate": (1.0,)}, "'rate' is"),
        ({"size": ()}, "expected 2 whole numbers, each at least 1"),
        ({"size": (1, 2, 3)}, "expected 2 whole numbers"),
        ({"size": 4}, "'size' is 4, expected 2 whole numbers"),
        ({"size": (4, 2)}, "expected the smallest first"),
        ({"powers": ()}, "expected one or more numbers, each at least 0"),
        ({"powers": (1.0, -1.0)}, "'powers' is .*, expected one or more numbers"),
        ({"limit": 0}, "'limit' is 0, expected a number, above 0"),
        ({"share": 1.5}, "expected a number, at least 0 and at most 1"),
    ],
)
def test_others_are_refused_with_what_was_expected(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_an_end_may_be_left_out():
    assert str(Bounds(0, 1, is_below=True)) == "at least 0 and below 1"
    assert Bounds(0, 1, is_below=True).hold(0)
    assert not Bounds(0, 1, is_below=True).hold(1)
