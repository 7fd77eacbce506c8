"""What does one look lose against many rounds, each of which learns from what was picked before?

A head learns from 96 random regions of a dataset. For each of the rarest classes a strategy picks
2,000 regions, once from one look at the others, and once in ten rounds of 200: after each a new
head learns from all that is labelled by then, and looks again. Both end with a head that learns
from everything, measured on the test set.

    OMP_NUM_THREADS=1 python -m benchmarks.mining_rounds --dataset ../shared/data/camvid
    python -m benchmarks.mining_rounds
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mining import (
    INITIAL_REGIONS,
    NUM_UPDATES,
    POLICIES,
    REGION_SIZE,
    RETRAINED_UPDATES,
    percent,
    policies,
    targets,
)
from ralis_backend.core.acquisition import STRATEGIES, Aimed, Strategy
from ralis_backend.core.files import write_json
from ralis_backend.core.metrics import ious
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig
from ralis_backend.simulation.mining import gathered, look
from ralis_backend.simulation.points import RegionPoints

RESULTS = Path(__file__).resolve().parent / "results" / "mining-rounds"
NUM_PICKS, NUM_ROUNDS = 2000, 10
PLAYED = ("presence", "misical-linear")


def main() -> None:
    """Play and write, or print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--policies", type=Path, default=POLICIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--classes", type=int, default=3, help="so many of the rarest")
    options = parser.parse_args()
    if options.dataset is None:
        print("\n".join(table(options.out)))
        return
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset)
    features = PointFeatures(dataset, REGION_SIZE, options.cache)
    whole = features.split("d_v")
    pool = whole.take(np.flatnonzero(whole.class_pixels[:, :-1].sum(axis=1)))
    arena = Arena(pool, features.split("test"))
    miners: dict[str, Strategy] = {**STRATEGIES, **policies(options.policies, dataset.name)}
    sought = sorted(targets(pool.class_pixels), key=lambda it: pool.class_pixels[:, it].sum())
    games = []
    for seed in range(options.seeds):
        for target in sought[: options.classes]:
            started = time.perf_counter()
            name = dataset.class_names[target]
            aimed = {each: Aimed(miners[each], target, name) for each in PLAYED}
            games.append({"seed": seed, "class": name} | arena.played(aimed, target, seed))
            print(f"seed {seed}, {name}: {time.perf_counter() - started:.0f} s", flush=True)
    content = {
        "dataset": dataset.name,
        "regions": len(pool),
        "initial_regions": INITIAL_REGIONS,
        "picks": NUM_PICKS,
        "rounds": NUM_ROUNDS,
        "games": games,
    }
    write_json(options.out / f"{dataset.name}.json", content)


class Arena:
    """Regions to pick from, and those to be measured on."""

    def __init__(self, pool: RegionPoints, test: RegionPoints) -> None:
        self.pool, self.test = pool, test
        nothing = pool.take(np.arange(1))
        self.simulation = FastSimulation(pool, nothing, nothing, HeadConfig())

    def played(self, miners: Mapping[str, Strategy], target: int, seed: int) -> dict[str, Any]:
        """Of each strategy, in one look and in rounds: what it found, and what that taught."""
        order = np.random.default_rng([seed, 11]).permutation(len(self.pool))
        learned = order[:INITIAL_REGIONS]
        found = {
            name: {
                f"{num_rounds}": self._picked(miner, target, learned, num_rounds, seed)
                for num_rounds in (1, NUM_ROUNDS)
            }
            for name, miner in miners.items()
        }
        return {"found": found}

    def _picked(
        self, miner: Strategy, target: int, learned: np.ndarray, num_rounds: int, seed: int
    ) -> dict[str, Any]:
        """Shares gathered after each 200 picks, seconds of training and looking, IoU at the end."""
        pixels = self.pool.class_pixels[:, target]
        others = np.setdiff1d(np.arange(len(self.pool)), learned)
        picked, started = np.zeros(0, np.int64), time.perf_counter()
        for _ in range(num_rounds):
            labelled = np.concatenate([learned, picked])
            self.simulation.begin(labelled, NUM_UPDATES, seed)
            offered = np.setdiff1d(others, picked)
            count = NUM_PICKS // num_rounds
            best = look(self.simulation, {"miner": miner}, labelled, offered, count, seed)["miner"]
            picked = np.concatenate([picked, offered[best[:count]]])
        seconds = time.perf_counter() - started
        self.simulation.begin(np.concatenate([learned, picked]), RETRAINED_UPDATES, seed)
        (matrix,) = self.simulation.heads.confusion_matrices(self.test.points)
        steps = range(NUM_PICKS // NUM_ROUNDS, NUM_PICKS + 1, NUM_PICKS // NUM_ROUNDS)
        return {
            "gathered": [round(gathered(pixels, picked[:count], others), 5) for count in steps],
            "iou": round(float(ious(matrix)[target]), 5),
            "seconds": round(seconds, 1),
        }


def table(folder: Path) -> list[str]:
    """Markdown: both ways side by side, each class of each seed a game."""
    lines = [
        f"| dataset, strategy | gathered in one look | in {NUM_ROUNDS} rounds | rounds over one "
        "look | IoU after one look | rounds over one look | seconds |",
        "| --- " * 7 + "|",
    ]
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        names = list(dict.fromkeys(name for game in content["games"] for name in game["found"]))
        lines += [_row(content["dataset"], name, content["games"]) for name in names]
    return lines


def _row(dataset: str, name: str, games: Sequence[dict[str, Any]]) -> str:
    of_name = [game["found"][name] for game in games if name in game["found"]]
    once, often = ([it[f"{rounds}"] for it in of_name] for rounds in (1, NUM_ROUNDS))
    gathered_once, gathered_often = (
        np.array([it["gathered"][-1] for it in each]) for each in (once, often)
    )
    iou_once, iou_often = (np.array([it["iou"] for it in each]) for each in (once, often))
    seconds = [float(np.mean([it["seconds"] for it in each])) for each in (once, often)]
    cells = (
        f"{dataset}, {name}",
        percent(gathered_once),
        percent(gathered_often),
        percent(gathered_often - gathered_once, "+"),
        percent(iou_once),
        percent(iou_often - iou_once, "+"),
        f"{seconds[0]:.0f} and {seconds[1]:.0f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
