"""Pure functions of a comparison's numbers: area, first reach, ratios, ranks.

A bootstrap draws seeds with replacement, the same ones for every strategy, so that what is derived
from two strategies stays paired.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ralis_backend.core.intervals import bootstrap_interval


def resampled(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Means over resampled seeds: (S, B) values and (D, S) indices of seeds -> (D, B)."""
    means: np.ndarray = values[draws].mean(axis=1)
    return means


def area(regions: Sequence[int], mious: np.ndarray) -> np.ndarray:
    """(..., B) -> (...): mean mIoU over the logarithm of the budget, by trapezoids."""
    if len(regions) == 1:
        return np.asarray(mious[..., 0])
    place = np.log(regions)
    return np.asarray(np.trapezoid(mious, place, axis=-1) / (place[-1] - place[0]))


def first_reach(costs: np.ndarray, curves: np.ndarray, wanted: float) -> np.ndarray:
    """The cost at which each curve first reaches `wanted`; infinite where it never does.

    Between two budgets the score is a straight line over the logarithm of the cost. A curve that
    begins above `wanted` has reached it at its first budget, perhaps before.

    Args:
        costs: (B,) or (D, B) rising, positive.
        curves: (D, B) scores.
        wanted: a score.

    Returns:
        (D,) costs.
    """
    place = np.broadcast_to(np.log(costs), curves.shape)
    has_reached = curves >= wanted
    after = has_reached.argmax(axis=1)  # the first budget at or above
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(curves))
    rise = curves[rows, after] - curves[rows, before]
    share = np.divide(
        wanted - curves[rows, before], rise, out=np.zeros(len(curves)), where=rise > 0
    )
    share = np.where(after == 0, 0, share)
    reached = np.exp(place[rows, before] + share * (place[rows, after] - place[rows, before]))
    return np.where(has_reached.any(axis=1), reached, np.inf)


def ratio_interval(
    ours: np.ndarray,
    theirs: np.ndarray,
    our_largest: float,
    their_largest: float,
    num_seeds: int,
) -> tuple[float | None, float | None]:
    """Interval of `ours / theirs`, (D,) costs of paired draws; None where a side has no bound.

    Who never arrives needs more than was spent at the largest budget: the upper bound takes theirs
    to be just that, the lower bound ours. Where neither arrives nothing is known.
    """
    at_least = np.where(np.isinf(ours), our_largest, ours) / theirs
    at_most = ours / np.where(np.isinf(theirs), their_largest, theirs)
    low = float(bootstrap_interval(at_least, num_seeds)[0])
    high = float(bootstrap_interval(at_most, num_seeds)[1])
    return low if low > 0 else None, high if np.isfinite(high) else None


def rare_classes(class_pixels: np.ndarray) -> np.ndarray:
    """The rarest third of the classes that occur, at least one, by (C,) counts of pixels."""
    known = np.flatnonzero(class_pixels > 0)
    by_share = known[np.argsort(class_pixels[known], kind="stable")]
    chosen: np.ndarray = by_share[: max(1, len(known) // 3)]
    return np.sort(chosen)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation of two lists of scores; NaN where one has a single value."""
    ranks = [_ranks(np.asarray(values)) for values in (first, second)]
    deviations = [each - each.mean() for each in ranks]
    norm = float(np.prod([np.sqrt((each**2).sum()) for each in deviations]))
    return float((deviations[0] * deviations[1]).sum() / norm) if norm > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    below = (values[None, :] < values[:, None]).sum(axis=1)
    equal = (values[None, :] == values[:, None]).sum(axis=1)
    ranks: np.ndarray = below + (equal + 1) / 2
    return ranks
