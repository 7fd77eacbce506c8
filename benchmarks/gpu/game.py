"""Episodes of policy training per hour, in the fast simulation on made-up images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.environment_speed import measured
from benchmarks.gpu.scenes import scenes
from benchmarks.gpu.timing import Setting
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.training.config import FAITHFUL, REPAIRED, TrainingConfig
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.points import PointEncoder, RegionPoints

NUM_CLASSES = 11
IMAGE_SIZE, REGION_SIZE = (360, 480), (90, 80)
NUM_IMAGES = {"pool": 60, "state set": 10, "reward set": 30}
TINY_NUM_IMAGES = {"pool": 2, "state set": 1, "reward set": 1}
NUM_STEPS = 6


def game(setting: Setting) -> dict[str, Any]:
    """Seconds of a reset, a step and its updates, and episodes per hour, of both presets."""
    splits = _splits(TINY_NUM_IMAGES if setting.is_tiny else NUM_IMAGES, setting.device)
    results: dict[str, Any] = {
        "regions": {name: len(points) for name, points in splits.items()},
        "points_per_region": splits["pool"].points.labels.shape[1],
        "features_per_point": splits["pool"].points.features.shape[2],
    }
    for name, preset in {"faithful": FAITHFUL, "repaired": REPAIRED}.items():
        config = _tiny(preset) if setting.is_tiny else preset
        pool, state_set, reward_set = splits.values()
        simulation = FastSimulation(pool, state_set, reward_set, config.head, setting.device)
        results[name] = measured(simulation, config, NUM_STEPS, str(setting.device))
    return results


def _splits(num_images: dict[str, int], device: torch.device) -> dict[str, RegionPoints]:
    """The points of each set of images, under an encoder with random weights."""
    encoder = PointEncoder(SegmenterSpec(NUM_CLASSES, encoder_weights=None), str(device))
    regions = grid(IMAGE_SIZE, REGION_SIZE)
    first = scenes(2, IMAGE_SIZE, NUM_CLASSES)
    encoder.fit((image, regions) for image, _ in first)
    return {
        name: encoder.points(
            (*scene, regions) for scene in scenes(count, IMAGE_SIZE, NUM_CLASSES, seed)
        )
        for seed, (name, count) in enumerate(num_images.items())
    }


def _tiny(preset: TrainingConfig) -> TrainingConfig:
    """A game that two images are enough for."""
    rules = replace(
        preset.environment,
        budget=preset.environment.initial_regions // 12 + 28,
        initial_regions=preset.environment.initial_regions // 12,
        regions_per_step=4,
        pool_size=3,
        initial_updates=2,
        updates_per_step=2,
    )
    return replace(preset, environment=rules)
