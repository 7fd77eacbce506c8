"""Values deeper than 8 bits -> what people and networks see: one range for all of a project's.

Which range that is can be told from a few pictures (`range_of`); it then holds for all others, so
that the same value always looks the same. Values of 8 bits stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Kind = Literal["integers", "floats"]
Range = tuple[float, float]

TRIMMED = 0.001
"""Share of a picture's values at each end that its range need not hold: dead and hot pixels."""
MOST_VALUES = 1_000_000
"""Values of one picture that are looked at."""
_ROOMY = 0.5
"""A round range that the values fill to less than this would leave the picture dark."""
_VALUES_AT_ONCE = 4_000_000
WHOLE_RANGES: Mapping[Kind, Range] = {"integers": (0, 65535), "floats": (0, 1)}
"""Of 16 bits, and of shares: where nothing was measured."""
_FLOAT_RANGES = ((0.0, 1.0), (-1.0, 1.0))


@dataclass(frozen=True)
class PixelRule:
    """How a project's pictures become (H, W, 3) uint8.

    bands: which ones of a picture with more than three are red, green, blue (or one, as grey),
        counted from 1; empty: the first three.
    ranges: kind of values -> what becomes 0 and 255; values beyond are clipped. A kind that is
        missing has not been measured yet.
    """

    bands: tuple[int, ...] = ()
    ranges: Mapping[Kind, Range] = field(default_factory=dict)


def kind_of(dtype: np.dtype) -> Kind:
    """Which of the two kinds of deep values this is."""
    return "floats" if np.issubdtype(dtype, np.floating) else "integers"


def some_values(values: np.ndarray) -> np.ndarray:
    """At most `MOST_VALUES` of a picture's values, spread over it, without NaN and infinity."""
    rows = values.shape[0]
    step = max(1, -(-values.size // MOST_VALUES))
    some = values.reshape(rows, -1)[:, :: 1 if step < 2 else step].ravel()
    return some[np.isfinite(some)] if kind_of(values.dtype) == "floats" else some


def range_of(samples: Sequence[np.ndarray]) -> Range:
    """What becomes 0 and 255 in a project with pictures like these.

    The smallest number of bits (8 to 32) that holds the values of all: 0 to 4095 for 12 bits,
    however they are stored; for floats 0 to 1 or -1 to 1 where that holds them. Where the values
    fill less than half of such a range, the values' own.

    Args:
        samples: values of each picture, all of one kind.

    Raises:
        ValueError: if there is no finite value.
    """
    filled = [sample for sample in samples if sample.size]
    filled = [sample for sample in filled if sample.min() < sample.max()] or filled
    if not filled:
        raise ValueError("the pictures hold no finite value")
    low = min(float(np.quantile(sample, TRIMMED, method="lower")) for sample in filled)
    high = max(float(np.quantile(sample, 1 - TRIMMED, method="higher")) for sample in filled)
    round_ranges = [(0.0, float(2**bits - 1)) for bits in range(8, 33)]
    if kind_of(filled[0].dtype) == "floats":
        round_ranges = [*_FLOAT_RANGES, *round_ranges]
    for start, end in round_ranges:
        if start <= low and high <= end:
            is_filled = high - low >= _ROOMY * (end - start) or end <= 255 or low == high
            return (start, end) if is_filled else (low, high)
    return low, high


def to_8_bits(values: np.ndarray, limits: Range) -> np.ndarray:
    """Values of any shape as uint8: the first limit and below becomes 0, the second and above 255.

    Whole numbers keep their highest bits: of 0 to 65535 the high byte.
    """
    low, high = limits
    result = np.empty(values.shape, np.uint8)
    rows = max(1, _VALUES_AT_ONCE // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        part = values[start : start + rows].astype(np.float64)
        part -= low
        if kind_of(values.dtype) == "integers":
            part *= 256 / (high - low + 1)
            np.floor(part, out=part)
        else:
            part *= 255 / (high - low) if high > low else 1
            np.rint(part, out=part)
        result[start : start + rows] = np.clip(part, 0, 255)
    return result
