"""How much of one class does each strategy find, in one look and without retraining?

In each game a head learns from 96 random regions of a dataset's pool and looks once at the others;
for every class that some but not most regions show, strategies rank what it saw. Policies that
never saw the dataset lie in the folder of policies as `NAME-without-DATASET`. Results go to a JSON
file for each dataset; without a dataset, those that there are are printed as tables.

    python benchmarks/mining.py --dataset ../shared/data/camvid --policies .cache/mining
    python benchmarks/mining.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import vector_to_parameters

from ralis_backend.core.acquisition import STRATEGIES, Aimed, Needs, PoolState, Scorer, Strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.files import write_json
from ralis_backend.core.intervals import mean_interval
from ralis_backend.core.policy import MisicalPolicy, MisicalSpec
from ralis_backend.core.policy.misical_inputs import NEEDS
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.config import MisicalConfig
from ralis_backend.offline.training.misical import fit_linear
from ralis_backend.offline.training.searches import search_for
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig
from ralis_backend.simulation.mining import gathered, out_of_fold, ranked
from ralis_backend.simulation.points import RegionPoints

RESULTS = Path(__file__).resolve().parent / "results" / "mining"
POLICIES = Path(__file__).resolve().parent.parent / "policies"
REGION_SIZE = (90, 80)
PICKS = (240, 480, 960)
INITIAL_REGIONS = 96
NUM_UPDATES = 300
LEAST_SHOWING, MOST_SHOWING = 0.005, 0.6
"""Shares of the pool's regions between which a class is looked for."""
GENERAL = ("random", "entropy", "bald")
MINERS = ("presence", "presence-max", "presence-bald", "similarity")
TRAINED = ("misical-linear", "misical")


class DeepBald(Scorer):
    """Where passes with dropout in several layers disagree most."""

    name = "deep-bald"
    needs = Needs.of("deep_bald")

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) nats."""
        return actions.deep_bald


def main() -> None:
    """Play and write, or print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--policies", type=Path, default=POLICIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=4000, help="regions, drawn once")
    options = parser.parse_args()
    if options.dataset is None:
        print("\n".join(tables(options.out)))
        return
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset)
    whole = PointFeatures(dataset, REGION_SIZE, options.cache).split("d_v")
    annotated = np.flatnonzero(whole.class_pixels[:, :-1].sum(axis=1))
    drawn = np.random.default_rng(0).permutation(annotated)[: options.pool]
    pool = whole.take(np.sort(drawn))
    trained = policies(options.policies, dataset.name)
    sought = targets(pool.class_pixels)
    games = []
    for seed in range(options.seeds):
        started = time.perf_counter()
        games.append(played(pool, sought, dataset.class_names, trained, seed))
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    content = {
        "dataset": dataset.name,
        "regions": len(pool),
        "initial_regions": INITIAL_REGIONS,
        "picks": PICKS,
        "classes": {
            dataset.class_names[target]: round(float((pool.class_pixels[:, target] > 0).mean()), 4)
            for target in sought
        },
        "games": games,
    }
    write_json(options.out / f"{dataset.name}.json", content)


def policies(folder: Path, dataset: str) -> dict[str, MisicalPolicy]:
    """Those that are there: by their names, and `NAME, unseen` that never saw the dataset."""
    files = {name: name for name in TRAINED}
    files |= {f"{name}, unseen": f"{name}-without-{dataset}" for name in TRAINED}
    return {
        name: MisicalPolicy.load(folder / f"{file}.safetensors")
        for name, file in files.items()
        if (folder / f"{file}.safetensors").is_file()
    }


def targets(class_pixels: np.ndarray) -> list[int]:
    """Classes that some of the regions show, but not most of them."""
    shares = (class_pixels[:, :-1] > 0).mean(axis=0)
    return np.flatnonzero((shares >= LEAST_SHOWING) & (shares <= MOST_SHOWING)).tolist()


