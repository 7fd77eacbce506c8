"""What does a segmenter learn from rewards, and which part of the method does it?

Arms with the same updates, crops and schedule, measured on test images after each cycle: rewards of
pixels against cross-entropy from ImageNet weights; scores of whole maps from a network that knows a
few regions, against all masks, image tags, more paint and a placebo; each part of the method off;
noisy scores; ratings beside paint, as in the loop. Every arm is a run of its own in --runs: a
stopped one goes on from its last cycle.

    python benchmarks/segmenter_rewards.py --dataset ../shared/data/camvid \
        --out benchmarks/results/rewards/camvid.json
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralis_backend.core.features import predicted_classes
from ralis_backend.core.files import write_json
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.objective import Objective
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.objective import ImageReward
from ralis_backend.core.learning.rewards.rated import RatedBesidePaint, RatedRegion
from ralis_backend.core.learning.rewards.raters import MapRater
from ralis_backend.core.learning.rewards.scores import Judge, Noise
from ralis_backend.core.metrics import confusion_matrix, mean_iou_of_present
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import Segmenter, load
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.image_tags import ImageTags
from ralis_backend.offline.lessons import LESSONS, Lesson, Material
from ralis_backend.offline.scaled import scaled
from ralis_backend.offline.segmenter_training import Recipe, SegmenterTraining, random_regions
from ralis_backend.online.worker.promotion import is_promoted
from ralis_backend.settings import load_settings
from ralis_backend.wiring import find_device, segmenter_spec

PAINT = 48
"""Regions that the start knows."""
RATED = 200
BY_SCORES = ("image", "placebo", "tags")
"""What learns from less than a mask has a learning rate of its own."""
NOISE = Noise(wrong_share=0.2, num_stars=5)


@dataclass(frozen=True)
class Arm:
    """One way to learn.

    reward: what the lesson is called, a name in `LESSONS` unless a lesson is given.
    begins: `imagenet`, or `start`, the network that knows a few regions.
    lesson: made for a seed; None: that of the reward.
    rewards: what differs in `RewardConfig`.
    noise: of scores.
    knows_regions: the few painted regions are all that it learns from.
    is_beside_paint: it learns from the few painted regions, too, with the same weight.
    """

    reward: str
    begins: str = "start"
    lesson: Lesson | None = None
    rewards: Mapping[str, Any] = field(default_factory=dict)
    noise: Noise = field(default_factory=Noise)
    knows_regions: bool = False
    is_beside_paint: bool = False


class Placebo(MapRater):
    """Gives each map the score of another one of the same crop."""

    def batch(self) -> tuple[np.ndarray, Judge]:
        """See `MapRater.batch`."""
        pixels, judge = super().batch()

        def shuffled(maps: torch.Tensor) -> torch.Tensor:
            order = torch.rand(maps.shape[:2], generator=self._generator).argsort(dim=0)
            return judge(maps).gather(0, order.to(maps.device))

        return pixels, shuffled


def placebo(material: Material) -> Objective:
    """Scores that have nothing to do with the maps, spread as the true ones are."""
    rater = Placebo(material.images, material.finetune, material.num_classes, seed=material.seed)
    return ImageReward(
        rater, material.held, seed=material.seed,
        reference=material.reference, scale=material.scale,
    )  # fmt: skip


ARMS: Mapping[str, Arm] = {
    "cross-entropy from ImageNet": Arm("none", "imagenet"),
    "pixel from ImageNet": Arm("pixel", "imagenet", rewards={"pixel_credit": "plain"}),
    "pixel, relative, from ImageNet": Arm("pixel", "imagenet"),
    "image": Arm("image"),
    "more of the same paint": Arm("none", knows_regions=True),
    "cross-entropy": Arm("none"),
    "placebo": Arm("placebo", lesson=placebo),
    "pixel": Arm("pixel", rewards={"pixel_credit": "plain"}),
    "pixel, relative": Arm("pixel"),
    "tags": Arm("tags", lesson=ImageTags),
    "image without PSD": Arm("image", rewards={"credit": "score"}),
    "image without PSR": Arm("image", rewards={"strides": (4,)}),
    "image without PSR, each pixel": Arm("image", rewards={"strides": (1,)}),
    "image without SyncAN": Arm("image", rewards={"normalisation": "per-image"}),
    "image, shared noise": Arm("image", rewards={"sampler": "shared-noise"}),
    "image, 4 maps": Arm("image", rewards={"num_maps": 4}),
    "image, maps used 4 times": Arm("image", rewards={"updates_per_draw": 4}),
    "image, 20 % wrong": Arm("image", noise=replace(NOISE, num_stars=None)),
    "image, 20 % wrong, 5 stars": Arm("image", noise=NOISE),
    "image, 5 stars": Arm("image", noise=replace(NOISE, wrong_share=0.0)),
    "image, 20 % wrong, 5 stars, held near": Arm("image", rewards={"kl_weight": 1.0}, noise=NOISE),
    "image from ImageNet": Arm("image", "imagenet"),
    "image beside paint": Arm("image", is_beside_paint=True),
    "tags beside paint": Arm("tags", lesson=ImageTags, is_beside_paint=True),
    "rated beside paint": Arm("rated", knows_regions=True),
    "rated beside paint, 20 % wrong, 5 stars": Arm("rated", knows_regions=True, noise=NOISE),
}


def main() -> None:
    """Train, write and print, arm by arm."""
    options = _options()
    load_settings()
    torch.set_num_threads(options.threads)
    found = json.loads(options.out.read_text()) if options.out.is_file() else _facts(options)
    if _facts(options) != {key: value for key, value in found.items() if key != "runs"}:
        raise SystemExit(f"{options.out} is of another experiment; choose another --out")
    runs, dataset = found.setdefault("runs", []), Dataset.open(options.dataset)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in _chosen(options.arms):
            if any((run["arm"], run["seed"]) == (name, seed) for run in runs):
                continue
            runs.append({"arm": name, "seed": seed, **_run(options, dataset, name, seed)})
            write_json(options.out, found)
            scores = " ".join(f"{100 * point['miou']:.1f}" for point in runs[-1]["curve"])
            print(f"seed {seed}, {name}: {scores}", flush=True)
    print(table(runs))


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: mIoU in % at the start and after each cycle, mean over seeds."""
    lines = [
        "| arm | seeds | mIoU in % at the start, after each cycle | gain |",
        "| --- | --- | --- | --- |",
    ]
    for name in ARMS:
        curves = [
            [100 * point["miou"] for point in run["curve"]] for run in runs if run["arm"] == name
        ]
        if curves:
            means = np.mean(curves, axis=0)
            gains = [curve[-1] - curve[0] for curve in curves]
            spread = f" ({min(gains):+.1f} to {max(gains):+.1f})" if len(gains) > 1 else ""
            shown = ", ".join(f"{mean:.1f}" for mean in means)
            lines.append(f"| {name} | {len(curves)} | {shown} | {np.mean(gains):+.1f}{spread} |")
    return "\n".join(lines)


