"""What does the segmenter itself find of a class, and what does that teach it?

The backend's own segmenter and recipe, on images at half their size: it learns from 96 random
regions, looks once at all others, and for each of the rarest classes a strategy picks 240. A new
segmenter learns from both and is measured on test images. Strategies that look for no class pick
once for all of them. Games that the file holds already are not played again.

    OMP_NUM_THREADS=1 python -m benchmarks.mining_full --dataset ../shared/data/camvid
    python -m benchmarks.mining_full
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
    GENERAL,
    INITIAL_REGIONS,
    POLICIES,
    REGION_SIZE,
    percent,
    policies,
    targets,
)
from ralis_backend.core.acquisition import STRATEGIES, Aimed, Strategy
from ralis_backend.core.files import write_json
from ralis_backend.core.metrics import ious
from ralis_backend.offline.benchmark.arenas import ArenaConfig, open_arena
from ralis_backend.offline.datasets import Dataset
from ralis_backend.simulation.full import FullSimulation
from ralis_backend.simulation.full_arena import RECIPE, FullArena
from ralis_backend.simulation.mining import gathered, look

RESULTS = Path(__file__).resolve().parent / "results" / "mining-full"
NUM_PICKS = 240
COMPARED = ("random", "entropy")
MINERS = ("presence", "similarity")
BEFORE = "before"


def main() -> None:
    """Play and write, or print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--policies", type=Path, default=POLICIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=3, help="so many of the rarest")
    parser.add_argument("--test-images", type=int, default=58)
    options = parser.parse_args()
    if options.dataset is None:
        print("\n".join(tables(options.out)))
        return
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset)
    path = options.out / f"{dataset.name}.json"
    games = json.loads(path.read_text())["games"] if path.is_file() else []
    arena = open_arena(
        ArenaConfig(
            dataset,
            REGION_SIZE,
            fidelity="full",
            test_images=options.test_images,
            image_scale=0.5,
        )
    )
    if not isinstance(arena, FullArena):
        raise TypeError(f"{arena} is not played by the segmenter itself")
    pixels = arena.class_pixels
    sought = sorted(targets(pixels), key=lambda it: pixels[:, it].sum())[: options.classes]
    for seed in range(len(games), options.seeds):
        started = time.perf_counter()
        trained = {
            name: it
            for name, it in policies(options.policies, dataset.name).items()
            if "," not in name
        }
        game = Game(arena, dataset.class_names, seed)
        found = game.played(sought, trained)
        seconds = round(time.perf_counter() - started)
        games.append({"found": found, "seconds": seconds})
        content = {
            "dataset": dataset.name,
            "images": len(set(game.simulation.places.image)),
            "regions": len(pixels),
            "initial_regions": INITIAL_REGIONS,
            "picks": NUM_PICKS,
            "updates": [RECIPE.num_steps(INITIAL_REGIONS), game.num_updates],
            "test_images": options.test_images,
            "games": games,
        }
        write_json(path, content)
        print(f"seed {seed}: {seconds} s", flush=True)


class Game:
    """A segmenter that learned from a few regions and looks at the others.

    Args:
        arena: what is picked from and measured on.
        class_names: of the dataset.
        seed: of the first labels and of training.
    """

    num_updates = RECIPE.num_steps(INITIAL_REGIONS + NUM_PICKS)

    def __init__(self, arena: FullArena, class_names: Sequence[str], seed: int) -> None:
        self.arena, self.class_names, self.seed = arena, class_names, seed
        annotated = np.flatnonzero(arena.is_annotated)
        order = np.random.default_rng([seed, 11]).permutation(annotated)
        self.learned, self.offered = order[:INITIAL_REGIONS], np.sort(order[INITIAL_REGIONS:])
        self.simulation: FullSimulation = arena.simulation()
        self.simulation.begin(self.learned, RECIPE.num_steps(INITIAL_REGIONS), seed)

    def played(self, sought: Sequence[int], trained: Mapping[str, Strategy]) -> dict[str, Any]:
        """Of each class and strategy: share gathered, and the IoU of the class afterwards."""
        pixels = self.arena.class_pixels
        strategies: dict[tuple[str, int | None], Strategy] = {
            (name, None): GENERAL[name] for name in COMPARED
        }
        for target in sought:
            miners = {name: STRATEGIES[name] for name in MINERS} | dict(trained)
            if not pixels[self.learned, target].any():
                del miners["similarity"]  # it refuses to look for what it never saw
            for name, miner in miners.items():
                strategies[name, target] = Aimed(miner, target, self.class_names[target])
        orders = look(
            self.simulation,
            {f"{name}:{target}": it for (name, target), it in strategies.items()},
            self.learned,
            self.offered,
            NUM_PICKS,
            self.seed,
        )
        found: dict[str, Any] = {self.class_names[target]: {} for target in sought}
        before = self._ious(np.zeros(0, np.int64))
        for target in sought:
            found[self.class_names[target]][BEFORE] = [0.0, round(float(before[target]), 5)]
        for name, of_target in strategies:
            picked = self.offered[orders[f"{name}:{of_target}"][:NUM_PICKS]]
            scores = self._ious(picked)
            for target in sought if of_target is None else [of_target]:
                share = gathered(pixels[:, target], picked, self.offered)
                found[self.class_names[target]][name] = [
                    round(share, 5),
                    round(float(scores[target]), 5),
                ]
        return found

    def _ious(self, picked: np.ndarray) -> np.ndarray:
        """(C,) on the test images, after as many updates whatever was picked."""
        labelled = np.concatenate([self.learned, picked])
        return ious(self.arena.measure(labelled, self.num_updates, self.seed))


def tables(folder: Path) -> list[str]:
    """Markdown: for each dataset and class what was gathered, and the IoU that it gave."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        games = [game["found"] for game in content["games"]]
        names = list(dict.fromkeys(name for game in games for it in game.values() for name in it))
        lines += [
            f"**{content['dataset']}**: {len(games)} seeds, {content['regions']} regions of "
            f"{content['images']} images, {content['test_images']} test images.",
            "",
            f"| class | | {' | '.join(names)} |",
            "| --- " * (len(names) + 2) + "|",
        ]
        for of_class in games[0]:
            for at, what in enumerate(("gathered", "IoU")):
                cells = [_cell(games, of_class, name, at) for name in names]
                lines.append(f"| {of_class} | {what} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _cell(games: Sequence[dict[str, Any]], of_class: str, name: str, at: int) -> str:
    found = [game[of_class][name][at] for game in games if name in game[of_class]]
    if not found or (name == BEFORE and at == 0):
        return ""
    few = f", {len(found)} seeds" if len(found) < len(games) else ""
    return percent(np.array(found)) + few


if __name__ == "__main__":
    main()
