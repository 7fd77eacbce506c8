"""A dataset and how a policy is trained -> the simulation it is trained in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ralis_backend.core.segmenter import DEFAULT_SPEC, SegmenterSpec
from ralis_backend.offline.datasets import Dataset, DatasetError
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.config import TrainingConfig
from ralis_backend.offline.training.rewards import balanced_regions
from ralis_backend.offline.training.trainer import check_splits
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.full import FullSimulation


def open_simulation(
    dataset: Dataset,
    config: TrainingConfig,
    cache: Path,
    *,
    pool: str = "d_t",
    reward_set: str = "d_r",
    spec: SegmenterSpec = DEFAULT_SPEC,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
) -> Simulation:
    """The pool `pool`, the state set `d_s`, and the set on which rewards are measured.

    Raises:
        DatasetError: if a split is empty or not annotated, or a class never occurs where it would
            have to.
        ValueError: if settings do not go together.
    """
    check_splits(dataset, (pool, "d_s", reward_set))
    splits = {name: dataset.split(name) for name in (pool, "d_s", reward_set)}
    _check_annotated(dataset, reward_set)
    if not config.environment.initial_regions:
        _check_annotated(dataset, "d_s")  # the first segmenter learns from it
    if config.fidelity == "full":
        if config.reward_regions == "balanced":
            raise ValueError(
                "reward_regions 'balanced' chooses regions, and the full simulation is measured on "
                "whole images; set it to 'all', or fidelity to 'fast'"
            )
        spec = spec.for_classes(len(dataset.classes))
        full = FullSimulation(
            splits[pool],
            splits["d_s"],
            splits[reward_set],
            spec,
            config.region_size,
            device=device,
            background=dataset.background,
        )
        _check_classes(dataset, pool, full.class_pixels)
        return full
    features = PointFeatures(
        dataset,
        config.region_size,
        cache,
        spec=spec,
        device=device,
        report=report,
    )
    measured = features.split(reward_set)
    if config.reward_regions == "balanced":
        rng = np.random.default_rng(0)
        measured = measured.take(
            balanced_regions(measured.class_pixels[:, :-1], len(measured) // 2, rng)
        )
    regions = replace(features.split(pool), background=dataset.background)
    _check_classes(dataset, pool, regions.class_pixels)
    return FastSimulation(regions, features.split("d_s"), measured, config.head, device)


def _check_annotated(dataset: Dataset, split: str) -> None:
    samples = dataset.split(split)
    if not any((sample.mask() < len(dataset.classes)).any() for sample in samples):
        raise DatasetError(
            f"no pixel of split {split!r} of dataset {dataset.name} is annotated: all of its "
            f"{len(samples)} masks are void; complete them, or name other images in splits.json"
        )


def _check_classes(dataset: Dataset, pool: str, class_pixels: np.ndarray) -> None:
    missing = np.flatnonzero(class_pixels[:, :-1].sum(axis=0) == 0)
    if len(missing):
        names = ", ".join(dataset.class_names[index] for index in missing)
        raise DatasetError(
            f"no pixel of {pool} in dataset {dataset.name} shows {names}; a policy cannot learn to "
            "ask for a class that never occurs: remove it from classes.json, or move images"
        )
