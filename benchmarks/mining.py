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
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import vector_to_parameters

from ralis_backend.core.acquisition import STRATEGIES, Aimed, Needs, PoolState, Scorer, Strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.files import write_json
from ralis_backend.core.intervals import mean_interval
from ralis_backend.core.metrics import ious
from ralis_backend.core.policy import MisicalPolicy, MisicalSpec
from ralis_backend.core.policy.misical_inputs import NEEDS
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.config import MisicalConfig
from ralis_backend.offline.training.misical import fit_linear
from ralis_backend.offline.training.searches import search_for
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig, Heads
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
OWN = "linear, own labels"
MINERS = ("presence", "presence-max", "presence-bald", "similarity", OWN)
TRAINED = ("misical-linear", "misical")
RETRAINED = ("random", "entropy", "presence", "similarity", "misical-linear", "misical")
"""Strategies whose picks a new head learns from."""
RETRAINED_PICKS, RETRAINED_UPDATES = 480, 600


class DeepBald(Scorer):
    """Where passes with dropout in several layers disagree most."""

    name = "deep-bald"
    needs = Needs.of("deep_bald")

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) nats."""
        return actions.deep_bald


GENERAL = {name: STRATEGIES[name] for name in ("random", "entropy", "bald")} | {
    DeepBald.name: DeepBald()
}
"""Strategies that look for no class."""


def main() -> None:
    """Play and write, or print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--policies", type=Path, default=POLICIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=3000, help="regions, drawn once")
    parser.add_argument("--retrain", type=int, default=0, help="for so many of the rarest classes")
    options = parser.parse_args()
    if options.dataset is None:
        print("\n".join(tables(options.out)))
        return
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset)
    features = PointFeatures(dataset, REGION_SIZE, options.cache)
    whole = features.split("d_v")
    annotated = np.flatnonzero(whole.class_pixels[:, :-1].sum(axis=1))
    drawn = np.random.default_rng(0).permutation(annotated)[: options.pool]
    pool = whole.take(np.sort(drawn))
    trained = policies(options.policies, dataset.name)
    sought = targets(pool.class_pixels)
    rarest = sorted(sought, key=lambda it: int(pool.class_pixels[:, it].sum()))[: options.retrain]
    test = features.split("test") if rarest else None
    games, retrained = [], []
    for seed in range(options.seeds):
        started = time.perf_counter()
        game = Game(pool, dataset.class_names, trained, seed)
        games.append(game.played(sought))
        if test is not None:
            retrained.append({dataset.class_names[it]: game.retrained(it, test) for it in rarest})
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
        "retrained": retrained,
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


class Game:
    """A head that learned from a few regions and looked at the others, and who picks from these.

    Args:
        pool: all regions.
        class_names: of the dataset.
        trained: policies by name.
        seed: of the first labels and of training.
        general: strategies that look for no class, by name.
        miners: names of those that do, besides the trained ones.
    """

    def __init__(
        self,
        pool: RegionPoints,
        class_names: Sequence[str],
        trained: Mapping[str, MisicalPolicy],
        seed: int,
        general: Mapping[str, Strategy] = GENERAL,
        miners: Sequence[str] = MINERS,
    ) -> None:
        self.pool, self.class_names, self.trained, self.seed = pool, class_names, trained, seed
        self.general, self.miners = general, miners
        order = np.random.default_rng([seed, 11]).permutation(len(pool))
        self.learned, self.offered = order[:INITIAL_REGIONS], order[INITIAL_REGIONS:]
        nothing, self.head = pool.take(np.arange(1)), HeadConfig()
        self.simulation = FastSimulation(pool, nothing, nothing, self.head)
        self.simulation.begin(self.learned, NUM_UPDATES, seed)
        looking = (*general.values(), *(STRATEGIES[name] for name in miners if name != OWN))
        needed = NEEDS.features.union(*(each.needs.features for each in looking))
        self.described = self.simulation.describe(self.offered, needed)

    @cached_property
    def known(self) -> RegionFeatures:
        """The first labels, each described by a head that did not learn from its image."""
        return out_of_fold(
            self.pool.take(self.learned),
            self.head,
            NEEDS.features,
            num_updates=NUM_UPDATES,
            seed=self.seed,
        )

    def played(self, sought: Sequence[int]) -> dict[str, Any]:
        """What each strategy found of each class; a class that no first label shows is left out.

        Per class and strategy: pixels gathered, of the most that as many picks could hold, and the
        share of the picks that show it, after each number of picks.
        """
        found: dict[str, Any] = {}
        for target in sought:
            pixels = self.pool.class_pixels[:, target]
            if not pixels[self.learned].any():
                continue
            found[self.class_names[target]] = {
                name: [
                    [
                        round(gathered(pixels, best[:picks], self.offered), 5),
                        round(float((pixels[best[:picks]] > 0).mean()), 5),
                    ]
                    for picks in PICKS
                ]
                for name, best in self.orders(target).items()
            }
        return found

    def orders(self, target: int) -> dict[str, np.ndarray]:
        """(R,) regions of each strategy, its best first."""
        known_pixels = self.pool.class_pixels[self.learned]
        is_known = bool(known_pixels[:, target].any())
        miners: dict[str, Strategy] = {
            each: STRATEGIES[each]
            for each in self.miners
            if each != OWN and (is_known or each != "similarity")  # it refuses what it never saw
        }
        miners |= self.trained
        if is_known and OWN in self.miners:
            miners[OWN] = own_linear(self.known, known_pixels, target)
        name = self.class_names[target]
        strategies = dict(self.general)
        strategies |= {each: Aimed(miner, target, name) for each, miner in miners.items()}
        best = ranked(
            self.simulation,
            strategies,
            self.learned,
            self.offered,
            self.described,
            PICKS[-1],
            self.seed,
        )
        return {each: self.offered[order] for each, order in best.items()}

    def retrained(self, target: int, test: RegionPoints) -> dict[str, float]:
        """IoU of the class on the test set, of heads that learned from the picks as well."""
        orders = self.orders(target)
        names = [each for each in RETRAINED if each in orders]
        sets = [self.learned, *(self._with(orders[each][:RETRAINED_PICKS]) for each in names)]
        num_features = self.pool.points.features.shape[2]
        fresh = Heads.fresh(
            num_features, len(self.class_names), self.head, [self.seed], torch.device("cpu")
        )
        heads = fresh.copies(len(sets)).trained(
            self.pool.points, sets, RETRAINED_UPDATES, self.seed
        )
        scores = [ious(each)[target] for each in heads.confusion_matrices(test.points)]
        return {
            name: round(float(score), 5)
            for name, score in zip(["before", *names], scores, strict=True)
        }

    def _with(self, picked: np.ndarray) -> np.ndarray:
        return np.concatenate([self.learned, picked])


