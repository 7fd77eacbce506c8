"""Strategies that ask what the segmenter is unsure of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ralis_backend.core.acquisition.state import PoolState
from ralis_backend.core.acquisition.strategy import Needs, Scorer, likeliest
from ralis_backend.core.features import GRID_SIDE, RegionFeatures

_CELLS = GRID_SIDE**2
_TOP_CELLS = max(1, round(0.05 * _CELLS))


def mean_entropy(actions: RegionFeatures) -> np.ndarray:
    """(R,) mean entropy in nats."""
    return actions.entropy


def peak_entropy(actions: RegionFeatures) -> np.ndarray:
    """(R,) the largest entropy of a pixel, nats."""
    peaks: np.ndarray = actions.entropy_grid[:, 2 * _CELLS :].max(axis=1)
    return peaks


def top_entropy(actions: RegionFeatures) -> np.ndarray:
    """(R,) mean entropy of the 5 % of the region's area where it is highest, nats.

    To the grid of 8 x 8 cells: the three cells with the highest mean.
    """
    cells = np.sort(actions.entropy_grid[:, _CELLS : 2 * _CELLS], axis=1)
    means: np.ndarray = cells[:, -_TOP_CELLS:].mean(axis=1)
    return means


class Entropy(Scorer):
    """Where the segmenter's class distribution is broadest."""

    is_pointwise = True

    def __init__(
        self, name: str, measure: Callable[[RegionFeatures], np.ndarray], *features: str
    ) -> None:
        self.name = name
        self.needs = Needs.of("entropy", "class_probabilities", *features)
        self._measure = measure

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) entropy in nats."""
        return np.asarray(self._measure(actions), np.float32)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the entropy and the classes in question."""
        return [
            f"uncertain: mean entropy {entropy:.2f} nats, mostly {seen}"
            for entropy, seen in zip(actions.entropy, likeliest(actions, class_names), strict=True)
        ]


class Margin(Scorer):
    """Where the segmenter wavers between its two best classes."""

    name = "margin"
    needs = Needs.of("margin", "class_probabilities")
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) 1 - mean margin."""
        return 1 - actions.margin

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the margin and the classes in question."""
        return [
            f"undecided: the two best classes are {100 * margin:.0f} % apart, mostly {seen}"
            for margin, seen in zip(actions.margin, likeliest(actions, class_names), strict=True)
        ]


class Bald(Scorer):
    """Where passes of the segmenter with dropout disagree: what more labels can teach.

    Source: "Bayesian Active Learning for Classification and Preference Learning",
    arXiv:1112.5745.
    """

    name = "bald"
    needs = Needs.of("bald", "class_probabilities")
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) mean mutual information in nats."""
        return actions.bald

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the classes in question."""
        return [
            f"the model disagrees with itself, mostly {seen}"
            for seen in likeliest(actions, class_names)
        ]


class Equal(Scorer):
    """Where the segmenter says something else of the mirrored image.

    Source: "EquAL: Equivariance-based active learning" (Golestaneh and Kitani, "Importance of
    Self-Consistency in Active Learning for Semantic Segmentation", arXiv:2008.01860).
    """

    name = "equal"
    needs = Needs.of("mirror_divergence", "class_probabilities")
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) mean symmetric divergence in nats."""
        return actions.mirror_divergence

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the classes in question."""
        return [
            f"the mirrored image looks different, mostly {seen}"
            for seen in likeliest(actions, class_names)
        ]
