"""What ranking costs: over the segmenter's bare forward pass, and over the size of the pool.

The first part looks at one image as the worker does, for the features that each strategy needs and
the predicted mask, and once more with the bare network; both take turns in one process on one
thread, and the figure is the ratio of their medians. The second part scores and explains a pool
whose regions are described already, of a thousand to a million regions, with the default strategy.

    OMP_NUM_THREADS=1 python benchmarks/ranking_cost.py --out benchmarks/results/ranking_cost.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralis_backend.core.acquisition import STRATEGIES, Needs, PoolState, Strategy, strategy
from ralis_backend.core.features import FEATURES, RegionFeatures, describe, predicted_mask
from ralis_backend.core.files import write_json
from ralis_backend.core.policy.registry import DEFAULT
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.core.segmenter.smp import SmpSegmenter
from ralis_backend.online.ranking import scores_of, to_explain

IMAGES = (((360, 480), 11, (90, 80)), ((1024, 2048), 19, (128, 128)))
SIZES = (1_000, 10_000, 100_000, 1_000_000)
REGIONS_PER_IMAGE = 128
NUM_CLASSES = 11
BARE = "bare network"
EVERYTHING = "every feature"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--strategies", default=f"entropy,{DEFAULT},coverage,k-center,equal")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    names = options.strategies.split(",")
    content = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/ranking_cost.py",
        "segmenter": "FPN mobilenet_v2, random weights",
        "images": [look_costs(*image, names, options.turns) for image in IMAGES],
        "pools": [pool_cost(size) for size in SIZES],
        "threads": 1,
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps(content, indent=1))
    if options.out is not None:
        write_json(options.out, content)


def look_costs(
    size: tuple[int, int],
    num_classes: int,
    region_size: tuple[int, int],
    names: list[str],
    turns: int,
) -> dict[str, Any]:
    """Seconds of the bare network on one image, and the ratio of each strategy's look to it."""
    segmenter = SmpSegmenter(SegmenterSpec(num_classes, encoder_weights=None))
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    regions = grid(size, region_size)
    pixels = segmenter.normalised(image)[None].to(memory_format=torch.channels_last)
    padded = segmenter._padded(pixels)

    def bare() -> None:
        with torch.inference_mode():
            segmenter.model(padded)

    def look(needs: Needs) -> Callable[[], None]:
        def step() -> None:
            forward = segmenter.forward_pass(image, needs.maps)
            describe(forward, regions, needs.features)
            predicted_mask(forward)

        return step

    everything = Needs(frozenset(FEATURES) - {"mirror_divergence"})
    steps = {BARE: bare} | {name: look(STRATEGIES[name].needs) for name in names}
    steps[EVERYTHING] = look(everything)
    seconds = in_turns(steps, turns)
    return {
        "size": list(size),
        "classes": num_classes,
        "bare_s": round(seconds[BARE], 4),
        "over_bare": {
            name: round(value / seconds[BARE], 3) for name, value in seconds.items() if name != BARE
        },
    }


def in_turns(steps: dict[str, Callable[[], None]], turns: int) -> dict[str, float]:
    """Median seconds of each step; they take turns, after one turn that warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in times.items()}


def pool_cost(num_regions: int, chooser: Strategy | None = None) -> dict[str, Any]:
    """Seconds to score and explain so many described regions, and how often it may be stopped."""
    chooser = chooser or strategy(DEFAULT)
    features = made_up_features(num_regions, NUM_CLASSES, chooser.needs)
    image_index = np.arange(num_regions) // REGIONS_PER_IMAGE
    asked = [time.perf_counter()]
    state = PoolState(
        np.full((200, NUM_CLASSES + 1), 50),
        None,
        48,
        np.random.default_rng(0),
        stop=lambda: asked.append(time.perf_counter()),
    )
    started = asked[0] = time.perf_counter()
    scores = scores_of(chooser, state, features, np.arange(num_regions))
    explained = to_explain(scores, image_index, 3)
    class_names = [f"class {index}" for index in range(NUM_CLASSES)]
    reasons = chooser.reasons(state.part(explained), features.take(explained), class_names)
    ended = time.perf_counter()
    return {
        "regions": num_regions,
        "strategy": chooser.name,
        "explained": len(reasons),
        "seconds": round(ended - started, 4),
        "longest_without_being_asked_to_stop_s": round(float(np.diff([*asked, ended]).max()), 4),
    }


def made_up_features(num_regions: int, num_classes: int, needs: Needs) -> RegionFeatures:
    """Random features of the right shapes."""
    rng = np.random.default_rng(0)
    widths = {"class": num_classes, "entropy_grid": 192, "embeddings": 96}
    values = {}
    for name in needs.features:
        width = widths.get(name, widths["class"] if name.startswith("class") else None)
        shape = (num_regions,) if width is None else (num_regions, width)
        values[name] = rng.random(shape, np.float32)
    if "class_probabilities" in values:
        values["class_probabilities"] /= values["class_probabilities"].sum(axis=1, keepdims=True)
    return RegionFeatures(num_regions, values)


if __name__ == "__main__":
    main()
