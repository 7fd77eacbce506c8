"""A pool without a segmenter, in which it is known what a good policy does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch

from ralis_backend.core.acquisition import Places
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy import QueryNetwork
from ralis_backend.offline.training.config import REPAIRED, TrainingConfig
from ralis_backend.offline.training.environment import EnvironmentConfig, LabellingEnv
from ralis_backend.simulation import Truth
from tests.core.make_features import region_features

REGION_SIZE = (16, 16)
PIXELS = REGION_SIZE[0] * REGION_SIZE[1]
CONFIG = TrainingConfig(
    episodes=15,
    environment=EnvironmentConfig(
        budget=28, regions_per_step=4, pool_size=6, initial_regions=4,
        credit="difference", credit_groups=4,
    ),
    dqn=replace(
        REPAIRED.dqn, learning_rate=1e-3, discount=0.5, num_steps=1, replay_capacity=400,
        learning_starts=32, updates_per_step=3, epsilon_decay=80.0,
    ),
    region_size=REGION_SIZE,
    keep="last",
    evaluate_every=5,
    evaluation_episodes=1,
)  # fmt: skip


class ToySimulation:
    """A region shows one of four classes; only labels of class 2 make the segmenter better."""

    num_classes = 4
    num_state_regions = 4
    background = None
    removed_classes = ()

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


def picks_useful(network: QueryNetwork) -> float:
    """How often the network picks a useful region where its pool has one; pools it never saw."""
    simulation = ToySimulation(seed=99)
    environment = LabellingEnv(simulation, CONFIG.environment)
    picked: list[bool] = []
    for seed in range(10):
        observation, _ = environment.reset(seed=seed)
        with torch.inference_mode():
            q_values = network(
                torch.from_numpy(observation["state"])[None],
                torch.from_numpy(observation["actions"]).flatten(0, 1)[None],
            )
        best = q_values.reshape(4, 6).argmax(dim=1).numpy()
        useful = simulation.is_useful[environment.pools]
        picked += useful[np.arange(4), best][useful.any(axis=1)].tolist()
    return float(np.mean(picked))
