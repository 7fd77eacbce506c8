"""What does the segmenter itself find of a class, and what does that teach it?

The backend's own segmenter and recipe, on images at half their size: it learns from 96 random
regions, looks once at all others, and for each of the rarest classes a strategy picks 240. A new
segmenter learns from both and is measured on test images. Strategies that look for no class pick
once for all of them. A stopped run goes on after the last measurement.

    python -m benchmarks.mining_full --dataset ../shared/data/camvid --device cuda --jobs 8
    python -m benchmarks.mining_full  # a table of what is there
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mining import INITIAL_REGIONS, POLICIES, REGION_SIZE, percent, policies, targets
from ralis_backend.core.acquisition import STRATEGIES, Aimed, Strategy
from ralis_backend.core.files import write_json
from ralis_backend.core.metrics import ious
from ralis_backend.offline.benchmark.arenas import ArenaConfig, open_arena
from ralis_backend.offline.datasets import Dataset
from ralis_backend.simulation.full_arena import RECIPE, FullArena
from ralis_backend.simulation.mining import gathered, look

RESULTS = Path(__file__).resolve().parent / "results" / "mining-full"
NUM_PICKS = 240
UPDATES = (RECIPE.num_steps(INITIAL_REGIONS), RECIPE.num_steps(INITIAL_REGIONS + NUM_PICKS))
"""Before and after the picks; as many whatever was picked."""
BEFORE = "before"
GENERAL = ("random", "entropy", "bald")
MINERS = ("presence", "similarity")


@dataclass(frozen=True)
class Search:
    """Who picks under a seed, and for which class; None: who looks for none."""

    seed: int
    strategy: str
    target: str | None = None


@dataclass(frozen=True)
class Place:
    """What is played on."""

    dataset: Path
    policies: Path
    test_images: int
    device: str


def main() -> None:
    """Play and write, or print what was written."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--policies", type=Path, default=POLICIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=3, help="so many of the rarest")
    parser.add_argument("--test-images", type=int, default=58)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after so long")
    options = parser.parse_args()
    if options.dataset is None:
        print("\n".join(table(options.out)))
        return
    place = Place(options.dataset, options.policies, options.test_images, options.device)
    ends = time.monotonic() + options.seconds
    path = options.out / f"{options.dataset.name}.json"
    found = json.loads(path.read_text()) if path.is_file() else {**_facts(place), "runs": []}
    if _facts(place) != {name: value for name, value in found.items() if name != "runs"}:
        raise SystemExit(f"{path} is of another experiment; choose another --out")
    done = {Search(*(each[name] for name in Search.__annotations__)) for each in found["runs"]}
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        looks = [pool.submit(picks, place, options.classes, seed) for seed in range(options.seeds)]
        measured = [
            pool.submit(measure, place, search, picked, options.classes, ends)
            for each in looks
            for search, picked in each.result().items()
            if search not in done
        ]
        for each in as_completed(measured):
            result = each.result()
            if result is not None:
                found["runs"].append(result)
                write_json(path, found)
                print(*(f"{name} {value}" for name, value in result.items()), flush=True)


def picks(place: Place, num_classes: int, seed: int) -> dict[Search, np.ndarray]:
    """Regions that each strategy picks for each class, from one look of the first segmenter."""
    arena, dataset = _arena(place), Dataset.open(place.dataset)
    learned, offered = _split(arena, seed)
    simulation = arena.simulation()
    simulation.begin(learned, UPDATES[0], seed)
    trained = {
        name: each
        for name, each in policies(place.policies, dataset.name).items()
        if "," not in name
    }
    strategies: dict[Search, Strategy] = {Search(seed, name): STRATEGIES[name] for name in GENERAL}
    for target in sought(arena, num_classes):
        miners = {name: STRATEGIES[name] for name in MINERS} | dict(trained)
        if not arena.class_pixels[learned, target].any():
            del miners["similarity"]  # it refuses to look for what it never saw
        class_name = dataset.class_names[target]
        for name, miner in miners.items():
            strategies[Search(seed, name, class_name)] = Aimed(miner, target, class_name)
    named = {str(index): each for index, each in enumerate(strategies.values())}
    orders = look(simulation, named, learned, offered, NUM_PICKS, seed)
    nothing = {Search(seed, BEFORE): np.zeros(0, np.int64)}
    return nothing | {
        search: offered[orders[str(index)][:NUM_PICKS]] for index, search in enumerate(strategies)
    }


