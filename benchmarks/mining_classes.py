"""Does a miner find a class that it was never trained to look for?

Heads that know a few regions of a dataset look at others; a linear miner learns from the searches
for every class of theirs, and one for each class from the searches for all the other classes. Both
look for that class in the same games as `benchmarks/mining.py` plays, on images that no miner
learned from.

    OMP_NUM_THREADS=1 python -m benchmarks.mining_classes --dataset ../shared/data/camvid
    python -m benchmarks.mining_classes
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import vector_to_parameters

from benchmarks.mining import (
    GENERAL,
    INITIAL_REGIONS,
    PICKS,
    REGION_SIZE,
    Game,
    by_seed,
    percent,
    targets,
)
from ralis_backend.core.files import write_json
from ralis_backend.core.policy import MisicalPolicy, MisicalSpec
from ralis_backend.core.policy.misical_inputs import NEEDS
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.config import PRESETS
from ralis_backend.offline.training.misical import fit_linear
from ralis_backend.offline.training.searches import Search, search_for
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig
from ralis_backend.simulation.points import RegionPoints

RESULTS = Path(__file__).resolve().parent / "results" / "mining-classes"
CONFIG = PRESETS["misical-linear"]
SEEN, UNSEEN = "looked for in training", "never looked for"
COMPARED = ("random", "presence", SEEN, UNSEEN)


def main() -> None:
    """Train, play and write, or print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.dataset is None:
        print("\n".join(table(options.out)))
        return
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset)
    features = PointFeatures(dataset, REGION_SIZE, options.cache)
    heads = searches(features.split("d_t"), np.random.default_rng(0))
    whole = features.split("d_v")
    annotated = np.flatnonzero(whole.class_pixels[:, :-1].sum(axis=1))
    pool = whole.take(np.sort(np.random.default_rng(0).permutation(annotated)[:3000]))
    everything = fitted([search for head in heads for search in head.values()])
    miners = {
        target: {SEEN: everything, UNSEEN: fitted(without(heads, target))}
        for target in targets(pool.class_pixels)
        if any(target in head for head in heads)
    }
    games: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        started = time.perf_counter()
        general = {"random": GENERAL["random"]}
        game = Game(pool, dataset.class_names, {}, seed, general, ["presence"])
        found: dict[str, Any] = {}
        for target, game.trained in miners.items():
            found |= game.played([target])
        games.append(found)
        content = {
            "dataset": dataset.name,
            "regions": len(pool),
            "initial_regions": INITIAL_REGIONS,
            "heads": len(heads),
            "picks": PICKS,
            "games": games,
        }
        write_json(options.out / f"{dataset.name}.json", content)
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)


def searches(source: RegionPoints, rng: np.random.Generator) -> list[dict[int, Search]]:
    """For each head the searches for every class that it saw and that some regions show."""
    annotated = np.flatnonzero(source.class_pixels[:, :-1].sum(axis=1))
    nothing = source.take(np.arange(1))
    heads = []
    low, high = CONFIG.initial_regions
    for _ in range(CONFIG.num_segmenters):
        order = rng.permutation(annotated)
        count = int(rng.integers(low, high + 1))
        learned, offered = order[:count], order[count : count + CONFIG.max_candidates]
        simulation = FastSimulation(source, nothing, nothing, HeadConfig())
        simulation.begin(learned, CONFIG.initial_updates, int(rng.integers(2**31)))
        described = simulation.describe(offered, NEEDS.features)
        known, pixels = source.class_pixels[learned], source.class_pixels[offered]
        heads.append(
            {
                target: search_for(target, described, known, pixels, CONFIG, rng)
                for target in targets(pixels)
                if known[:, target].any()
            }
        )
    return heads


def without(heads: Sequence[dict[int, Search]], target: int) -> list[Search]:
    """The searches for the other classes."""
    return [search for head in heads for of_class, search in head.items() if of_class != target]


def fitted(of_classes: Sequence[Search]) -> MisicalPolicy:
    """The linear miner that learned from these searches."""
    policy = MisicalPolicy.untrained(MisicalSpec("linear"), 0, "linear")
    weights = torch.from_numpy(fit_linear(of_classes, CONFIG.ridge)).float()
    vector_to_parameters(weights, policy.network.parameters())
    return policy


def table(folder: Path) -> list[str]:
    """Markdown: of each dataset what is gathered of classes that a miner learned from, or not."""
    lines = [
        f"| dataset | classes | {' | '.join(COMPARED)} | difference |",
        "| --- " * (len(COMPARED) + 3) + "|",
    ]
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        games = content["games"]
        num_classes = len({of_class for game in games for of_class in game})
        scores = [by_seed(games, name, 1) for name in COMPARED]
        cells = [*map(percent, scores), percent(scores[-1] - scores[-2], "+")]
        lines.append(f"| {content['dataset']} | {num_classes} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