def _run(options: argparse.Namespace, dataset: Dataset, name: str, seed: int) -> dict[str, Any]:
    """The curve of an arm, and what it cost."""
    arm = ARMS[name]
    init = arm.begins if arm.begins == "imagenet" else str(_start(options, dataset, seed))
    recipe = _recipe(options, arm, init)
    lesson = arm.lesson
    if arm.reward == "rated":
        lesson = partial(_rated_lesson, _rated(recipe, dataset, Path(init), seed))
    if arm.is_beside_paint:
        painted = random_regions(_whole(recipe, dataset), PAINT, recipe.region_size, seed)
        lesson = partial(_beside_paint, lesson or LESSONS[arm.reward], painted)
    training = _training(options, dataset, recipe, name, seed, lesson)
    results = training.run()
    found = {"curve": results["curve"], "seconds": results["seconds"]}
    if arm.reward == "rated":
        before = load(Path(init), training.segmenter.device)
        found["held_out"] = _gate(recipe, dataset, before, training.segmenter)
    return found


def _start(options: argparse.Namespace, dataset: Dataset, seed: int) -> Path:
    """The network that knows a few regions; trained once for each seed."""
    recipe = replace(
        _recipe(options, Arm("none", "imagenet", knows_regions=True), "imagenet"),
        cycles=options.start_cycles,
    )
    training = _training(options, dataset, recipe, "start", seed, None)
    training.run()
    return _path(options, "start", seed).with_suffix(".safetensors")


