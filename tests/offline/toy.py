"""A pool without a segmenter, in which it is known what a good policy does."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ralis_backend.core.acquisition import Places
from ralis_backend.core.features import RegionFeatures
from ralis_backend.simulation import Truth
from tests.core.make_features import region_features

REGION_SIZE = (16, 16)
PIXELS = REGION_SIZE[0] * REGION_SIZE[1]


class ToySimulation:
    """A region shows one of four classes; only labels of class 2 make the segmenter better."""

    num_classes = 4
    num_state_regions = 4

    def __init__(self, num_regions: int = 200, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shown = rng.integers(4, size=num_regions)
        self.is_useful = shown == 2
        self.class_pixels = np.zeros((num_regions, 5), np.int64)
        self.places = Places(np.arange(num_regions), np.zeros((num_regions, 2), np.float32))
        self.class_pixels[np.arange(num_regions), shown] = PIXELS
        self.gathered = 0
        self.calls: list[tuple[list[int], int | None]] = []

    def begin(self, labelled: np.ndarray, num_updates: int, seed: int) -> None:
        self.gathered = int(self.is_useful[labelled].sum())

    def learn(
        self, label_sets: Sequence[np.ndarray], num_updates: int | None, seed: int
    ) -> np.ndarray:
        self.calls.append(([len(each) for each in label_sets], num_updates))
        counts = [int(self.is_useful[each].sum()) for each in label_sets]
        self.gathered = counts[0]
        return np.stack([self._matrix(count) for count in counts])

    def evaluate(self) -> np.ndarray:
        return self._matrix(self.gathered)

    def describe(
        self, regions: np.ndarray, features: Collection[str] | None = None
    ) -> RegionFeatures:
        return self._described(self.class_counts(regions))

    def _described(self, counts: np.ndarray) -> RegionFeatures:
        num_regions = len(counts)
        return region_features(
            counts / PIXELS,
            margin=np.ones(num_regions, np.float32),
            embeddings=np.ones((num_regions, 3), np.float32) / np.sqrt(3, dtype=np.float32),
            class_counts=counts,
        )

    def class_counts(self, regions: np.ndarray) -> np.ndarray:
        return self.class_pixels[regions, :4].astype(np.float32)

    def embeddings(self, regions: np.ndarray) -> np.ndarray:
        return self.describe(regions).embeddings

    def describe_state(self, features: Collection[str] | None = None) -> RegionFeatures:
        """One region of each class; how uncertain they are changes while the segmenter learns."""
        shown = self._described(PIXELS * np.eye(4, dtype=np.float32))
        noise = np.random.default_rng(self.gathered).random((4, 192), np.float32)
        return shown.replaced(entropy_grid=noise)

    def reveal(self, regions: np.ndarray) -> Truth:
        num_regions = len(regions)
        return Truth(self.class_pixels[regions], np.zeros(num_regions), np.zeros((num_regions, 4)))

    @staticmethod
    def _matrix(count: int) -> np.ndarray:
        found = min(100, 2 * count)
        matrix = np.diag([100, 100, found, 100])
        matrix[2, 0] = 100 - found
        return matrix
