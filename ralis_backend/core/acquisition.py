"""Features of regions -> scores, higher first, and the pick of the best under a spread.

Every strategy is a scorer behind one protocol, `Strategy`; learned policies join it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ralis_backend.core.features import RegionFeatures


@dataclass(frozen=True)
class PoolState:
    """What is labelled so far, and what is wanted.

    labelled_pixels_by_region: (L, C + 1) int64, labelled pixels of each class in each labelled
        region, the last column those left void; L may be 0.
    labelled_embeddings: (L', D) float32, unit length, of the labelled regions.
    count: number of regions that will be picked.
    rng: for strategies that draw.
    state_set: features of images that stand for the pool, for policies that look at such a set.
    unlabelled_counts: (M, C) predicted pixels of each class in the regions that stand for the
        unlabelled set; None: the candidates do.
    """

    labelled_pixels_by_region: np.ndarray
    labelled_embeddings: np.ndarray
    count: int
    rng: np.random.Generator
    state_set: RegionFeatures | None = None
    unlabelled_counts: np.ndarray | None = None

    @property
    def labelled_pixels(self) -> np.ndarray:
        """(C,) int64, labelled pixels of each class."""
        pixels: np.ndarray = self.labelled_pixels_by_region[:, :-1].sum(axis=0)
        return pixels


class Strategy(Protocol):
    """A scorer of unlabelled regions."""

    name: str

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) float32, the most useful region highest."""

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Why region `index` is worth labelling, in a few words for an annotator."""


class Random:
    """Every region is as good as any other: the baseline to beat."""

    name = "random"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) uniform in [0, 1)."""
        return state.rng.random(len(actions), np.float32)

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Says that there is none."""
        return "picked at random"


class Entropy:
    """Where the segmenter's class distribution is broadest."""

    name = "entropy"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) mean entropy in nats."""
        return actions.entropy

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the entropy and the classes in question."""
        return (
            f"uncertain: mean entropy {actions.entropy[index]:.2f} nats, "
            f"mostly {_likeliest(actions, index, class_names)}"
        )


class Margin:
    """Where the segmenter wavers between its two best classes."""

    name = "margin"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) 1 - mean margin."""
        return 1 - actions.margin

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the margin and the classes in question."""
        return (
            f"undecided: the two best classes are {100 * actions.margin[index]:.0f} % apart, "
            f"mostly {_likeliest(actions, index, class_names)}"
        )


