"""What strategies are compared on: a pool, a way to learn from it, and a test set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from ralis_backend.core.regions import VOID
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig, Heads
from ralis_backend.simulation.points import RegionPoints

S = TypeVar("S", bound=Simulation)


class Arena(Protocol[S]):
    """A pool of labelled regions, segmenters that learn from it, and a test set.

    name: of the dataset.
    class_pixels: (R, C + 1) int64 true pixels of each class in each region of the pool, void last.
    is_annotated: (R,) whether a segmenter can learn from the region: not all of it is void.
    background: index of the class that scores leave out and nobody looks for; None: there is none.
    """

    name: str
    background: int | None
    class_pixels: np.ndarray
    is_annotated: np.ndarray

    def simulation(self) -> S:
        """A new segmenter that ranks; its own scores are not asked for."""

    def measure(self, labelled: np.ndarray, num_updates: int, seed: int) -> np.ndarray:
        """(C, C) confusion matrix on the test set of a new segmenter that learned from these."""

    def snapshot(self, simulation: S) -> dict[str, torch.Tensor]:
        """The simulation's segmenter as tensors."""

    def restore(self, simulation: S, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `snapshot` gave."""

    def describe(self) -> dict[str, Any]:
        """The facts that a result depends on, as JSON."""


class FastArena:
    """Heads on a frozen encoder's features, measured on points of the test set.

    Args:
        name: of the dataset.
        pool, state_set, test_set: regions of its splits.
        head: how heads learn.
        device: where everything is computed.
        facts: about splits and encoder, for `describe`.
    """

    def __init__(
        self,
        name: str,
        pool: RegionPoints,
        state_set: RegionPoints,
        test_set: RegionPoints,
        head: HeadConfig | None = None,
        device: str = "cpu",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.background = name, pool.background
        self._device = torch.device(device)
        self._pool, self._test_set = pool.to(self._device), test_set.to(self._device)
        self._state_set = state_set
        self._head = head or HeadConfig()
        self._facts = dict(facts or {})
        self.class_pixels = pool.class_pixels
        self.is_annotated: np.ndarray = (pool.points.labels != VOID).any(dim=1).numpy()

    def simulation(self) -> FastSimulation:
        """A new head."""
        smallest = self._test_set.take(np.arange(1))
        return FastSimulation(self._pool, self._state_set, smallest, self._head, self._device)

    def measure(self, labelled: np.ndarray, num_updates: int, seed: int) -> np.ndarray:
        """See `Arena.measure`."""
        num_features = self._pool.points.features.shape[2]
        num_classes = self.class_pixels.shape[1] - 1
        heads = Heads.fresh(num_features, num_classes, self._head, [seed], self._device)
        trained = heads.trained(self._pool.points, [labelled], num_updates, seed)
        matrix: np.ndarray = trained.confusion_matrices(self._test_set.points)[0]
        return matrix

    def snapshot(self, simulation: FastSimulation) -> dict[str, torch.Tensor]:
        """The head's weights."""
        return {f"head.{index}": each for index, each in enumerate(simulation.heads.weights)}

    def restore(self, simulation: FastSimulation, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `snapshot` gave."""
        weights = [tensors[f"head.{index}"].to(self._device) for index in range(len(tensors))]
        simulation.heads = Heads(weights, self._head)

    def describe(self) -> dict[str, Any]:
        """The facts that a result depends on, as JSON."""
        return {
            "fidelity": "fast",
            "dataset": self.name,
            "pool_regions": len(self._pool),
            "pool_labels_sha256": labels_digest(self.class_pixels),
            "test_regions": len(self._test_set),
            "test_labels_sha256": labels_digest(self._test_set.class_pixels),
            "head": vars(self._head),
            **background_facts(self.background),
            **self._facts,
        }


def background_facts(background: int | None) -> dict[str, Any]:
    """The facts of it: nothing where there is none, as before there could be one."""
    return {} if background is None else {"background": background}


def labels_digest(class_pixels: np.ndarray) -> str:
    """Twelve characters that tell labels of one dataset from another's."""
    return hashlib.sha256(np.ascontiguousarray(class_pixels, np.int64).tobytes()).hexdigest()[:12]
