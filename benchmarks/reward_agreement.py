"""How well the fast simulation's rewards agree with those of the trained network.

From one state (random labelled regions of CamVid's d_t), batches of regions are labelled in both
simulations; the rewards, the rise of mIoU on d_r, are compared over the batches. Half of them
are random, half the most uncertain of pools of ten. `retest` repeats each with other random
numbers: no agreement can be higher than the rewards agree with themselves.

    python benchmarks/reward_agreement.py --dataset ../shared/data/camvid \
        --out benchmarks/results/reward_agreement.json
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralis_backend.core.files import write_json
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.rewards import reward
from ralis_backend.settings import load_settings
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.full import FullSimulation

REGION_SIZE = (90, 80)
BATCH = 24


def main() -> None:
    """Measure and write."""
    options = _options()
    load_settings()
    dataset = Dataset.open(options.dataset)
    fast, full = _simulations(dataset, options)
    rng = np.random.default_rng(0)
    states = []
    for num_labelled in options.labelled:
        labelled = rng.choice(len(fast.class_pixels), num_labelled, replace=False)
        fast.begin(labelled, 200, 0)
        batches = _batches(fast, labelled, options.batches, rng)
        sets = [np.concatenate([labelled, batch]) for batch in batches]
        rewards: dict[str, Any] = {"labelled": num_labelled}
        for name, simulation, updates in (("fast", fast, 60), ("full", full, options.updates)):
            for run in range(2):
                started = time.perf_counter()
                simulation.begin(labelled, 200, 0)
                before = simulation.evaluate()
                after = simulation.learn(sets, updates, 1 + run)
                rewards[f"{name}-{run}"] = [round(reward("miou", before, it), 3) for it in after]
                rewards[f"{name}-{run}-seconds"] = round(time.perf_counter() - started, 1)
                print(rewards, flush=True)
        states.append(rewards | _agreement(rewards))
        _write(options, states)


def _simulations(
    dataset: Dataset, options: argparse.Namespace
) -> tuple[FastSimulation, FullSimulation]:
    features = PointFeatures(dataset, REGION_SIZE, options.cache)
    measured = dataset.split("d_r")[:: options.every]
    regions = features.split("d_r")
    is_measured = regions.image_index % options.every == 0
    fast = FastSimulation(
        features.split("d_t"), features.split("d_s"), regions.take(np.flatnonzero(is_measured))
    )
    spec = SegmenterSpec(len(dataset.classes))
    plain = FinetuneConfig(class_weight_power=0.0)
    full = FullSimulation(
        dataset.split("d_t"), dataset.split("d_s"), measured, spec, REGION_SIZE,
        first=plain, config=replace(plain, schedule="cosine"),
    )  # fmt: skip
    return fast, full


def _batches(
    fast: Simulation, labelled: np.ndarray, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    left = np.setdiff1d(np.arange(len(fast.class_pixels)), labelled)
    batches = []
    for number in range(count):
        pools = rng.choice(left, (BATCH, 10), replace=False)
        scores = rng.random(pools.shape)
        if number % 2:
            scores = fast.describe(pools.reshape(-1)).entropy.reshape(pools.shape)
        batches.append(pools[np.arange(BATCH), scores.argmax(axis=1)])
    return batches


def _agreement(rewards: dict[str, Any]) -> dict[str, Any]:
    def r(one: str, other: str) -> float:
        return round(float(np.corrcoef(rewards[one], rewards[other])[0, 1]), 3)

    means = {name: np.mean([rewards[f"{name}-{run}"] for run in range(2)], axis=0)
             for name in ("fast", "full")}  # fmt: skip
    is_uncertain = np.arange(len(means["fast"])) % 2 == 1
    return {
        "retest_fast": r("fast-0", "fast-1"),
        "retest_full": r("full-0", "full-1"),
        "agreement": round(float(np.corrcoef(means["fast"], means["full"])[0, 1]), 3),
        "uncertain_minus_random": {
            name: round(float(each[is_uncertain].mean() - each[~is_uncertain].mean()), 3)
            for name, each in means.items()
        },
    }


def _write(options: argparse.Namespace, states: list[dict[str, Any]]) -> None:
    content = {
        "what": "reward (points of mIoU on d_r) of batches of 24 regions from one state",
        "states": states,
        "reward_images": f"every {options.every}th of d_r",
        "updates": {"fast": 60, "full": options.updates},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    write_json(options.out, content)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/reward_agreement.json")
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--labelled", type=int, nargs="+", default=[48, 240])
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--every", type=int, default=5, help="measure on every n-th image of d_r")
    return parser.parse_args()


if __name__ == "__main__":
    main()
