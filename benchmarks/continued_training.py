"""What training that goes on after a round gains: test mIoU over time after the last label.

Regions of the pool's grid are drawn at random and labelled; every fifth image that holds some is
held out, as in a project. First the backend's round, as many updates as it makes of so many
regions, then continued training as the worker does it. At each checkpoint the moving average,
which the worker would publish, is measured on test images and on what is held out. A stopped run
goes on after the last finished number of regions and seed; what it had measured of the unfinished
one stands in the file.

    nice -n 19 python benchmarks/continued_training.py --dataset ../shared/data/camvid \
        --regions 144 48 288 576 --checkpoint-every 100 \
        --out benchmarks/results/labels/continued-camvid.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.core.files import write_json
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.continuing import ContinuedTraining, next_look
from ralis_backend.core.learning.course import ContinuingConfig, Course
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.metrics import mean_iou, mean_iou_of_present
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec, build
from ralis_backend.offline.benchmark.arenas import ArenaConfig
from ralis_backend.offline.datasets import Dataset, Sample
from ralis_backend.offline.scaled import scaled
from ralis_backend.settings import load_settings

REGION = (90, 80)
"""Height and width at full size, in pixels."""
HELD_OUT_EVERY = 5
RESULTS = ("runs", "unfinished")
FACTS = ("updates", "test_images", "image_scale", "checkpoint_every", "learning_rate", "decay")


def main() -> None:
    """Measure and write."""
    options = _options()
    load_settings()
    found = json.loads(options.out.read_text()) if options.out.is_file() else _facts(options)
    if _facts(options) != {key: it for key, it in found.items() if key not in RESULTS}:
        raise SystemExit(f"{options.out} is of another experiment; choose another --out")
    runs = found.setdefault("runs", [])
    dataset = Dataset.open(options.dataset)
    pool = scaled(dataset.split("d_v"), options.image_scale)
    tested = ArenaConfig(dataset, REGION, "full", test_images=options.test_images).test_samples()
    test_set = [_whole(sample) for sample in scaled(tested, options.image_scale)]
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for regions in options.regions:
            name = {"seed": seed, "regions": regions}
            if any(run["seed"] == seed and run["regions"] == regions for run in runs):
                continue

            def keep(points: list[dict[str, Any]], name: dict[str, int] = name) -> None:
                write_json(options.out, {**found, "unfinished": {**name, "points": points}})

            found.pop("unfinished", None)
            run = Run(pool, test_set, len(dataset.classes), regions, seed, options, keep)
            runs.append({**name, **run.measure()})
            write_json(options.out, found)
    for run in runs:
        print(_line(run))


class Run:
    """One number of labelled regions under one seed."""

    def __init__(
        self,
        pool: list[Sample],
        test_set: list[LabelledImage],
        num_classes: int,
        regions: int,
        seed: int,
        options: argparse.Namespace,
        keep: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        images = _labelled(pool, regions, options.image_scale, seed)
        self.images = [
            it for number, it in enumerate(images) if number % HELD_OUT_EVERY != HELD_OUT_EVERY - 1
        ]
        self.held_out = images[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        self.test_set, self.seed, self.options, self.keep = test_set, seed, options, keep
        self.config = FinetuneConfig()
        self.rules = ContinuingConfig(options.learning_rate, options.decay)
        self.num_classes = num_classes
        self.points: list[dict[str, Any]] = []
        self.wall_s = self.cpu_s = 0.0

    def measure(self) -> dict[str, Any]:
        """The round, and what comes after it."""
        segmenter = build(
            SegmenterSpec(self.num_classes, "FPN", "mobilenet_v2", "imagenet"),
            seed=self.seed,
            device=self.options.device,
        )
        before = self._times()
        summary = finetune(segmenter, self.images, self.config, seed=self.seed)
        self._spend(before)
        course = Course().seen(self._held_out_score(segmenter), 0, self.rules)
        self._checkpoint(segmenter, 0)
        course = self._go_on(
            ContinuedTraining(segmenter, self.config, self.rules, seed=self.seed), course
        )
        return {
            "held_out_images": len(self.held_out),
            "held_out_regions": sum(len(image.regions) for image in self.held_out),
            "round_updates": summary.steps,
            "points": self.points,
            "best_updates": course.best_updates,
            "has_converged": course.has_converged(self.rules),
        }

    def _go_on(self, training: ContinuedTraining, course: Course) -> Course:
        """As the worker does, but for its end; the last `course` before it would have ended."""
        training.learn_from(self.images)
        every = self.options.checkpoint_every
        while training.updates < self.options.updates:
            look = next_look(training.updates, self.held_out, self.config, self.rules)
            checkpoint = (training.updates // every + 1) * every
            before = self._times()
            training.advance(min(look, checkpoint, self.options.updates), lambda: False)
            if training.updates == look and not course.has_converged(self.rules):
                found = self._held_out_score(training.candidate)
                course = course.seen(found, training.updates, self.rules)
            self._spend(before)
            if training.updates in (checkpoint, self.options.updates):
                self._checkpoint(training.candidate, training.updates)
        return course

    def _checkpoint(self, segmenter: Segmenter, updates: int) -> None:
        matrix = evaluate(segmenter, self.test_set)
        point = {
            "updates": updates,
            "wall_s": round(self.wall_s, 1),
            "cpu_s": round(self.cpu_s, 1),
            "test_miou": round(float(mean_iou(matrix)), 5),
            "held_out_miou": round(self._held_out_score(segmenter), 5),
        }
        self.points.append(point)
        self.keep(self.points)
        print(self.seed, len(self.images), point, flush=True)

    def _held_out_score(self, segmenter: Segmenter) -> float:
        return float(mean_iou_of_present(evaluate(segmenter, self.held_out)))

    def _times(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def _spend(self, before: tuple[float, float]) -> None:
        wall, cpu = self._times()
        self.wall_s += wall - before[0]
        self.cpu_s += cpu - before[1]


def _labelled(pool: list[Sample], count: int, scale: float, seed: int) -> list[LabelledImage]:
    """Images of the pool with `count` regions of its grid labelled, drawn uniformly."""
    size = (round(REGION[0] * scale), round(REGION[1] * scale))
    images = [(sample.image(), sample.mask()) for sample in pool]
    places = [
        (number, region)
        for number, (_, mask) in enumerate(images)
        for region in grid((mask.shape[0], mask.shape[1]), size)
        if (mask[region.slices] != VOID).any()
    ]
    rng = np.random.default_rng(seed)
    chosen: dict[int, list[Region]] = defaultdict(list)
    for index in rng.choice(len(places), count, replace=False):
        number, region = places[index]
        chosen[number].append(region)
    return [_partly(*images[number], tuple(regions)) for number, regions in chosen.items()]


def _partly(pixels: np.ndarray, truth: np.ndarray, regions: tuple[Region, ...]) -> LabelledImage:
    mask = np.full_like(truth, VOID)
    for region in regions:
        mask[region.slices] = truth[region.slices]
    return LabelledImage(lambda: pixels, mask, regions)


def _whole(sample: Sample) -> LabelledImage:
    pixels, mask = sample.image(), sample.mask()
    return LabelledImage(lambda: pixels, mask, (Region(0, 0, *mask.shape),))


def _line(run: dict[str, Any]) -> str:
    curve = ", ".join(f"{it['updates']}: {100 * it['test_miou']:.1f}" for it in run["points"])
    return f"{run['regions']} regions, seed {run['seed']}: test mIoU after more updates {curve}"


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    named = {name: getattr(options, name) for name in FACTS}
    return {"dataset": options.dataset.name, "device": options.device, **named}


def _options() -> argparse.Namespace:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    defaults = asdict(ContinuingConfig())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--regions", type=int, nargs="+", default=[48, 144, 288, 576])
    parser.add_argument("--updates", type=int, default=1200, help="after the round")
    parser.add_argument("--checkpoint-every", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=3000)
    parser.add_argument("--learning-rate", type=float, default=defaults["learning_rate"])
    parser.add_argument("--decay", type=float, default=defaults["decay"])
    parser.add_argument("--test-images", type=int, default=58)
    parser.add_argument("--image-scale", type=float, default=0.5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