def _recipe(options: argparse.Namespace, arm: Arm, init: str) -> Recipe:
    scale = options.image_scale
    return Recipe(
        arm.reward,
        init,
        cycles=options.cycles,
        updates=options.updates,
        measured_on=options.measure_on,
        image_scale=scale,
        test_images=options.test_images,
        regions=PAINT if arm.knows_regions else None,
        region_size=(round(90 * scale), round(80 * scale)),
        finetune=FinetuneConfig(
            batch_size=options.batch,
            crop_size=(options.crop, options.crop),
            learning_rate=options.score_learning_rate
            if arm.reward in BY_SCORES
            else options.learning_rate,
            rarity_share=0.0,
        ),
        rewards=replace(_rewards(options), **arm.rewards),
        noise=arm.noise,
    )


def _rewards(options: argparse.Namespace) -> RewardConfig:
    return RewardConfig(
        num_maps=options.maps,
        strides=tuple(int(each) for each in options.strides.split(",")),
        patience=options.patience,
        kl_weight=options.kl_weight,
        sampler=options.sampler,
        credit=options.credit,
    )


def _training(
    options: argparse.Namespace,
    dataset: Dataset,
    recipe: Recipe,
    name: str,
    seed: int,
    lesson: Lesson | None,
) -> SegmenterTraining:
    if lesson is None and recipe.reward in LESSONS:
        lesson = LESSONS[recipe.reward]
    return SegmenterTraining(
        recipe,
        dataset,
        segmenter_spec(load_settings()),
        _path(options, name, seed),
        seed=seed,
        device=find_device(options.device),
        lesson=lesson,
    )


def _path(options: argparse.Namespace, name: str, seed: int) -> Path:
    words = "".join(each if each.isalnum() else "-" for each in name)
    return Path(options.runs) / options.out.stem / f"{words}-{seed}"


def _rated(recipe: Recipe, dataset: Dataset, start: Path, seed: int) -> list[RatedRegion]:
    """Regions that the start was shown to be right or wrong in, by its mean IoU there."""
    segmenter = load(start)
    chosen = random_regions(_whole(recipe, dataset), RATED, recipe.region_size, seed + 1_000_000)
    generator = torch.Generator().manual_seed(seed)
    rated = []
    for image in chosen:
        prediction, mask = predicted_classes(segmenter, image.load()), np.asarray(image.mask)
        for region in image.regions:
            shown = np.full_like(mask, VOID)
            shown[region.slices] = prediction[region.slices]
            matrix = confusion_matrix(prediction, _within(mask, region), segmenter.num_classes)
            exact = torch.tensor([mean_iou_of_present(matrix)])
            score = float(recipe.noise.disturbed(exact, generator))
            rated.append(RatedRegion(image.load, shown, region, score))
    return rated


def _whole(recipe: Recipe, dataset: Dataset) -> list[LabelledImage]:
    samples = scaled(dataset.split(recipe.pool), recipe.image_scale)
    return [LabelledImage(it.image, it.mask(), ()) for it in samples]


