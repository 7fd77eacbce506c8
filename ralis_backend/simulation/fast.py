"""The fast simulation: a frozen encoder's features at points, and a small head that learns.

An AL step takes a fraction of a second. What it measures stands in for a trained network; how well
is written in the benchmark's results.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.acquisition import Places
from ralis_backend.core.features import (
    RegionFeatures,
    boundary_map,
    class_counts,
    entropy_grid,
    symmetric_divergence,
    uncertainty_maps,
)
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import NUM_DROPOUT_PASSES
from ralis_backend.simulation import Truth
from ralis_backend.simulation.heads import HeadConfig, Heads, Points
from ralis_backend.simulation.points import RegionPoints

_REGIONS_AT_ONCE = 512


class FastSimulation:
    """A head on cached features.

    Args:
        pool: regions that may be labelled.
        state_set: regions that make up the state.
        reward_set: regions on which the segmenter is measured.
        config: how heads learn.
        device: where everything is kept and computed.
    """

    def __init__(
        self,
        pool: RegionPoints,
        state_set: RegionPoints,
        reward_set: RegionPoints,
        config: HeadConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._pool, self._state_set = pool.to(self._device), state_set.to(self._device)
        self._reward_set = reward_set.to(self._device)
        self._config = config or HeadConfig()
        self.num_classes = pool.class_pixels.shape[1] - 1
        self.num_state_regions = len(state_set)
        self.class_pixels = pool.class_pixels
        self.places = Places(pool.image_index, pool.places)
        self.heads = self._fresh(0)
        self._started: dict[tuple[int, int], Heads] = {}

    @property
    def points(self) -> Points:
        """Points of the pool, on the device."""
        return self._pool.points

    def begin(self, labelled: np.ndarray, num_updates: int, seed: int) -> None:
        """A new head that has learned from these regions; from the state set if there are none."""
        if len(labelled):
            self.heads = self._fresh(seed).trained(self._pool.points, [labelled], num_updates, seed)
            return
        if (num_updates, seed) not in self._started:  # the same for every episode
            everything = np.arange(len(self._state_set))
            started = self._fresh(seed).trained(
                self._state_set.points, [everything], num_updates, seed
            )
            self._started = {(num_updates, seed): started}
        self.heads = self._started[num_updates, seed]

    def learn(
        self, label_sets: Sequence[np.ndarray], num_updates: int | None, seed: int
    ) -> np.ndarray:
        """See `Simulation.learn`; an epoch looks at each point of the first set once."""
        if num_updates is None:
            num_points = len(label_sets[0]) * self._pool.points.labels.shape[1]
            num_updates = max(1, num_points // self._config.batch_size)
        copies = self.heads.copies(len(label_sets))
        trained = copies.trained(self._pool.points, label_sets, num_updates, seed)
        self.heads = trained.only(0)
        return trained.confusion_matrices(self._reward_set.points)

    def evaluate(self) -> np.ndarray:
        """(C, C) confusion matrix on the points of the reward set."""
        matrix: np.ndarray = self.heads.confusion_matrices(self._reward_set.points)[0]
        return matrix

    def describe(self, regions: np.ndarray) -> RegionFeatures:
        """Features of these regions of the pool."""
        return self._described(self._pool, regions)

    def describe_state(self) -> RegionFeatures:
        """Features of the state set's regions."""
        return self._described(self._state_set, np.arange(len(self._state_set)))

    def class_counts(self, regions: np.ndarray) -> np.ndarray:
        """(R, C) predicted pixels of each class."""
        chosen = torch.from_numpy(np.asarray(regions, np.int64)).to(self._device)
        counts = []
        for index in torch.split(chosen, _REGIONS_AT_ONCE):
            predicted = self._logits(self._pool, index).argmax(dim=2)  # (r, P)
            counts.append(class_counts(predicted, self.num_classes))
        scaled: np.ndarray = (torch.cat(counts) * self._pixels_per_point()).cpu().numpy()
        return scaled

    def embeddings(self, regions: np.ndarray) -> np.ndarray:
        """(R, E) mean features of the frozen encoder."""
        embeddings: np.ndarray = self._pool.embeddings[regions]
        return embeddings

    def reveal(self, regions: np.ndarray) -> Truth:
        """What only someone who knows the labels can say of these regions of the pool."""
        chosen = torch.from_numpy(np.asarray(regions, np.int64)).to(self._device)
        errors, class_bald = [], []
        for index in torch.split(chosen, _REGIONS_AT_ONCE):
            labels = self._pool.points.labels[index].long()  # (r, P)
            is_known = labels != VOID
            logits, bald = self._logits_and_bald(self._pool, index)
            predicted = logits.argmax(dim=2)
            num_known = is_known.sum(dim=1).clamp(min=1)
            errors.append(((predicted != labels) & is_known).sum(dim=1) / num_known)
            is_class = functional.one_hot(labels.clamp(max=self.num_classes), self.num_classes + 1)
            class_bald.append((is_class[..., :-1] * bald[..., None]).mean(dim=1))
        return Truth(
            self.class_pixels[regions],
            torch.cat(errors).float().cpu().numpy(),
            torch.cat(class_bald).float().cpu().numpy(),
        )

    def _described(self, source: RegionPoints, regions: np.ndarray) -> RegionFeatures:
        chosen = torch.from_numpy(np.asarray(regions, np.int64)).to(self._device)
        parts = [self._features(source, index) for index in torch.split(chosen, _REGIONS_AT_ONCE)]
        joined = {
            name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]
        }
        return RegionFeatures(embeddings=source.embeddings[regions], **joined)

    def _features(self, source: RegionPoints, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every field of `RegionFeatures` but the embeddings."""
        num_regions = len(index)
        logits, bald = self._logits_and_bald(source, index)  # (r, P, C), (r, P)
        probabilities = logits.softmax(dim=2)
        uncertainty = uncertainty_maps(probabilities.movedim(2, 0))  # (2, r, P)
        predicted = probabilities.argmax(dim=2)  # (r, P)
        lattice = uncertainty[0].reshape(-1, 1, *source.lattice)
        pixels = functional.interpolate(lattice, source.region_size, mode="bilinear")[:, 0]
        divergence = torch.full((num_regions,), torch.nan, device=self._device)
        if source.mirrored is not None:
            others = self._logits_of(source.mirrored[index]).softmax(dim=2)
            divergence = symmetric_divergence(
                probabilities.movedim(2, 0), others.movedim(2, 0)
            ).mean(dim=1)
        return {
            "entropy": uncertainty[0].mean(dim=1),
            "margin": uncertainty[1].mean(dim=1),
            "class_probabilities": probabilities.mean(dim=1),
            "class_counts": class_counts(predicted, self.num_classes) * self._pixels_per_point(),
            "entropy_grid": entropy_grid(pixels),
            "bald": bald.mean(dim=1),
            "class_entropy": (probabilities * uncertainty[0][..., None]).mean(dim=1),
            "class_bald": (probabilities * bald[..., None]).mean(dim=1),
            "boundary": boundary_map(predicted.reshape(-1, *source.lattice)).mean(dim=(1, 2)),
            "mirror_divergence": divergence,
        }

    def _logits_and_bald(
        self, source: RegionPoints, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(r, P, C), and (r, P) mutual information of prediction and dropout mask, nats."""
        features = source.points.features[index]
        flat = features.reshape(-1, features.shape[-1])
        logits, log_p = self.heads.passes(flat, NUM_DROPOUT_PASSES)  # (B, C), (M, B, C)
        probabilities = log_p.exp()
        mean = probabilities.mean(dim=0)
        conditional = -(probabilities * log_p).sum(dim=2).mean(dim=0)
        mutual: torch.Tensor = (torch.special.entr(mean).sum(dim=1) - conditional).clamp(min=0)
        return logits.reshape(*features.shape[:2], self.num_classes), mutual.reshape(
            features.shape[:2]
        )

    def _logits(self, source: RegionPoints, index: torch.Tensor) -> torch.Tensor:
        return self._logits_of(source.points.features[index])

    def _logits_of(self, features: torch.Tensor) -> torch.Tensor:
        """(r, P, D) -> (r, P, C)."""
        flat = self.heads.logits(features.reshape(-1, features.shape[-1]))[0]
        return flat.reshape(*features.shape[:2], self.num_classes)

    def _pixels_per_point(self) -> float:
        height, width = self._pool.region_size
        return height * width / self._pool.points.labels.shape[1]

    def _fresh(self, seed: int) -> Heads:
        num_features = self._pool.points.features.shape[2]
        return Heads.fresh(num_features, self.num_classes, self._config, [seed], self._device)
