"""What does a segmenter gain from pixels that nobody labelled?

Regions of the pool are drawn at random, the same for every learner of a seed; a segmenter learns
from them for so many updates, and is measured once on test images. Learners differ in what they
learn from besides labels, and in its settings. A stopped run goes on after the last measurement.

    python benchmarks/learners.py --dataset ../shared/data/camvid --out learners-camvid.json
    python benchmarks/learners.py --out learners-camvid.json  # a table of what is there

`benchmarks/results/labels/learners-camvid.json` is of `--regions 144 --seeds 1`, and
`learners-camvid-cuda.json` there of two calls, the first of which was ended two runs early:

    --device cuda --regions 144,288,576
    --device cuda --regions 144 --updates 2400 --learners paint
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.core.files import write_json
from ralis_backend.core.learning.config import FinetuneConfig, UnlabelledConfig
from ralis_backend.core.learning.registry import PAINT
from ralis_backend.core.metrics import ious, mean_iou
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.benchmark.arenas import ArenaConfig
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.scaled import scaled
from ralis_backend.settings import load_settings
from ralis_backend.simulation.full_arena import FullArena

LEARNERS: dict[str, UnlabelledConfig | None] = {
    PAINT: None,
    "unlabelled": UnlabelledConfig(),
    "own": UnlabelledConfig(own_crops=4, pool_crops=0),
    "pool": UnlabelledConfig(own_crops=0, pool_crops=4),
    "more": UnlabelledConfig(own_crops=4, pool_crops=4),
    "plain-views": UnlabelledConfig(colour=0.0, grey=0.0, blur=0.0, cutmix=0.0),
    "no-cutmix": UnlabelledConfig(cutmix=0.0),
    "threshold-0.6": UnlabelledConfig(threshold=0.6),
    "threshold-0.95": UnlabelledConfig(threshold=0.95),
    "feature-dropout": UnlabelledConfig(feature_dropout=0.5),
    "slow-teacher": UnlabelledConfig(decay=0.996),
    "twice-the-weight": UnlabelledConfig(weight=2.0),
}
"""What learns from unlabelled pixels, and how; None: from paint alone."""


@dataclass(frozen=True)
class Run:
    """One training and its measurement."""

    learner: str
    regions: int
    updates: int
    seed: int


def main() -> None:
    """Measure and write."""
    options = _options()
    if options.dataset is None:
        print("\n".join(table(json.loads(options.out.read_text())["runs"])))
        return
    load_settings()
    found = json.loads(options.out.read_text()) if options.out.is_file() else _facts(options)
    if _facts(options) != {key: value for key, value in found.items() if key != "runs"}:
        raise SystemExit(f"{options.out} is of another experiment; choose another --out")
    done = found.setdefault("runs", [])
    known = {Run(*(each[name] for name in Run.__annotations__)) for each in done}
    missing = [run for run in _runs(options) if run not in known]
    context = multiprocessing.get_context("spawn")
    ends = time.monotonic() + options.seconds
    with ProcessPoolExecutor(options.jobs, context) as pool:
        waiting = {pool.submit(_measure, options, run, ends) for run in missing}
        for each in as_completed(waiting):
            result = each.result()
            if result is not None:
                done.append(result)
                write_json(options.out, found)
                print(
                    *(f"{key} {value}" for key, value in result.items() if key != "iou"), flush=True
                )


def table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown: test mIoU in %, and of each learner its lead over paint under each seed of both."""
    scores = {Run(*(each[name] for name in Run.__annotations__)): each["miou"] for each in runs}
    learners = [name for name in LEARNERS if any(run.learner == name for run in scores)]
    others = [name for name in learners if name != PAINT]
    lines = [
        "| regions | updates | "
        + " | ".join([*learners, *(f"{name}: lead over paint by seed" for name in others)])
        + " |",
        "| --- " * (2 + len(learners) + len(others)) + "|",
    ]
    for regions, updates in sorted({(run.regions, run.updates) for run in scores}):
        of_learner = {
            name: {
                run.seed: 100 * score
                for run, score in scores.items()
                if run == Run(name, regions, updates, run.seed)
            }
            for name in learners
        }
        means = [_mean(list(it.values())) for it in of_learner.values()]
        painted = of_learner.get(PAINT, {})
        leads = [
            ", ".join(
                f"{score - painted[seed]:+.1f}"
                for seed, score in sorted(of_learner[name].items())
                if seed in painted
            )
            for name in others
        ]
        lines.append(f"| {regions} | {updates} | {' | '.join(means + leads)} |")
    return lines


def _mean(scores: Sequence[float]) -> str:
    return f"{np.mean(scores):.1f} ({len(scores)} seeds)" if scores else ""


def _runs(options: argparse.Namespace) -> Iterator[Run]:
    """The most telling first: a whole comparison of one seed before the next."""
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for updates in options.updates:
            for regions in options.regions:
                for learner in options.learners:
                    yield Run(learner, regions, updates, seed)


def _measure(options: argparse.Namespace, run: Run, ends: float) -> dict[str, Any] | None:
    """None where the time is over before it begins."""
    if time.monotonic() > ends:
        return None
    import torch

    torch.set_num_threads(1)
    settings = LEARNERS[run.learner]
    arena = _arena(
        options.dataset, options.image_scale, options.test_images, options.batch_size,
        options.device, options.crop, settings,
    )  # fmt: skip
    rng = np.random.default_rng(run.seed)
    order = rng.permutation(np.flatnonzero(arena.is_annotated))
    start = time.perf_counter()
    matrix = arena.measure(order[: run.regions], run.updates, run.seed)
    return {
        **asdict(run),
        "miou": round(float(mean_iou(matrix)), 5),
        "iou": [None if np.isnan(it) else round(float(it), 4) for it in ious(matrix)],
        "seconds": round(time.perf_counter() - start, 1),
    }


@lru_cache(2)
def _arena(
    folder: Path,
    scale: float,
    test_images: int | None,
    batch_size: int,
    device: str,
    crop: int,
    settings: UnlabelledConfig | None,
) -> FullArena:
    dataset = Dataset.open(folder)
    config = ArenaConfig(dataset, (90, 80), "full", test_images=test_images)
    return FullArena(
        dataset.name,
        scaled(dataset.split("d_v"), scale),
        scaled(dataset.split("d_s"), scale),
        scaled(config.test_samples(), scale),
        SegmenterSpec(len(dataset.classes), "FPN", "mobilenet_v2", "imagenet"),
        (round(90 * scale), round(80 * scale)),
        replace(
            FinetuneConfig(),
            batch_size=batch_size,
            crop_size=(crop, crop),
            unlabelled=settings or UnlabelledConfig(),
        ),
        besides=() if settings is None else ("unlabelled",),
        device=device,
    )


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    names = ("test_images", "image_scale", "batch_size", "crop", "device")
    return {"dataset": options.dataset.name, **{name: getattr(options, name) for name in names}}


def _options() -> argparse.Namespace:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--learners", type=lambda it: it.split(","), default=["paint", "unlabelled"]
    )
    parser.add_argument("--regions", type=_numbers, default=[48, 144, 288, 576])
    parser.add_argument("--updates", type=_numbers, default=[1200])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=3000)
    parser.add_argument("--test-images", type=int, default=58)
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--crop", type=int, default=192, help="side of a crop in pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after so long")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    main()
