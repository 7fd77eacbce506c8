"""Which loss and which sampling serve the segmenter itself, not only a head on frozen features?

The same random regions of `d_v` are labelled for every recipe of a seed, the whole segmenter is
trained on them and measured once on images of the test set. A recipe is the share of crops drawn
by rarity, and the power by which the loss weighs a class. A stopped run goes on after the last
measurement.

    python benchmarks/segmenter_loss.py --dataset ../shared/data/camvid \
        --out benchmarks/results/labels/segmenter-loss-camvid.json
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.core.files import write_json
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.metrics import ious, mean_iou
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.benchmark.arenas import ArenaConfig
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.scaled import scaled
from ralis_backend.settings import load_settings
from ralis_backend.simulation.full_arena import FullArena

RECIPES = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.25), (0.5, 0.5))
"""(share of crops drawn by rarity, power of the class weights)."""


def main() -> None:
    """Measure and write."""
    options = _options()
    load_settings()
    found = json.loads(options.out.read_text()) if options.out.is_file() else _facts(options)
    if _facts(options) != {key: value for key, value in found.items() if key != "runs"}:
        raise SystemExit(f"{options.out} is of another experiment; choose another --out")
    runs = found.setdefault("runs", [])
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for share, power in RECIPES:
            recipe = {"rarity_share": share, "class_weight_power": power}
            if any(run["seed"] == seed and run["recipe"] == recipe for run in runs):
                continue
            runs.append({"seed": seed, "recipe": recipe, **_measure(options, recipe, seed)})
            write_json(options.out, found)
            print(seed, recipe, runs[-1]["miou"], flush=True)
    for share, power in RECIPES:
        scores = [
            run["miou"]
            for run in runs
            if tuple(run["recipe"].values()) == (share, power)
        ]  # fmt: skip
        print(f"rarity_share {share}, power {power}: {100 * np.mean(scores):.1f} of {len(scores)}")


def _measure(options: argparse.Namespace, recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    dataset = Dataset.open(options.dataset)
    config = ArenaConfig(dataset, (90, 80), "full", test_images=options.test_images)
    arena = FullArena(
        dataset.name,
        scaled(dataset.split("d_v"), options.image_scale),
        scaled(dataset.split("d_s"), options.image_scale),
        scaled(config.test_samples(), options.image_scale),
        SegmenterSpec(len(dataset.classes), "FPN", "mobilenet_v2", "imagenet"),
        (round(90 * options.image_scale), round(80 * options.image_scale)),
        replace(FinetuneConfig(), **recipe),
    )
    rng = np.random.default_rng(seed)
    labelled = rng.choice(np.flatnonzero(arena.is_annotated), options.regions, replace=False)
    matrix = arena.measure(labelled, options.updates, seed)
    return {
        "miou": round(float(mean_iou(matrix)), 5),
        "iou": [None if np.isnan(it) else round(float(it), 4) for it in ious(matrix)],
    }


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    names = ("regions", "updates", "test_images", "image_scale")
    return {"dataset": options.dataset.name, **{name: getattr(options, name) for name in names}}


def _options() -> argparse.Namespace:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=3000)
    parser.add_argument("--regions", type=int, default=240)
    parser.add_argument("--updates", type=int, default=348, help="what the backend does with 240")
    parser.add_argument("--test-images", type=int, default=58)
    parser.add_argument("--image-scale", type=float, default=0.5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
