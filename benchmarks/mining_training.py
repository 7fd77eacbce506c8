"""How much does it matter how a policy that looks for a class is trained?

One thing at a time is changed from what the backend trains with: discount, length of returns, speed
of the target network, reward, replay, length. Each network learns on three datasets, from the same
prepared heads, and looks for classes of the fourth; beside them the regression on the same inputs.

    OMP_NUM_THREADS=1 python -m benchmarks.mining_training --data ../shared/data --unseen roads
    python -m benchmarks.mining_training
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mining import INITIAL_REGIONS, PICKS, REGION_SIZE, Game, by_seed, percent, targets
from ralis_backend.core.files import write_json
from ralis_backend.core.policy import MisicalPolicy
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.any_policy import labelled_regions
from ralis_backend.offline.training.config import MisicalConfig
from ralis_backend.offline.training.misical import Heads, learn, prepared
from ralis_backend.offline.training.trainer import Progress, result_path

RESULTS = Path(__file__).resolve().parent / "results" / "mining-training"
SETS = ("camvid", "clothing", "dubai_aerial", "roads")
USUAL = MisicalConfig()
LEARNED = "as shipped"
LINEAR = "regression on the same inputs"
VARIANTS = {
    LEARNED: USUAL,
    "discount 0": replace(USUAL, dqn=replace(USUAL.dqn, discount=0.0)),
    "discount 0.9": replace(USUAL, dqn=replace(USUAL.dqn, discount=0.9)),
    "returns of 3 steps": replace(USUAL, dqn=replace(USUAL.dqn, num_steps=3)),
    "discount 0.9, 3 steps": replace(USUAL, dqn=replace(USUAL.dqn, discount=0.9, num_steps=3)),
    "target moves by 0.001": replace(USUAL, soft_update=0.001),
    "target moves by 0.1": replace(USUAL, soft_update=0.1),
    "continuous reward": replace(USUAL, reward="continuous"),
    "uniform replay": replace(USUAL, priority_alpha=0.0, priority_beta=(0.0, 0.0)),
    "three times as long": replace(USUAL, episodes=3 * USUAL.episodes),
    "shuffled rewards": replace(USUAL, does_shuffle_rewards=True),
    LINEAR: replace(USUAL, architecture="linear"),
}


def main() -> None:
    """Train, play and write, or print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="where the datasets lie")
    parser.add_argument("--unseen", default="roads", choices=SETS)
    parser.add_argument("--variants", default="", help="names, separated by semicolons; all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--policies", type=Path, default=Path(".cache/mining-training"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.data is None:
        print("\n".join(table(options.out)))
        return
    torch.set_num_threads(1)
    names = [it for it in options.variants.split(";") if it] or list(VARIANTS)
    sources = {
        name: PointFeatures(
            Dataset.open(options.data / name), USUAL.region_size, options.cache
        ).split("d_t")
        for name in SETS
        if name != options.unseen
    }
    heads, others = prepared(sources, USUAL, 0)
    costs = labelled_regions(sources)
    folder = options.policies / f"without-{options.unseen}"
    folder.mkdir(parents=True, exist_ok=True)
    trained, seconds = {}, {}
    for name in names:
        started = time.perf_counter()
        trained[name] = trained_as(name, heads, others, folder, costs)
        seconds[name] = round(time.perf_counter() - started)
        print(f"{name}: {seconds[name]} s", flush=True)
    content = played(Dataset.open(options.data / options.unseen), trained, options)
    write_json(options.out / f"{options.unseen}.json", content | {"seconds": seconds})


def trained_as(
    name: str, heads: Heads, others: Heads, folder: Path, costs: dict[str, int]
) -> MisicalPolicy:
    """The policy of that variant; one that lies there is taken."""
    out = folder / name.replace(" ", "-").replace(",", "")
    file = result_path(out, "safetensors")
    if file.is_file():
        return MisicalPolicy.load(file)

    def told(progress: Progress) -> None:
        if progress.done and progress.done % 100 == 0:
            print(f"{name}: {progress.done:.0f} of {progress.total}", flush=True)

    return learn(heads, others, VARIANTS[name], out, costs, on_progress=told)


def played(
    dataset: Dataset, trained: dict[str, MisicalPolicy], options: argparse.Namespace
) -> dict[str, Any]:
    """What each of them finds of the classes of a dataset that none has seen."""
    whole = PointFeatures(dataset, REGION_SIZE, options.cache).split("d_v")
    annotated = np.flatnonzero(whole.class_pixels[:, :-1].sum(axis=1))
    pool = whole.take(np.sort(np.random.default_rng(0).permutation(annotated)[:3000]))
    sought = targets(pool.class_pixels)
    games = [
        Game(pool, dataset.class_names, trained, seed).played(sought)
        for seed in range(options.seeds)
    ]
    return {
        "unseen": dataset.name,
        "regions": len(pool),
        "initial_regions": INITIAL_REGIONS,
        "picks": PICKS,
        "games": [
            {
                name: {each: found[each] for each in ("random", "presence", *trained)}
                for name, found in game.items()
            }
            for game in games
        ],
    }


def table(folder: Path) -> list[str]:
    """Markdown: what each gathers with 480 picks, on each dataset that it never saw."""
    contents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    rows = list(
        dict.fromkeys(
            name
            for content in contents.values()
            for game in content["games"]
            for found in game.values()
            for name in found
        )
    )
    lines = [f"| trained | {' | '.join(contents)} |", "| --- " * (len(contents) + 1) + "|"]
    for name in rows:
        cells = [
            percent(by_seed(content["games"], name, 1))
            if all(name in found for game in content["games"] for found in game.values())
            else ""
            for content in contents.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
