"""Strategies that ask what the segmenter is unsure of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ralis_backend.core.acquisition.state import PoolState, likeliest
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


class Entropy:
    """Where the segmenter's class distribution is broadest."""

    looks_twice = False
    is_pointwise = True

    def __init__(self, name: str, measure: Callable[[RegionFeatures], np.ndarray]) -> None:
        self.name = name
        self._measure = measure

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) entropy in nats."""
        return np.asarray(self._measure(actions), np.float32)

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the entropy and the classes in question."""
        return (
            f"uncertain: mean entropy {actions.entropy[index]:.2f} nats, "
            f"mostly {likeliest(actions, index, class_names)}"
        )


class Margin:
    """Where the segmenter wavers between its two best classes."""

    name = "margin"
    looks_twice = False
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) 1 - mean margin."""
        return 1 - actions.margin

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the margin and the classes in question."""
        return (
            f"undecided: the two best classes are {100 * actions.margin[index]:.0f} % apart, "
            f"mostly {likeliest(actions, index, class_names)}"
        )


class Bald:
    """Where passes of the segmenter with dropout disagree: what more labels can teach.

    Source: "Bayesian Active Learning for Classification and Preference Learning",
    arXiv:1112.5745.
    """

    name = "bald"
    looks_twice = False
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) mean mutual information in nats."""
        return actions.bald

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the classes in question."""
        return f"the model disagrees with itself, mostly {likeliest(actions, index, class_names)}"


class Equal:
    """Where the segmenter says something else of the mirrored image.

    Source: "EquAL: Equivariance-based active learning" (Golestaneh and Kitani, "Importance of
    Self-Consistency in Active Learning for Semantic Segmentation", arXiv:2008.01860).
    """

    name = "equal"
    looks_twice = True
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) mean symmetric divergence in nats.

        Raises:
            ValueError: if nobody looked at the mirrored images.
        """
        if np.isnan(actions.mirror_divergence).any():
            raise ValueError("equal needs a second look at each image; describe it with look_twice")
        return actions.mirror_divergence

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the classes in question."""
        return (
            f"the mirrored image looks different, mostly {likeliest(actions, index, class_names)}"
        )
