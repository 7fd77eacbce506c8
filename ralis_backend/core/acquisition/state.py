"""What a strategy is told of the project, and scores of picks that see each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ralis_backend.core.features import RegionFeatures

_LIKELY = 64
"""Candidates of which one is probably the best, or nearly."""


@dataclass(frozen=True)
class Places:
    """Where regions lie. image: (R,) int64. center: (R, 2) float32 row, column, in regions."""

    image: np.ndarray
    center: np.ndarray

    def take(self, indices: np.ndarray) -> Places:
        """The places of some of the regions."""
        return Places(self.image[indices], self.center[indices])


@dataclass(frozen=True)
class PoolState:
    """What is labelled so far, and what is wanted; what no strategy needs is None.

    labelled_pixels_by_region: (L, C + 1) int64, labelled pixels of each class in each labelled
        region, the last column those left void; L may be 0.
    labelled_embeddings: (L', D) float32, unit length, of the labelled regions.
    embedded_pixels: (L', C + 1) int64, of the regions of `labelled_embeddings`; None: those of
        `labelled_pixels_by_region`.
    count: number of regions that will be picked.
    rng: for strategies that draw.
    state_set: features of images that stand for the pool, for policies that look at such a set.
    unlabelled_counts: (M, C) predicted pixels of each class in the regions that stand for the
        unlabelled set; None: the candidates do.
    progress: share of the budget that is spent, in [0, 1].
    pool_index: (R,) which of `count` pools each candidate is offered in, one is picked from each;
        None: all are one pool.
    places, labelled_places: of the R candidates and of the labelled regions; None: unknown.
    target_class: index of the class that is sought.
    examples: (E, D) float32, unit length: embeddings of regions that show it, beside labelled ones.
    background: index of the class that people leave unpainted, None: there is none.
    removed_classes: indices of classes that the project has no more.
    truth: what only the labels say of the candidates, see `simulation.Truth`.
    stop: called between picks; raises where the work should end.
    """

    labelled_pixels_by_region: np.ndarray
    labelled_embeddings: np.ndarray | None
    count: int
    rng: np.random.Generator
    state_set: RegionFeatures | None = None
    unlabelled_counts: np.ndarray | None = None
    progress: float = 0.0
    pool_index: np.ndarray | None = None
    places: Places | None = None
    labelled_places: Places | None = None
    target_class: int | None = None
    examples: np.ndarray | None = None
    embedded_pixels: np.ndarray | None = None
    background: int | None = None
    removed_classes: tuple[int, ...] = ()
    truth: Any = None
    stop: Callable[[], None] = lambda: None

    @property
    def labelled_pixels(self) -> np.ndarray:
        """(C,) int64, labelled pixels of each class."""
        pixels: np.ndarray = self.labelled_pixels_by_region[:, :-1].sum(axis=0)
        return pixels

    @property
    def labelled_shares(self) -> np.ndarray:
        """(C,) float64, share of each class in the labelled pixels; 0 throughout without any."""
        pixels = self.labelled_pixels
        shares: np.ndarray = pixels / max(1, int(pixels.sum()))
        return shares

    def looked_for(self, num_classes: int) -> np.ndarray:
        """(C,) bool: the classes that people look for: not the background, nor removed ones.

        Those that are left where that would leave none.
        """
        is_sought = self.existing(num_classes)
        if self.background is not None and is_sought.sum() > is_sought[self.background]:
            is_sought[self.background] = False
        return is_sought

    def existing(self, num_classes: int) -> np.ndarray:
        """(C,) bool: the classes that the project has, all but the removed ones."""
        is_there = np.ones(num_classes, bool)
        if len(self.removed_classes) < num_classes:
            is_there[list(self.removed_classes)] = False
        return is_there

    def part(self, positions: np.ndarray) -> PoolState:
        """The state as it concerns some of the candidates."""
        places, pools = self.places, self.pool_index
        return replace(
            self,
            places=None if places is None else places.take(positions),
            pool_index=None if pools is None else pools[positions],
        )

    @property
    def known_embeddings(self) -> np.ndarray:
        """`labelled_embeddings`; `ValueError` if nobody described them."""
        if self.labelled_embeddings is None:
            raise ValueError(
                "the labelled regions' embeddings were not described; a strategy that looks at "
                "them names `embeddings` among the features it needs"
            )
        return self.labelled_embeddings


def greedy_scores(
    state: PoolState,
    num_regions: int,
    gains: Callable[[], np.ndarray],
    take: Callable[[int], None],
) -> np.ndarray:
    """Scores of a strategy whose picks see each other.

    Args:
        state: how many picks are wanted, and from which pools.
        num_regions: R candidates.
        gains: (R,) float, what each candidate adds to what is taken so far.
        take: told of each pick.

    Returns:
        (R,) float32: picks above all others, in the order they were made; then the others by what
        they would still add. Twice as many picks as are wanted, because the spread over images
        drops some; with pools one of each.
    """
    if num_regions == 0:
        return np.zeros(0, np.float32)
    pools = state.pool_index
    num_picks = min(2 * state.count, num_regions) if pools is None else int(pools.max()) + 1
    is_open = np.ones(num_regions, bool)
    picks: list[int] = []
    for turn in range(num_picks):
        is_offered = is_open if pools is None else is_open & (pools == turn)
        if not is_offered.any():
            continue
        picks.append(int(np.argmax(np.where(is_offered, gains(), -np.inf))))
        is_open[picks[-1]] = False
        take(picks[-1])
        state.stop()
    return _picks_first(picks, gains())


def lazy_greedy_scores(
    state: PoolState,
    num_regions: int,
    gains: Callable[[np.ndarray], np.ndarray],
    take: Callable[[int], None],
) -> np.ndarray:
    """As `greedy_scores`, where no pick makes another region worth more: few gains are computed.

    What a region added before is the most that it can add now, so that only those are looked at
    again that could still be the best ("lazy greedy": Minoux, "Accelerated greedy algorithms for
    maximizing submodular set functions", 1978).

    Args:
        state: how many picks are wanted, and from which pools.
        num_regions: R candidates.
        gains: (N,) indices of candidates -> (N,) what each adds to what is taken so far.
        take: told of each pick.
    """
    if num_regions == 0:
        return np.zeros(0, np.float32)
    everything, pools = np.arange(num_regions), state.pool_index
    first = gains(everything)
    picks: list[int] = []
    for index in (
        _lazy_picks(first, gains, min(2 * state.count, num_regions))
        if pools is None
        else _best_of_pools(pools, gains)
    ):
        picks.append(index)
        take(index)
        state.stop()
    return _picks_first(picks, gains(everything))


def _lazy_picks(
    first: np.ndarray, gains: Callable[[np.ndarray], np.ndarray], count: int
) -> Iterator[int]:
    """The best candidate, the first of equals, then the best of the others after it was taken."""
    most = first.astype(np.float64)  # that each can add, as far as is known
    for turn in range(count):
        if turn:
            likely = np.argpartition(-most, min(_LIKELY, len(most) - 1))[:_LIKELY]
            likely = likely[np.isfinite(most[likely])]
            most[likely] = gains(likely)
            others = np.flatnonzero(most >= most[likely].max())
            most[others] = gains(others)
        best = int(np.argmax(most))
        yield best
        most[best] = -np.inf


def _best_of_pools(pools: np.ndarray, gains: Callable[[np.ndarray], np.ndarray]) -> Iterator[int]:
    """Of each pool the best, the first of equals."""
    for pool in range(int(pools.max()) + 1):
        offered = np.flatnonzero(pools == pool)
        if len(offered):
            yield int(offered[np.argmax(gains(offered))])


def _picks_first(picks: Sequence[int], gains: np.ndarray) -> np.ndarray:
    """(R,) scores: picks above all others, in their order, the others by their (R,) gains."""
    scores = np.zeros(len(gains), np.float32)
    left = gains.astype(np.float64)
    left[picks] = -np.inf
    scores[np.argsort(left, kind="stable")] = np.linspace(0, 1, len(gains), dtype=np.float32)
    scores[picks] = 2 + np.arange(len(picks), 0, -1, dtype=np.float32)
    return scores
