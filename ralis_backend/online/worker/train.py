"""Labelled regions -> the next version of the segmenter, if it passes the promotion gate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from ralis_backend.core.images import decode_image
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.loop import TrainingProgress
from ralis_backend.core.metrics import ious, mean_iou
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.random_slice import SLICE, measured
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import ProjectStore, RegionLabel, now
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.suggesting import hide_removed, labels_by_image
from ralis_backend.online.tool import Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.sync import tool_task

logger = logging.getLogger(__name__)

MIN_VALIDATION_REGIONS = 5
"""Below this the promotion gate would judge by noise, and every version passes."""


@dataclass(frozen=True)
class LabelledSplit:
    """A project's labels by image: for training, and held out for validation."""

    training: list[LabelledImage]
    validation: list[LabelledImage]

    @property
    def num_validation_regions(self) -> int:
        """Number of held-out regions."""
        return sum(len(image.regions) for image in self.validation)


class Stopped(Exception):
    """The worker was asked to stop, or lost its lease: the step begins anew later."""


class Trainer:
    """Trains one project's segmenter from what is labelled now."""

    def __init__(self, store: ProjectStore, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config

    def train(
        self,
        project: Project,
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> Version | None:
        """Fit, evaluate, and store the next version; None if nothing painted can be learned from.

        Args:
            project: whose labels are used.
            report: takes the progress for log and `/job_status`.
            should_stop: asked at each step.

        Raises:
            Stopped: if it was asked to stop; nothing is stored then.
        """
        started = time.monotonic()
        labels = [label for label in self._store.labels(project.id) if not label.is_skipped]
        watermark = self._store.newest_label_id(project.id)
        split = self._split(project, labels)
        if all((image.mask == VOID).all() for image in split.training):
            self._give_up(project, watermark)
            return None
        parent = self._store.version(project.id, project.current_version)
        ranking = self._config.ranking
        in_use = load_segmenter(
            self._store, project, parent, ranking.spec, seed=ranking.seed, device=ranking.device
        )
        candidate = in_use.copy()
        if parent is not None:
            self._measure(project, parent, in_use, labels)
        number = 1 + max((row.number for row in self._store.versions(project.id)), default=0)

        def on_progress(progress: TrainingProgress) -> None:
            report(_progress_values(number, progress))

        summary = finetune(
            candidate,
            split.training,
            self._config.finetune,
            seed=self._config.ranking.seed + number,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        if should_stop():
            raise Stopped(f"training of project {project.uid} was interrupted")
        metrics: dict[str, Any] = {
            "steps": summary.steps,
            "final_loss": summary.final_loss,
            "training_regions": sum(len(image.regions) for image in split.training),
            "validation_regions": split.num_validation_regions,
            "newest_label_id": watermark,
        }
        is_accepted = self._judge(project, parent, in_use, candidate, split, metrics)
        metrics["seconds"] = {"train": round(time.monotonic() - started, 2)}
        return self._store_version(
            project, parent, candidate, number, len(labels), is_accepted, metrics, watermark
        )

    def _give_up(self, project: Project, watermark: int) -> None:
        self._store.change_project(
            project.id, trained_label_id=watermark, is_training_requested=False
        )
        logger.warning(
            "project %s: nothing to learn from, no labelled region has a painted pixel; paint the "
            "regions, or name the label of unpainted pixels as RALIS_BACKGROUND_LABEL",
            project.uid,
        )

    def _split(self, project: Project, labels: Sequence[RegionLabel]) -> LabelledSplit:
        by_image = labels_by_image(labels)
        split = LabelledSplit([], [])
        for image in self._store.images(project.id):
            if image.id not in by_image or image.size is None:
                continue
            mask = hide_removed(self._store.image_mask(image.size, by_image[image.id]), project)
            regions = tuple(label.region for label in by_image[image.id])
            part = split.validation if image.is_validation else split.training
            part.append(LabelledImage(self._loader(image), mask, regions))
        return split

    def _loader(self, image: Image) -> Callable[[], np.ndarray]:
        return lambda: decode_image(self._tool.image(tool_task(image)))

    def _measure(
        self,
        project: Project,
        version: Version,
        segmenter: Segmenter,
        labels: Sequence[RegionLabel],
    ) -> None:
        """Score a version on the random slice's regions that were labelled after its training."""
        newest = version.metrics.get("newest_label_id")
        if newest is None:  # it has learned nothing
            return
        images = {image.id: image for image in self._store.images(project.id)}
        matrices = []
        for label in labels:
            size = images[label.image_id].size if label.image_id in images else None
            if label.strategy != SLICE or label.id <= newest or size is None:
                continue
            mask = hide_removed(self._store.image_mask(size, [label]), project)
            loader = self._loader(images[label.image_id])
            matrix = evaluate(segmenter, [LabelledImage(loader, mask, (label.region,))])
            if matrix.any():
                matrices.append(matrix)
        if matrices:
            scores = measured(np.stack(matrices), self._config.ranking.seed)
            self._store.change_version(version.id, metrics={"random_slice": scores})

    def _judge(
        self,
        project: Project,
        parent: Version | None,
        in_use: Segmenter,
        candidate: Segmenter,
        split: LabelledSplit,
        metrics: dict[str, Any],
    ) -> bool:
        """The promotion gate: is the candidate not worse on the held-out labelled regions?"""
        if not split.validation:
            return True
        confusion = evaluate(candidate, split.validation)
        metrics["validation_miou"] = _number(mean_iou(confusion))
        metrics["validation_iou"] = {
            name: _number(value)
            for name, value in zip(project.class_names, ious(confusion), strict=False)
        }
        if parent is None or parent.weights_key is None:
            return True
        before = _number(mean_iou(evaluate(in_use, split.validation)))
        metrics["validation_miou_before"] = before
        after = metrics["validation_miou"]
        if before is None or after is None:
            return True
        if split.num_validation_regions < MIN_VALIDATION_REGIONS:
            return True
        return bool(after >= before - self._config.promotion_tolerance)

    def _store_version(
        self,
        project: Project,
        parent: Version | None,
        candidate: Segmenter,
        number: int,
        num_labels: int,
        is_accepted: bool,
        metrics: dict[str, Any],
        watermark: int,
    ) -> Version:
        key = f"versions/{project.id}/{number}.safetensors"
        path = self._store.blobs.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        candidate.save(path, {"classes": list(project.class_names), "version": f"v{number}"})
        version = Version(
            project_id=project.id,
            number=number,
            parent=parent.number if parent else None,
            is_accepted=is_accepted,
            num_labels=num_labels,
            metrics=metrics,
            weights_key=key,
            created_at=now(),
        )
        project_values: dict[str, Any] = {
            "trained_label_id": watermark,
            "is_training_requested": False,
        }
        if is_accepted:
            project_values["current_version"] = number
        stored = self._store.add_version(version, **project_values)
        _log_version(project, stored)
        return stored


def _progress_values(number: int, progress: TrainingProgress) -> dict[str, Any]:
    return {
        "state": "training",
        "training_version": f"v{number}",
        "epoch": progress.epoch,
        "step": progress.step,
        "steps": progress.steps,
        "loss": round(progress.loss, 4),
        "percent": round(progress.percent, 1),
        "expected_end": (now() + timedelta(seconds=progress.seconds_left)).isoformat(
            timespec="seconds"
        ),
    }


def _log_version(project: Project, version: Version) -> None:
    miou = version.metrics.get("validation_miou")
    logger.info(
        "project %s: %s trained on %d regions in %.0f s, validation mIoU %s: %s",
        project.uid,
        version.name,
        version.metrics["training_regions"],
        version.metrics["seconds"]["train"],
        "unknown (no held-out image yet)" if miou is None else f"{miou:.3f}",
        "in use"
        if version.is_accepted
        else f"not used, {version.metrics['validation_miou_before']:.3f} before",
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