def measure(
    place: Place, search: Search, picked: np.ndarray, num_classes: int, ends: float
) -> dict[str, Any] | None:
    """Share gathered of each class that is sought, and its IoU; None where the time is over."""
    if time.monotonic() > ends:
        return None
    arena, dataset = _arena(place), Dataset.open(place.dataset)
    learned, offered = _split(arena, search.seed)
    start = time.perf_counter()
    scores = ious(arena.measure(np.concatenate([learned, picked]), UPDATES[1], search.seed))
    classes = {
        dataset.class_names[target]: target
        for target in sought(arena, num_classes)
        if search.target in (None, dataset.class_names[target])
    }
    return {
        **asdict(search),
        "gathered": {
            name: round(gathered(arena.class_pixels[:, target], picked, offered), 5)
            for name, target in classes.items()
        },
        "iou": {name: round(float(scores[target]), 5) for name, target in classes.items()},
        "seconds": round(time.perf_counter() - start, 1),
    }


def sought(arena: FullArena, num_classes: int) -> list[int]:
    """So many classes, the rarest first."""
    pixels = arena.class_pixels
    return sorted(targets(pixels), key=lambda each: int(pixels[:, each].sum()))[:num_classes]


def table(folder: Path) -> list[str]:
    """Markdown: for each dataset what each strategy gathered, and the IoU of each class, in %."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        runs = content["runs"]
        classes = list(dict.fromkeys(name for each in runs for name in each["iou"]))
        shown = dict.fromkeys(each["strategy"] for each in runs)
        names = sorted(shown, key=[BEFORE, *GENERAL, *MINERS, *shown].index)
        seeds = len({each["seed"] for each in runs})
        lines += [
            f"**{content['dataset']}**: {seeds} seeds, {content['regions']} regions, "
            f"{content['test_images']} test images.",
            "",
            f"| strategy | gathered | {' | '.join(f'IoU: {each}' for each in classes)} | "
            "IoU over random |",
            "| --- " * (len(classes) + 3) + "|",
        ]
        for name in names:
            found = _by_seed(runs, name, "gathered", classes).mean(axis=1)
            scores = _by_seed(runs, name, "iou", classes)
            leads = (scores - _by_seed(runs, "random", "iou", classes)).mean(axis=1)
            of_classes = [f"{100 * each:.1f}" for each in scores.mean(axis=0)]
            cells = [name, "" if name == BEFORE else percent(found), *of_classes]
            cells.append("" if name == "random" else percent(leads, "+"))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def _by_seed(
    runs: Sequence[Mapping[str, Any]], strategy: str, what: str, classes: Sequence[str]
) -> np.ndarray:
    """(S, K) of a strategy, in [0, 1]; NaN where it did not look for a class under a seed."""
    seeds = sorted({each["seed"] for each in runs})
    values = np.full((len(seeds), len(classes)), np.nan)
    for each in runs:
        if each["strategy"] == strategy:
            for name, value in each[what].items():
                values[seeds.index(each["seed"]), classes.index(name)] = value
    return values


def _split(arena: FullArena, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions that are labelled at first, and the others."""
    annotated = np.flatnonzero(arena.is_annotated)
    order = np.random.default_rng([seed, 11]).permutation(annotated)
    return order[:INITIAL_REGIONS], np.sort(order[INITIAL_REGIONS:])


def _facts(place: Place) -> dict[str, Any]:
    arena = _arena(place)
    return {
        "dataset": place.dataset.name,
        "regions": len(arena.class_pixels),
        "initial_regions": INITIAL_REGIONS,
        "picks": NUM_PICKS,
        "updates": list(UPDATES),
        "test_images": place.test_images,
        "device": place.device,
    }


@lru_cache(1)
def _arena(place: Place) -> FullArena:
    import torch

    torch.set_num_threads(1)
    config = ArenaConfig(
        Dataset.open(place.dataset),
        REGION_SIZE,
        fidelity="full",
        test_images=place.test_images,
        image_scale=0.5,
        device=place.device,
    )
    arena = open_arena(config)
    if not isinstance(arena, FullArena):
        raise TypeError(f"{arena} is not played by the segmenter itself")
    return arena


if __name__ == "__main__":
    main()