def _within(mask: np.ndarray, region: Any) -> np.ndarray:
    kept = np.full_like(mask, VOID)
    kept[region.slices] = mask[region.slices]
    return kept


class BesidePaint:
    """See `Objective`: another one's loss and that of painted regions, added."""

    weight = 1.0

    def __init__(self, other: Objective, painted: Objective) -> None:
        self._parts = (painted, other)

    def begin(self, segmenter: Segmenter) -> None:
        """See `Objective.begin`."""
        for part in self._parts:
            part.begin(segmenter)

    def loss(self, segmenter: Segmenter, step: int) -> torch.Tensor:
        """See `Objective.loss`."""
        return torch.stack([part.loss(segmenter, step) for part in self._parts]).sum()

    def after_step(self, segmenter: Segmenter, step: int) -> None:
        """See `Objective.after_step`."""
        for part in self._parts:
            part.after_step(segmenter, step)

    def facts(self) -> Mapping[str, Any]:
        """See `Objective.facts`."""
        return {name: it for part in self._parts for name, it in part.facts().items()}


def _beside_paint(
    lesson: Lesson, painted: Sequence[LabelledImage], material: Material
) -> Objective:
    paint = LESSONS["none"](replace(material, images=painted))
    return BesidePaint(lesson(material), paint)


def _rated_lesson(rated: Sequence[RatedRegion], material: Material) -> Objective:
    return RatedBesidePaint(
        rated, material.images, material.finetune, material.num_classes, seed=material.seed
    )


def _gate(recipe: Recipe, dataset: Dataset, before: Segmenter, after: Segmenter) -> dict[str, Any]:
    """What the promotion gate would say of the update, on images that are held out."""
    samples = scaled(dataset.split("d_r"), recipe.image_scale)
    images = [LabelledImage(it.image, it.mask(), ()) for it in samples]
    matrices = [evaluate(each, images) for each in (before, after)]
    old, new = (round(mean_iou_of_present(matrix), 5) for matrix in matrices)
    accepted = is_promoted(matrices[0], matrices[1], len(images), tolerance=0.01)
    return {"before": old, "after": new, "is_accepted": accepted}


def _chosen(names: str) -> list[str]:
    chosen = [name.strip() for name in names.split(";")] if names else list(ARMS)
    unknown = [name for name in chosen if name not in ARMS]
    if unknown:
        raise SystemExit(f"unknown arms {unknown}; expected some of {'; '.join(ARMS)}")
    return chosen


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    names = (
        "cycles", "updates", "start_cycles", "batch", "crop", "image_scale", "test_images",
        "measure_on", "learning_rate", "score_learning_rate",
        "maps", "strides", "patience", "kl_weight", "sampler", "credit",
    )  # fmt: skip
    return {
        "dataset": options.dataset.name,
        "device": options.device,
        "painted_regions": PAINT,
        "rated_regions": RATED,
        **{name: getattr(options, name) for name in names},
    }


def _options() -> argparse.Namespace:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path(".cache/rewards"))
    parser.add_argument("--arms", default="", help="names separated by semicolons; else all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--updates", type=int, default=100, help="of a cycle")
    parser.add_argument("--start-cycles", type=int, default=3, help="of the network that begins")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=64, help="pixels, a multiple of 32")
    parser.add_argument("--image-scale", type=float, default=0.25)
    parser.add_argument("--test-images", type=int, default=40)
    parser.add_argument("--measure-on", default="test", help="d_r to choose settings")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--score-learning-rate", type=float, default=3e-4)
    parser.add_argument("--maps", type=int, default=32, help="drawn and scored of each crop")
    parser.add_argument("--patience", type=int, default=25, help="updates that PSR compares")
    parser.add_argument("--strides", default="16,8,4", help="PSR's, in pixels")
    parser.add_argument("--sampler", default="pooled")
    parser.add_argument("--credit", default="psd")
    parser.add_argument("--kl-weight", type=float, default=0.05)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