def played(
    pool: RegionPoints,
    sought: Sequence[int],
    class_names: Sequence[str],
    trained: dict[str, MisicalPolicy],
    seed: int,
) -> dict[str, Any]:
    """What each strategy found of each class; a class that no first label shows is left out.

    Per class and strategy: pixels gathered, of the most that as many picks could hold, and the
    share of the picks that show it, after each number of picks.
    """
    order = np.random.default_rng([seed, 11]).permutation(len(pool))
    learned, offered = order[:INITIAL_REGIONS], order[INITIAL_REGIONS:]
    nothing, head = pool.take(np.arange(1)), HeadConfig()
    simulation = FastSimulation(pool, nothing, nothing, head)
    simulation.begin(learned, NUM_UPDATES, seed)
    needed = NEEDS.features.union(
        *(STRATEGIES[name].needs.features for name in (*GENERAL, *MINERS)), {"deep_bald"}
    )
    described = simulation.describe(offered, needed)
    known = out_of_fold(
        pool.take(learned), head, NEEDS.features, num_updates=NUM_UPDATES, seed=seed
    )
    found: dict[str, Any] = {}
    for target in sought:
        if not pool.class_pixels[learned, target].any():
            continue
        name = class_names[target]
        strategies: dict[str, Strategy] = {each: STRATEGIES[each] for each in GENERAL}
        strategies["deep-bald"] = DeepBald()
        miners: dict[str, Strategy] = {each: STRATEGIES[each] for each in MINERS}
        miners |= trained
        miners["linear, own labels"] = own_linear(known, pool.class_pixels[learned], target)
        strategies |= {each: Aimed(miner, target, name) for each, miner in miners.items()}
        orders = ranked(simulation, strategies, learned, offered, described, PICKS[-1], seed)
        pixels = pool.class_pixels[:, target]
        found[name] = {
            each: [
                [
                    round(gathered(pixels, offered[best[:picks]], offered), 5),
                    round(float((pixels[offered[best[:picks]]] > 0).mean()), 5),
                ]
                for picks in PICKS
            ]
            for each, best in orders.items()
        }
    return found


def own_linear(known: RegionFeatures, class_pixels: np.ndarray, target: int) -> MisicalPolicy:
    """The linear ranker, fitted to the first labels, each described out of its fold."""
    config, rng = MisicalConfig(ridge=0.1), np.random.default_rng(0)
    search = search_for(target, known, class_pixels, class_pixels, config, rng)
    policy = MisicalPolicy.untrained(MisicalSpec("linear"), 0, "linear, own labels")
    fitted = torch.from_numpy(fit_linear([search], config.ridge)).float()
    vector_to_parameters(fitted, policy.network.parameters())
    return policy


def tables(folder: Path) -> list[str]:
    """Markdown: for each dataset what each strategy found, by picks."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        games = content["games"]
        names = list(dict.fromkeys(name for game in games for it in game.values() for name in it))
        classes = sorted({name for game in games for name in game})
        picks = content["picks"]
        lines += [
            f"**{content['dataset']}**: {len(classes)} classes, {len(games)} seeds, "
            f"{content['regions']} regions.",
            "",
            f"| strategy | {' | '.join(f'{each} picks' for each in picks)} | hits at {picks[1]} | "
            f"over random at {picks[1]} | over presence | better than random |",
            "|---|" + "---|" * (len(picks) + 4),
        ]
        for name in names:
            of_picks = [
                _shown(_by_seed(games, name, lambda it, at=at: it[at][0])) for at in range(3)
            ]
            hits = 100 * _by_seed(games, name, lambda it: it[1][1]).mean()
            leads = [_shown(_lead(games, name, other), "+") for other in ("random", "presence")]
            wins = sum(_wins(games, each, name) for each in classes)
            cells = (name, *of_picks, f"{hits:.0f} %", *leads, f"{wins} of {len(classes)}")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def _by_seed(games: Sequence[dict[str, Any]], name: str, value: Callable[..., float]) -> np.ndarray:
    """(S,) means over the classes of each game."""
    return np.array([np.mean([value(each[name]) for each in game.values()]) for game in games])


def _lead(games: Sequence[dict[str, Any]], name: str, other: str) -> np.ndarray:
    return _by_seed(games, name, lambda it: it[1][0]) - _by_seed(games, other, lambda it: it[1][0])


def _wins(games: Sequence[dict[str, Any]], of_class: str, name: str) -> bool:
    """Whether it gathers more than random with 480 picks, the interval above 0."""
    of_seeds = [game[of_class] for game in games if of_class in game]
    leads = np.array([each[name][1][0] - each["random"][1][0] for each in of_seeds])
    return bool(mean_interval(leads)[0] > 0)


def _shown(values: np.ndarray, sign: str = "") -> str:
    """Percent with the 95 % interval."""
    low, high = mean_interval(values)
    shown = [f"{100 * each:{sign}.1f}" for each in (values.mean(), low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


if __name__ == "__main__":
    main()