class KCenter:
    """Regions least like each other and anything labelled (the cold start).

    Greedy farthest-first traversal, "Active Learning for Convolutional Neural Networks: A Core-Set
    Approach", arXiv:1708.00489.
    """

    name = "k-center"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,): picks above 2 in the order they were made, the others' distance in [0, 2]."""
        embeddings = actions.embeddings
        num_regions = len(actions)
        if num_regions == 0:
            return np.zeros(0, np.float32)
        scores = np.zeros(num_regions, np.float32)
        num_picks = min(2 * state.count, num_regions)  # twice: the spread over images drops some
        nearest = _distance_to_nearest(embeddings, state.labelled_embeddings)  # (R,)
        is_open = np.ones(num_regions, bool)
        for turn in range(num_picks):
            if turn == 0 and len(state.labelled_embeddings) == 0:
                pick = int(np.argmax(embeddings @ embeddings.mean(axis=0)))  # the most typical
            else:
                pick = int(np.argmax(np.where(is_open, nearest, -1)))
            scores[pick] = 2 + num_picks - turn
            is_open[pick] = False
            nearest = np.minimum(nearest, _distances(embeddings, embeddings[pick]))
        scores[is_open] = nearest[is_open]
        return scores

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Says what it differs from."""
        if len(state.labelled_embeddings) == 0:
            return "a varied first selection"
        return "looks unlike anything labelled so far"


class Coverage:
    """Regions that probably show classes with few labels: sum_c pbar_c / (l_c + 0.005).

    pbar_c is the mean probability of class c in the region, l_c the labelled share of class c.
    """

    name = "coverage"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) expected rarity."""
        return np.asarray(self._per_class(state, actions).sum(axis=1), np.float32)

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the class that counts most."""
        best = int(np.argmax(self._per_class(state, actions)[index]))
        share = 100 * actions.class_probabilities[index, best]
        return f"may show {class_names[best]} ({share:.0f} % expected), which has few labels"

    def _per_class(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        shares = state.labelled_pixels / max(1, int(state.labelled_pixels.sum()))
        terms: np.ndarray = actions.class_probabilities / (shares + 0.005).astype(np.float32)
        return terms


STRATEGIES: dict[str, Strategy] = {
    each.name: each for each in (Random(), Entropy(), Margin(), KCenter(), Coverage())
}


def strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        ValueError: if there is none, naming those there are.
    """
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy '{name}'; expected one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def select(
    scores: np.ndarray,
    image_ids: np.ndarray,
    count: int,
    max_per_image: int | None = None,
) -> np.ndarray:
    """The `count` best regions, spread over images.

    Args:
        scores: (R,) float, higher first.
        image_ids: (R,) the image of each region.
        count: how many; fewer come back where there are fewer.
        max_per_image: at most so many of one image, by default twice the fair share. Exceeded
            only where `count` cannot be reached otherwise.

    Returns:
        Indices into `scores`, best first.

    Raises:
        ValueError: if a score is not finite.
    """
    scores = np.asarray(scores)
    if not np.isfinite(scores).all():
        raise ValueError(
            f"score of region {int(np.argmin(np.isfinite(scores)))} is not finite; the segmenter "
            "that it came from is broken: use an earlier version"
        )
    order = np.argsort(-scores, kind="stable")
    turn = _occurrence(np.asarray(image_ids)[order])  # 0 for an image's best region, then 1, ...
    if max_per_image is None:
        num_images = max(1, int((turn == 0).sum()))
        max_per_image = max(1, -(-2 * count // num_images))
    is_kept = turn < max_per_image
    ranked = np.concatenate([np.flatnonzero(is_kept), np.flatnonzero(~is_kept)])
    chosen: np.ndarray = order[np.sort(ranked[: max(0, count)])]
    return chosen


def _occurrence(values: np.ndarray) -> np.ndarray:
    """How many equal values stand before each one."""
    by_value = np.argsort(values, kind="stable")
    grouped = values[by_value]
    is_first = np.r_[True, grouped[1:] != grouped[:-1]][: len(values)]
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(values)), 0))
    occurrence = np.empty(len(values), np.int64)
    occurrence[by_value] = np.arange(len(values)) - starts
    return occurrence


def _distances(embeddings: np.ndarray, center: np.ndarray) -> np.ndarray:
    """(R,) Euclidean distances between vectors of unit length, in [0, 2]."""
    distances: np.ndarray = np.sqrt(np.clip(2 - 2 * (embeddings @ center), 0, 4))
    return distances


def _distance_to_nearest(embeddings: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(R,) distance to the nearest of (L, D) centers; 2, the largest, without any."""
    if len(centers) == 0:
        return np.full(len(embeddings), 2, np.float32)
    best = np.full(len(embeddings), -1, np.float32)
    for start in range(0, len(centers), 1024):  # a block at a time bounds memory
        best = np.maximum(best, (embeddings @ centers[start : start + 1024].T).max(axis=1))
    distances: np.ndarray = np.sqrt(np.clip(2 - 2 * best, 0, 4))
    return distances


def _likeliest(actions: RegionFeatures, index: int, class_names: Sequence[str]) -> str:
    """The one or two classes that the segmenter sees most of."""
    shares = actions.class_probabilities[index]
    order = np.argsort(-shares)[:2]
    return " or ".join(class_names[each] for each in order if shares[each] > 0.1) or "nothing clear"