def own_linear(known: RegionFeatures, class_pixels: np.ndarray, target: int) -> MisicalPolicy:
    """The linear ranker, fitted to the first labels, each described out of its fold."""
    config, rng = MisicalConfig(ridge=0.1), np.random.default_rng(0)
    search = search_for(target, known, class_pixels, class_pixels, config, rng)
    policy = MisicalPolicy.untrained(MisicalSpec("linear"), 0, OWN)
    fitted = torch.from_numpy(fit_linear([search], config.ridge)).float()
    vector_to_parameters(fitted, policy.network.parameters())
    return policy


def tables(folder: Path) -> list[str]:
    """Markdown: for each dataset what each strategy found, by picks."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        games, picks = content["games"], content["picks"]
        names = list(dict.fromkeys(name for game in games for it in game.values() for name in it))
        classes = sorted({name for game in games for name in game})
        lines += [
            f"**{content['dataset']}**: {len(classes)} classes, {len(games)} seeds, "
            f"{content['regions']} regions.",
            "",
            f"| strategy | {' | '.join(f'{each} picks' for each in picks)} | hits at {picks[1]} | "
            f"over presence at {picks[1]} | better than random |",
            "| --- " * (len(picks) + 4) + "|",
        ]
        for name in names:
            of_picks = [percent(by_seed(games, name, at)) for at in range(len(picks))]
            hits = f"{100 * by_seed(games, name, 1, is_hit=True).mean():.0f} %"
            lead = percent(by_seed(games, name, 1) - by_seed(games, "presence", 1), "+")
            won = sum(wins(games, each, name) for each in classes)
            cells = (name, *of_picks, hits, lead, f"{won} of {len(classes)}")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
        lines += _retrained_table(content["dataset"], content["retrained"])
    return lines


def by_seed(
    games: Sequence[dict[str, Any]], name: str, at: int, is_hit: bool = False
) -> np.ndarray:
    """(S,) means over the classes of each game, at one number of picks."""
    return np.array(
        [np.mean([it[name][at][int(is_hit)] for it in each.values()]) for each in games]
    )


def _retrained_table(dataset: str, games: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    """IoU of each class after a head learned from the picks, over seeds.

    Nobody looks for what resembles a class that the first labels do not show.
    """
    if not games:
        return []
    shown = {name for game in games for found in game.values() for name in found}
    names = [name for name in ("before", *RETRAINED) if name in shown]
    lines = [
        f"IoU of a class on the test set of {dataset}, in percent, after {RETRAINED_PICKS} picks, "
        f"{len(games)} seeds:",
        "",
        f"| class | {' | '.join(names)} |",
        "| --- " * (len(names) + 1) + "|",
    ]
    for of_class in games[0]:
        found = [[it[of_class][name] for it in games if name in it[of_class]] for name in names]
        scores = [
            percent(np.array(each)) + (f", {len(each)} seeds" if len(each) < len(games) else "")
            if each
            else ""
            for each in found
        ]
        lines.append(f"| {of_class} | {' | '.join(scores)} |")
    return [*lines, ""]


def wins(games: Sequence[dict[str, Any]], of_class: str, name: str) -> bool:
    """Whether it gathers more than random with 480 picks, the interval above 0."""
    of_seeds = [game[of_class] for game in games if of_class in game]
    leads = np.array([each[name][1][0] - each["random"][1][0] for each in of_seeds])
    return bool(mean_interval(leads)[0] > 0)


def percent(values: np.ndarray, sign: str = "") -> str:
    """Percent with the 95 % interval."""
    low, high = mean_interval(values)
    shown = [f"{100 * each:{sign}.1f}" for each in (values.mean(), low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


if __name__ == "__main__":
    main()
