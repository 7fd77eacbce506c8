"""The fast simulation: a frozen encoder's features at points, and a small head that learns.

An AL step takes a fraction of a second. What it measures stands in for a trained network; how well
is written in the benchmark's results.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.acquisition import Places
from ralis_backend.core.features import (
    FEATURES,
    RegionFeatures,
    boundary_map,
    class_counts,
    entropy_grid,
    entropy_map,
    maps_for,
    margin_map,
    symmetric_divergence,
)
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import NUM_DEEP_PASSES, NUM_DROPOUT_PASSES
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
        self.background, self.removed_classes = pool.background, pool.removed_classes
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

    def describe(
        self, regions: np.ndarray, features: Collection[str] | None = None
    ) -> RegionFeatures:
        """Features of these regions of the pool."""
        return self._described(self._pool, regions, features)

    def describe_state(self, features: Collection[str] | None = None) -> RegionFeatures:
        """Features of the state set's regions."""
        return self._described(self._state_set, np.arange(len(self._state_set)), features)

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
            look = _Look(self.heads, self._pool, index)
            predicted = look.logits.argmax(dim=2)
            num_known = is_known.sum(dim=1).clamp(min=1)
            errors.append(((predicted != labels) & is_known).sum(dim=1) / num_known)
            is_class = functional.one_hot(labels.clamp(max=self.num_classes), self.num_classes + 1)
            class_bald.append((is_class[..., :-1] * look.bald[..., None]).mean(dim=1))
        return Truth(
            self.class_pixels[regions],
            torch.cat(errors).float().cpu().numpy(),
            torch.cat(class_bald).float().cpu().numpy(),
        )

    def _described(
        self, source: RegionPoints, regions: np.ndarray, features: Collection[str] | None
    ) -> RegionFeatures:
        wanted = _wanted(source, features)
        chosen = torch.from_numpy(np.asarray(regions, np.int64)).to(self._device)
        looks = [_Look(self.heads, source, part) for part in torch.split(chosen, _REGIONS_AT_ONCE)]
        values = {
            name: torch.cat([_COMPUTE[name](look) for look in looks]).cpu().numpy()
            for name in wanted
            if name in _COMPUTE
        }
        if "embeddings" in wanted:
            values["embeddings"] = source.embeddings[regions]
        return RegionFeatures(len(chosen), values)

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


def _wanted(source: RegionPoints, features: Collection[str] | None) -> list[str]:
    """Names of features; all that the points allow if None."""
    is_seen_twice = source.mirrored is not None
    if features is None:
        return [each for each in FEATURES if is_seen_twice or "mirrored" not in maps_for((each,))]
    if "mirrored" in maps_for(features) and not is_seen_twice:
        raise ValueError("the points hold no mirrored features; make them with look_twice")
    return list(features)


class _Look:
    """What a head says of some regions; what several features share is computed once."""

    def __init__(self, heads: Heads, source: RegionPoints, index: torch.Tensor) -> None:
        self.heads, self.source, self.index = heads, source, index
        self.num_classes = source.class_pixels.shape[1] - 1

    @cached_property
    def hidden(self) -> torch.Tensor:
        """(r P, hidden) units of the head at every point."""
        return self.heads.hidden(self.source.points.features[self.index].flatten(0, 1))

    @cached_property
    def logits(self) -> torch.Tensor:
        """(r, P, C)."""
        return self.by_region(self.heads.plain_logits(self.hidden))

    @cached_property
    def bald(self) -> torch.Tensor:
        """(r, P) mutual information of prediction and dropout mask, nats."""
        return self.by_region(_disagreement(self.heads.passes(self.hidden, NUM_DROPOUT_PASSES)))

    @cached_property
    def deep_bald(self) -> torch.Tensor:
        """(r, P) the same of passes with dropout in both layers, nats."""
        features = self.source.points.features[self.index].flatten(0, 1)
        return self.by_region(_disagreement(self.heads.deep_passes(features, NUM_DEEP_PASSES)))

    @cached_property
    def probabilities(self) -> torch.Tensor:
        """(r, P, C)."""
        return self.logits.softmax(dim=2)

    @cached_property
    def predicted(self) -> torch.Tensor:
        """(r, P) class indices."""
        return self.probabilities.argmax(dim=2)

    @cached_property
    def entropy(self) -> torch.Tensor:
        """(r, P) nats."""
        return entropy_map(self.probabilities.movedim(2, 0))

    @property
    def pixels_per_point(self) -> float:
        """A point stands for so many pixels."""
        height, width = self.source.region_size
        return height * width / self.source.points.labels.shape[1]

    def by_region(self, values: torch.Tensor) -> torch.Tensor:
        """(r P, ...) -> (r, P, ...)."""
        num_points = self.source.points.labels.shape[1]
        return values.reshape(len(self.index), num_points, *values.shape[1:])


def _disagreement(log_p: torch.Tensor) -> torch.Tensor:
    """(M, B, C) log probabilities of M passes -> (B,) their mutual information with the masks."""
    probabilities = log_p.exp()
    conditional = -(probabilities * log_p).sum(dim=2).mean(dim=0)
    of_mean = torch.special.entr(probabilities.mean(dim=0)).sum(dim=1)
    disagreement: torch.Tensor = (of_mean - conditional).clamp(min=0)
    return disagreement


def _entropy_grid(look: _Look) -> torch.Tensor:
    lattice = look.entropy.reshape(-1, 1, *look.source.lattice)
    size = look.source.region_size
    return entropy_grid(functional.interpolate(lattice, size, mode="bilinear")[:, 0])


def _mirror_divergence(look: _Look) -> torch.Tensor:
    if look.source.mirrored is None:
        raise ValueError("the points hold no mirrored features; make them with look_twice")
    features = look.source.mirrored[look.index].flatten(0, 1)
    others = look.by_region(look.heads.logits(features)[0]).softmax(dim=2)
    return symmetric_divergence(look.probabilities.movedim(2, 0), others.movedim(2, 0)).mean(dim=1)


_COMPUTE: dict[str, Callable[[_Look], torch.Tensor]] = {
    "entropy": lambda look: look.entropy.mean(dim=1),
    "margin": lambda look: margin_map(look.probabilities.movedim(2, 0)).mean(dim=1),
    "class_probabilities": lambda look: look.probabilities.mean(dim=1),
    "class_counts": lambda look: (
        class_counts(look.predicted, look.num_classes) * look.pixels_per_point
    ),
    "entropy_grid": _entropy_grid,
    "bald": lambda look: look.bald.mean(dim=1),
    "class_entropy": lambda look: (look.probabilities * look.entropy[..., None]).mean(dim=1),
    "class_bald": lambda look: (look.probabilities * look.bald[..., None]).mean(dim=1),
    "bald_peak": lambda look: look.bald.amax(dim=1),
    "class_peaks": lambda look: look.probabilities.amax(dim=1),
    "deep_bald": lambda look: look.deep_bald.mean(dim=1),
    "deep_bald_peak": lambda look: look.deep_bald.amax(dim=1),
    "class_deep_bald": lambda look: (look.probabilities * look.deep_bald[..., None]).mean(dim=1),
    "boundary": lambda look: boundary_map(look.predicted.reshape(-1, *look.source.lattice)).mean(
        dim=(1, 2)
    ),
    "mirror_divergence": _mirror_divergence,
}
