"""A fully labelled dataset and a reward -> a segmenter, its curve, and a run that can be stopped.

A training is made of cycles. Each has an optimizer and a schedule of its own (warm restarts,
arXiv:1608.03983), ends with a small learning rate, is measured, and written down: a run that was
stopped goes on from the last whole cycle, on a CPU to the bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralis_backend.core import checkpoints, weights
from ralis_backend.core.files import write_json
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.loop import TrainingProgress, train
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.objective import SampledMaps
from ralis_backend.core.learning.rewards.scale import ProgressiveScale
from ralis_backend.core.learning.rewards.scores import Noise
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec, build, load
from ralis_backend.core.segmenter.registry import weights_facts
from ralis_backend.offline.datasets import Dataset, DatasetError, Sample
from ralis_backend.offline.lessons import LESSONS, Lesson, Material
from ralis_backend.offline.scaled import scaled
from ralis_backend.offline.training.trainer import (
    OnProgress,
    Progress,
    checkpoint_path,
    result_path,
)
from ralis_backend.simulation.arena import background_facts
from ralis_backend.simulation.game import measured_scores

INITS = ("random", "imagenet")
"""What a training begins with, or a segmenter's file."""


@dataclass(frozen=True)
class Recipe:
    """How a segmenter is trained.

    reward: a name in `LESSONS`, or whatever the lesson that is handed over is called.
    init: one of `INITS`, or the path of a segmenter's file.
    cycles, updates: how many, and the updates of each.
    pool, measured_on: splits.
    image_scale: images are shown smaller by this.
    test_images: measured on so many, evenly spaced; None: all.
    regions: random regions that crops are drawn around; None: whole images are known.
    region_size: (height, width) in pixels of the shown image.
    finetune, rewards, noise: see there.
    """

    reward: str = "image"
    init: str = "imagenet"
    cycles: int = 4
    updates: int = 100
    pool: str = "d_v"
    measured_on: str = "test"
    image_scale: float = 1.0
    test_images: int | None = None
    regions: int | None = None
    region_size: tuple[int, int] = (90, 80)
    finetune: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(rarity_share=0.0))
    rewards: RewardConfig = field(default_factory=RewardConfig)
    noise: Noise = field(default_factory=Noise)

    def check(self) -> None:
        """Raise `ValueError` if the settings cannot work."""
        if min(self.cycles, self.updates) < 1:
            raise ValueError(f"cycles {self.cycles} and updates {self.updates} must be at least 1")
        if not 0 < self.image_scale <= 1:
            raise ValueError(f"image_scale is {self.image_scale}, expected above 0, at most 1")
        replace(self.finetune, steps=self.updates).check()
        self.rewards.check()


