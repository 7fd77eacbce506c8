"""Labelled regions -> the next version of the segmenter, if it passes the promotion gate."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from ralis_backend.core.learning.crops import LabelledImage, NothingReadable
from ralis_backend.core.learning.evaluation import evaluate, evaluate_each
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.loop import TrainingProgress, TrainingSummary
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.advice import held_out_metrics
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.random_slice import measured
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.promotion import is_promoted, validation_metrics
from ralis_backend.online.worker.training_plan import ImageLabels, plan_training
from ralis_backend.online.worker.weights import usable_segmenter

logger = logging.getLogger(__name__)


SEEDS_APART = 1_000_003
"""Between two attempts: further than versions are ever apart."""
_NOTHING_PAINTED = (
    "no labelled region has a painted pixel; paint the regions, or name the class of unpainted "
    "pixels with `ralis connect --project N --background NAME`"
)


class Stopped(Exception):
    """The worker was asked to stop, or lost its lease: the step begins anew later."""


class Trainer:
    """Trains one project's segmenter from what is labelled now."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._lost: dict[int, frozenset[int]] = {}  # labels, by project, when it gave up

    def train(
        self,
        project: Project,
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        attempt: int = 1,
    ) -> Version | None:
        """Fit, evaluate, and store the next version; None if nothing painted can be learned from.

        An image or a label that cannot be read is left out; the version says which.

        Args:
            project: whose labels are used.
            report: takes the progress for log and `/job_status`.
            should_stop: asked at each step.
            attempt: which one with these labels; each has a seed of its own.

        Raises:
            FloatingPointError: if the loss is not finite; another seed may help.
            Stopped: if it was asked to stop; nothing is stored then.
        """
        started = time.monotonic()
        newest_label_id = self._store.labels.newest_id(project.id)
        usable = usable_segmenter(
            self._store,
            project,
            self._store.versions.find(project.id, project.current_version),
            self._config.ranking,
        )
        parent, in_use = usable.version, usable.segmenter
        plan = plan_training(
            self._store.images.of(project.id), self._store.labels.of(project.id), parent, now()
        )
        read = LabelledImages(self._store, self._tool, project)
        if not _is_painted(read.masks, plan.training):
            self._give_up(project, newest_label_id, read, _NOTHING_PAINTED)
            return None
        candidate = in_use.copy()
        if parent is not None:
            self._measure(project, parent, in_use, read.of(plan.unseen))
        number = self._store.versions.next_number(project.id)
        try:
            training = read.of(plan.training)
            summary = self._fit(project, candidate, training, number, report, should_stop, attempt)
        except NothingReadable as error:
            self._give_up(project, newest_label_id, read, str(error))
            return None
        held_out = self._compare(parent, in_use, candidate, read.of(plan.validation))
        before, after = (None if each is None else each.sum(axis=0) for each in held_out)
        num_held_out = read.num_regions(plan.validation)
        tolerance = self._config.promotion_tolerance
        left_out = [*plan.left_out, *read.left_out()]
        version = Version(
            project_id=project.id,
            number=number,
            parent=parent.number if parent else None,
            is_accepted=is_promoted(
                before, after, num_held_out, tolerance, project.background_class
            ),
            num_labels=plan.num_labels,
            metrics={
                "steps": summary.steps,
                "final_loss": summary.final_loss,
                "training_regions": read.num_regions(plan.training),
                "validation_regions": num_held_out,
                "newest_label_id": newest_label_id,
                **validation_metrics(before, after, project.class_names, project.background_class),
                **held_out_metrics(*held_out, self._config.ranking.seed, project.background_class),
                **_class_regions(read.masks, plan.validation, project.class_names),
                "seconds": {"train": round(time.monotonic() - started, 2)},
                **({"left_out": left_out} if left_out else {}),
            },
        )
        return self._keep(project, version, candidate)

    def _fit(
        self,
        project: Project,
        segmenter: Segmenter,
        images: Sequence[LabelledImage],
        number: int,
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        attempt: int,
    ) -> TrainingSummary:
        """Train the segmenter in place, as version `number`."""
        summary = finetune(
            segmenter,
            images,
            self._config.finetune,
            seed=self._config.ranking.seed + number + (attempt - 1) * SEEDS_APART,
            on_progress=lambda progress: report(_progress_values(number, progress)),
            should_stop=should_stop,
        )
        if should_stop():
            raise Stopped(f"training of project {project.tool_id} was interrupted")
        return summary

    def _compare(
        self,
        parent: Version | None,
        in_use: Segmenter,
        candidate: Segmenter,
        validation: Sequence[LabelledImage],
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(N, C, C) confusion matrices of both on the images that are held out.

        None of one that has learned nothing; of both where nothing that can be read is held out.
        """
        has_learned = parent is not None and parent.weights_key is not None
        segmenters = [in_use, candidate] if has_learned else [candidate]
        each = np.array([evaluate_each(segmenters, [image]) for image in validation])
        seen = [matrices for matrices in each if matrices[-1].any()]  # else it cannot be read
        if not seen:
            return None, None
        matrices = np.stack(seen, axis=1)  # (1 or 2, N, C, C)
        return (matrices[0] if has_learned else None), matrices[-1]

    def _give_up(
        self, project: Project, newest_label_id: int, read: LabelledImages, why: str
    ) -> None:
        """The loop goes on; where masks were lost, training is tried again after their reading."""
        lost = frozenset(read.masks.lost)
        is_first_time = bool(lost) and lost != self._lost.get(project.id)
        self._lost[project.id] = lost
        self._store.projects.change(
            project.id, trained_label_id=newest_label_id, is_training_requested=is_first_time
        )
        logger.warning("project %s: nothing to learn from, %s", project.tool_id, why)

    def _measure(
        self,
        project: Project,
        version: Version,
        segmenter: Segmenter,
        unseen: Sequence[LabelledImage],
    ) -> None:
        """Score a version on regions of the random slice that are new to it."""
        matrices = [evaluate(segmenter, [image]) for image in unseen]
        matrices = [matrix for matrix in matrices if matrix.any()]
        if matrices:
            seed = self._config.ranking.seed
            scores = measured(np.stack(matrices), seed, project.background_class)
            self._store.versions.change(version.id, metrics={"random_slice": scores})

    def _keep(self, project: Project, version: Version, segmenter: Segmenter) -> Version:
        """Store weights and row; the version is in use from now on if it was accepted."""
        # A name of its own: a worker that has lost its lease must not write over these.
        name = f"{version.number}-{secrets.token_hex(4)}"
        version.weights_key = f"versions/{project.id}/{name}.safetensors"
        version.created_at = now()
        path = self._store.blobs.path(version.weights_key)
        path.parent.mkdir(parents=True, exist_ok=True)
        segmenter.save(path, {"classes": list(project.class_names), "version": version.name})
        project_values: dict[str, Any] = {
            "trained_label_id": version.metrics["newest_label_id"],
            "is_training_requested": False,
        }
        if version.is_accepted:
            project_values["current_version"] = version.number
        stored = self._store.versions.add(version, **project_values)
        _log_version(project, stored)
        return stored


def _class_regions(
    masks: LabelMasks, parts: Sequence[ImageLabels], class_names: Sequence[str]
) -> dict[str, Any]:
    """In how many held-out regions each class was painted."""
    pixels = [masks.pixels(label) for part in parts for label in masks.readable(part.labels)]
    if not pixels:
        return {}
    counts = {
        name: sum(1 for each in pixels if index < len(each) and each[index])
        for index, name in enumerate(class_names)
    }
    return {"validation_class_regions": counts}


def _is_painted(masks: LabelMasks, parts: Sequence[ImageLabels]) -> bool:
    return any(any(masks.pixels(label)) for part in parts for label in part.labels)


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
    metrics = version.metrics
    kind = "" if metrics.get("validation_foreground_miou") is None else "foreground_"
    miou, before = (metrics.get(f"validation_{kind}miou{when}") for when in ("", "_before"))
    logger.info(
        "project %s: %s trained on %d regions in %.0f s, validation %s %s: %s",
        project.tool_id,
        version.name,
        version.metrics["training_regions"],
        version.metrics["seconds"]["train"],
        "mIoU without background" if kind else "mIoU",
        "unknown (no held-out image yet)" if miou is None else f"{miou:.3f}",
        "in use" if version.is_accepted else f"not used, {before:.3f} before",
    )
