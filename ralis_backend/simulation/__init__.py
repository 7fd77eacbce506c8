"""Active learning played on labelled regions: what stands for the segmenter while it lasts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ralis_backend.core.acquisition import Places
from ralis_backend.core.features import RegionFeatures


@dataclass(frozen=True)
class Truth:
    """What only someone who knows the labels can say of R regions: for upper bounds.

    class_pixels: (R, C + 1) int64 true pixels of each class, void last.
    error: (R,) share of annotated pixels that the segmenter gets wrong.
    class_bald: (R, C) mean over the region of BALD where it shows each class, nats.
    """

    class_pixels: np.ndarray
    error: np.ndarray
    class_bald: np.ndarray


class Simulation(Protocol):
    """A pool of labelled regions, and a segmenter that learns from some of them.

    num_classes: C.
    num_state_regions: S, regions of the state set.
    class_pixels: (R, C + 1) int64 true pixels of each class in each region of the pool, void last.
    places: where the regions of the pool lie.
    background, removed_classes: what strategies are told of the classes, see `PoolState`.
    """

    num_classes: int
    num_state_regions: int
    class_pixels: np.ndarray
    places: Places
    background: int | None
    removed_classes: tuple[int, ...]

    def begin(self, labelled: np.ndarray, num_updates: int, seed: int) -> None:
        """A new segmenter that has learned from these regions; from the state set if none."""

    def learn(
        self, label_sets: Sequence[np.ndarray], num_updates: int | None, seed: int
    ) -> np.ndarray:
        """Train one copy of the segmenter on each label set, and keep the first.

        All copies start from the same weights and share their random draws.

        Args:
            label_sets: indices of regions of the pool, a set for each copy.
            num_updates: gradient steps; None: one epoch.
            seed: of the draws.

        Returns:
            (M, C, C) int64 confusion matrices on the reward set, a row per true class.
        """

    def evaluate(self) -> np.ndarray:
        """(C, C) int64 confusion matrix of the segmenter on the reward set."""

    def describe(
        self, regions: np.ndarray, features: Collection[str] | None = None
    ) -> RegionFeatures:
        """These features of these regions of the pool, under the segmenter as it is; None: all."""

    def class_counts(self, regions: np.ndarray) -> np.ndarray:
        """(R, C) float32 predicted pixels of each class: `describe` at a fraction of its cost."""

    def embeddings(self, regions: np.ndarray) -> np.ndarray:
        """(R, E) float32, unit length: the encoder's mean features of these regions."""

    def describe_state(self, features: Collection[str] | None = None) -> RegionFeatures:
        """The same of the state set's regions."""

    def reveal(self, regions: np.ndarray) -> Truth:
        """What only someone who knows the labels can say of these regions of the pool."""