class SegmenterTraining:
    """A training, to the end of which `run` goes.

    Args:
        recipe: how.
        dataset: its pool and test split are needed.
        spec: of the network, unless `init` is a file.
        out: `OUT.safetensors` is the segmenter, `OUT.json` the results; where a checkpoint of the
            same training is, it goes on from that.
        seed: of everything random.
        device: as torch names it.
        lesson: what it learns from; None: that of the recipe's reward.

    Raises:
        ValueError: if the settings cannot work, or the checkpoint is of another training.
        DatasetError: if a split holds no labelled image, or what is chosen of it no labelled pixel.
        WeightsError: if `init` is a file that cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        spec: SegmenterSpec,
        out: Path,
        *,
        seed: int,
        device: str = "cpu",
        lesson: Lesson | None = None,
    ) -> None:
        recipe.check()
        self.recipe, self._dataset, self._seed, self._out = recipe, dataset, seed, out
        self._lesson = lesson or _lesson(recipe.reward)
        self._images = _learned_images(recipe, dataset, seed)
        self._test = _test_images(recipe, dataset)
        self.segmenter = _start(recipe.init, spec, len(dataset.classes), seed, device)
        self._begins_pretrained = self.segmenter.is_pretrained
        is_file = recipe.init not in INITS
        self._reference = self.segmenter.copy() if is_file and recipe.rewards.kl_weight else None
        rewards = recipe.rewards
        self._scale = ProgressiveScale(rewards.strides, rewards.patience, rewards.min_gain)
        self.curve: list[dict[str, Any]] = []
        self._seconds = 0.0
        self._facts = self._all_facts()
        self._resume()

    def run(self, on_progress: OnProgress = lambda _: None) -> dict[str, Any]:
        """Train to the end, and write the segmenter and the results.

        Args:
            on_progress: told after each update.

        Returns:
            The results, as `OUT.json` holds them.

        Raises:
            FloatingPointError: if the loss is not finite; the last whole cycle can be gone on from.
        """
        if not self.curve:
            self.curve.append({"updates": 0, **self._measured()})
        for cycle in range(len(self.curve) - 1, self.recipe.cycles):
            started = time.monotonic()
            self.curve.append(self._cycle(cycle, on_progress))
            self._seconds += time.monotonic() - started
            self._save()
        self.segmenter.save(
            result_path(self._out, "safetensors"), {"classes": list(self._dataset.class_names)}
        )
        return self._write_results()

    def _cycle(self, cycle: int, on_progress: OnProgress) -> dict[str, Any]:
        """Train for one cycle; a point of the curve."""
        recipe = self.recipe
        seed = int(np.random.default_rng([self._seed, cycle]).integers(2**31))
        material = Material(
            self._images, recipe.finetune, recipe.rewards, recipe.noise,
            self.segmenter.num_classes, seed, self._scale, self._reference,
        )  # fmt: skip
        objective = self._lesson(material)
        # What began without weights goes on to learn its batch statistics.
        self.segmenter.is_pretrained = self._begins_pretrained
        rewards: list[float] = []

        def told(progress: TrainingProgress) -> None:
            if isinstance(objective, SampledMaps):
                rewards.append(objective.mean_reward)
            on_progress(self._progress(cycle, progress))

        summary = train(
            self.segmenter,
            [objective],
            recipe.finetune,
            steps=recipe.updates,
            steps_per_epoch=max(1.0, len(self._images) / recipe.finetune.batch_size),
            seed=seed,
            on_progress=told,
        )
        return {
            "updates": (cycle + 1) * recipe.updates,
            **self._measured(),
            "loss": round(summary.final_loss, 5),
            **({"reward": round(float(np.mean(rewards)), 5)} if rewards else {}),
            **({"stride": self._scale.stride} if recipe.reward == "image" else {}),
            "seconds": round(summary.seconds, 1),
        }

    def _measured(self) -> dict[str, Any]:
        matrix = evaluate(self.segmenter, self._test)
        found = measured_scores(matrix, self._dataset.background)
        return {"miou": found["miou"], "iou": found["ious"]}

    def _progress(self, cycle: int, progress: TrainingProgress) -> Progress:
        done, total = cycle + progress.step / progress.steps, self.recipe.cycles
        seconds = progress.seconds_left + progress.seconds_left * (total - cycle - 1) / max(
            1e-9, 1 - progress.step / progress.steps
        )
        facts = f"cycle {cycle + 1} of {total}, update {progress.step} of {progress.steps}"
        facts += f", loss {progress.loss:.3f}"
        return Progress(done, total, self.curve[-1]["miou"], facts, seconds)

    def _save(self) -> None:
        state = {"curve": self.curve, "scale": self._scale.state(), "seconds": self._seconds}
        checkpoints.save(checkpoint_path(self._out), self.segmenter.state(), state, self._facts)
        self._write_results()

    def _resume(self) -> None:
        found = checkpoints.load(checkpoint_path(self._out), self._facts)
        if found is None:
            return
        tensors, state = found
        self.segmenter.restore(tensors)
        self.segmenter.is_pretrained = True
        self._scale.restore(state["scale"])
        self.curve, self._seconds = state["curve"], float(state["seconds"])

    def _write_results(self) -> dict[str, Any]:
        results = {
            **self._facts,
            "curve": self.curve,
            "seconds": round(self._seconds, 1),
            "torch": torch.__version__,
            "device": str(self.segmenter.device),
        }
        write_json(result_path(self._out, "json"), results)
        return results

    def _all_facts(self) -> dict[str, Any]:
        """What the result depends on, as JSON."""
        recipe = asdict(self.recipe)
        if self.recipe.init not in INITS:
            recipe["init"] = {"sha256": weights.digest(Path(self.recipe.init))}
        begins_with = weights_facts(self.segmenter.spec) if self.recipe.init in INITS else {}
        if self.recipe.reward == "none":  # it knows of no rewards
            del recipe["rewards"], recipe["noise"]
        facts = {
            "dataset": self._dataset.name,
            "classes": list(self._dataset.class_names),
            **background_facts(self._dataset.background),
            "segmenter": asdict(self.segmenter.spec) | begins_with,
            "seed": self._seed,
            "recipe": recipe,
            "images": {"pool": len(self._images), "test": len(self._test)},
            "files_sha256": self._dataset.files_digest((self.recipe.pool, self.recipe.measured_on)),
        }
        if self.recipe.regions is not None:  # else `images` says of which split an image is
            splits = (self.recipe.pool, self.recipe.measured_on)
            facts["split_images"] = self._dataset.split_sizes(splits)
        found: dict[str, Any] = json.loads(json.dumps(facts))  # as they are read again
        return found


def _lesson(reward: str) -> Lesson:
    if reward not in LESSONS:
        raise ValueError(f"unknown reward '{reward}'; expected one of {', '.join(LESSONS)}")
    return LESSONS[reward]


def _start(init: str, spec: SegmenterSpec, num_classes: int, seed: int, device: str) -> Segmenter:
    """The segmenter that a training begins with."""
    if init in INITS:
        wanted = replace(spec, encoder_weights=spec.encoder_weights or "imagenet")
        wanted = wanted.for_classes(num_classes)
        return build(wanted.untrained() if init == "random" else wanted, seed=seed, device=device)
    path = Path(init)
    if not path.is_file():
        raise ValueError(
            f"--init {init} is neither {' nor '.join(INITS)} nor the file of a segmenter"
        )
    segmenter = load(path, device)
    if segmenter.num_classes != num_classes:
        raise ValueError(
            f"{init} tells {segmenter.num_classes} classes apart, the dataset has {num_classes}; "
            "take a segmenter of this dataset"
        )
    return segmenter


def _learned_images(recipe: Recipe, dataset: Dataset, seed: int) -> list[LabelledImage]:
    """The pool: whole images, or the random regions that are known of some."""
    samples = _labelled(dataset, recipe.pool, recipe.image_scale)
    whole = _with_labels([_labelled_image(sample) for sample in samples], recipe.pool, dataset)
    if recipe.regions is None:
        return whole
    return random_regions(whole, recipe.regions, recipe.region_size, seed)


def random_regions(
    images: Sequence[LabelledImage], count: int, size: tuple[int, int], seed: int
) -> list[LabelledImage]:
    """The images of which regions were drawn, with no label outside these.

    Args:
        images: fully labelled.
        count: of regions with a labelled pixel, of all images together.
        size: (height, width) of a region.
        seed: of the draw.

    Raises:
        ValueError: if there are not so many.
    """
    masks = [np.asarray(image.mask) for image in images]
    places = [
        (index, region)
        for index, mask in enumerate(masks)
        for region in grid((mask.shape[0], mask.shape[1]), size)
        if (mask[region.slices] != VOID).any()
    ]
    if count > len(places):
        raise ValueError(f"{count} regions of {size} pixels are wanted, there are {len(places)}")
    drawn: dict[int, list[Region]] = {}
    for place in np.random.default_rng([seed, 48]).choice(len(places), count, replace=False):
        index, region = places[place]
        drawn.setdefault(index, []).append(region)
    return [
        LabelledImage(images[index].load, _only(masks[index], regions), tuple(regions))
        for index, regions in sorted(drawn.items())
    ]


def _only(mask: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """The mask, VOID outside the regions."""
    kept = np.full_like(mask, VOID)
    for region in regions:
        kept[region.slices] = mask[region.slices]
    return kept


def _test_images(recipe: Recipe, dataset: Dataset) -> list[LabelledImage]:
    samples = _labelled(dataset, recipe.measured_on, recipe.image_scale)
    count = min(recipe.test_images or len(samples), len(samples))
    chosen = np.linspace(0, len(samples) - 1, count).round().astype(int)
    images = [_labelled_image(samples[index]) for index in chosen]
    return _with_labels(images, recipe.measured_on, dataset)


def _with_labels(images: list[LabelledImage], split: str, dataset: Dataset) -> list[LabelledImage]:
    """The same; refused where no pixel of any of them is labelled."""
    if not any((np.asarray(image.mask) != VOID).any() for image in images):
        raise DatasetError(
            f"no pixel of the {len(images)} images of split {split} of {dataset.name} that are "
            "used is labelled: all of their masks are void; complete them, or use others, or more"
        )
    return images


def _labelled(dataset: Dataset, split: str, scale: float) -> list[Sample]:
    samples = [sample for sample in dataset.split(split) if sample.mask_path is not None]
    if not samples:
        raise DatasetError(f"split {split} of {dataset.name} has no image with a mask")
    return scaled(samples, scale)


def _labelled_image(sample: Sample) -> LabelledImage:
    mask = sample.mask()
    region = Region(0, 0, mask.shape[0], mask.shape[1])
    return LabelledImage(sample.image, mask, (region,))
