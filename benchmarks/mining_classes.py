"""Does a policy that looks for classes find one that it never saw, on a dataset that it knows?

For each class that is looked for on a dataset, a policy learns with the class left out of that
dataset's masks, from the same heads of the other datasets, and looks for it in the same games as
the shipped policy that saw it. Q-learning takes minutes for each, the regression seconds. What a
dataset's file holds already is not played again.

    OMP_NUM_THREADS=1 python -m benchmarks.mining_classes --data ../shared/data --dataset camvid
    python -m benchmarks.mining_classes
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mining import (
    GENERAL,
    INITIAL_REGIONS,
    PICKS,
    POLICIES,
    REGION_SIZE,
    TRAINED,
    Game,
    by_seed,
    percent,
    targets,
)
from ralis_backend.core.files import write_json
from ralis_backend.core.policy import MisicalPolicy
from ralis_backend.core.regions import VOID
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.any_policy import labelled_regions
from ralis_backend.offline.training.config import PRESETS
from ralis_backend.offline.training.misical import Heads, learn, prepared
from ralis_backend.offline.training.scenarios import relabelled
from ralis_backend.offline.training.trainer import result_path
from ralis_backend.simulation.points import RegionPoints

RESULTS = Path(__file__).resolve().parent / "results" / "mining-classes"
SETS = ("camvid", "clothing", "dubai_aerial", "roads")
POOL = 3000
COMPARED = ("random", "presence")


def main() -> None:
    """Train, play and write, or print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="where the datasets lie")
    parser.add_argument("--dataset", choices=SETS)
    parser.add_argument("--kinds", default="misical-linear", help=f"of {','.join(TRAINED)}")
    parser.add_argument("--rarest", type=int, help="only so many classes, the rarest")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--trained", type=Path, default=Path(".cache/mining-classes"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.data is None:
        print("\n".join(table(options.out)))
        return
    torch.set_num_threads(1)
    path = options.out / f"{options.dataset}.json"
    content = json.loads(path.read_text()) if path.is_file() else {}
    games: list[dict[str, Any]] = content.get("games", [{} for _ in range(options.seeds)])
    sources = {
        name: PointFeatures(Dataset.open(options.data / name), REGION_SIZE, options.cache)
        for name in SETS
    }
    dataset = Dataset.open(options.data / options.dataset)
    whole = sources[options.dataset].split("d_v")
    annotated = np.flatnonzero(whole.class_pixels[:, :-1].sum(axis=1))
    pool = whole.take(np.sort(np.random.default_rng(0).permutation(annotated)[:POOL]))
    sought = sorted(targets(pool.class_pixels), key=lambda it: int(pool.class_pixels[:, it].sum()))
    general = {name: GENERAL[name] for name in ("random",)}
    ready = [
        Game(pool, dataset.class_names, {}, seed, general, ["presence"])
        for seed in range(len(games))
    ]
    for kind in options.kinds.split(","):
        learning = Learning({name: it.split("d_t") for name, it in sources.items()}, kind)
        for target in sought[: options.rarest]:
            started = time.perf_counter()
            of_class, unseen = dataset.class_names[target], f"{kind}, class unseen"
            if any(unseen in game.get(of_class, {}) for game in games):
                continue
            miners = {
                kind: MisicalPolicy.load(POLICIES / f"{kind}.safetensors"),
                unseen: learning.without(options.dataset, target, options.trained),
            }
            for game, played in zip(games, ready, strict=True):
                played.trained = miners
                for found in played.played([target]).values():
                    kept = {name: found[name] for name in (*COMPARED, *miners)}
                    game.setdefault(of_class, {}).update(kept)
            write_json(
                path,
                {
                    "dataset": options.dataset,
                    "regions": len(pool),
                    "initial_regions": INITIAL_REGIONS,
                    "picks": PICKS,
                    "games": games,
                },
            )
            print(f"{of_class}, {kind}: {time.perf_counter() - started:.0f} s", flush=True)


class Learning:
    """How a kind of policy learns on datasets, one class of one of them left out.

    Args:
        sources: labelled regions of each dataset.
        kind: of policy, a configuration's name.
    """

    def __init__(self, sources: Mapping[str, RegionPoints], kind: str) -> None:
        self.sources, self.kind, self.config = sources, kind, PRESETS[kind]
        self._heads: dict[str, tuple[Heads, Heads]] = {}

    def without(self, dataset: str, target: int, folder: Path) -> MisicalPolicy:
        """The policy that never saw the class there; one that lies in the folder is taken."""
        out = folder / f"{self.kind}-{dataset}-{target}"
        file = result_path(out, "safetensors")
        if file.is_file():
            return MisicalPolicy.load(file)
        folder.mkdir(parents=True, exist_ok=True)
        mapping = np.arange(self.sources[dataset].class_pixels.shape[1] - 1)
        mapping[target:] -= 1
        mapping[target] = VOID
        sources = {**self.sources, dataset: relabelled(self.sources[dataset], mapping)}
        heads: tuple[Heads, Heads] = ([], [])
        for name in sources:
            drawn = self._drawn(name) if name != dataset else self._prepared(name, sources[name])
            for all_heads, of_source in zip(heads, drawn, strict=True):
                all_heads.extend(of_source)
        return learn(*heads, self.config, out, labelled_regions(sources))

    def _drawn(self, name: str) -> tuple[Heads, Heads]:
        if name not in self._heads:
            self._heads[name] = self._prepared(name, self.sources[name])
        return self._heads[name]

    def _prepared(self, name: str, source: RegionPoints) -> tuple[Heads, Heads]:
        return prepared({name: source}, self.config, 0)


def table(folder: Path) -> list[str]:
    """Markdown: of each dataset what is gathered with and without having seen the class."""
    lines = [
        "| dataset, classes, policy | random | presence | saw it | never saw it | difference |",
        "| --- " * 6 + "|",
    ]
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        for kind in TRAINED:
            games = [
                {of_class: found for of_class, found in game.items() if kind in found}
                for game in content["games"]
            ]
            if not all(games):
                continue
            names = (*COMPARED, kind, f"{kind}, class unseen")
            scores = [by_seed(games, name, 1) for name in names]
            cells = [*map(percent, scores), percent(scores[-1] - scores[-2], "+")]
            num_classes = len({of_class for game in games for of_class in game})
            title = f"{content['dataset']}, {num_classes}, {kind}"
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
