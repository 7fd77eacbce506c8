"""Labelled regions -> the next version of the segmenter, if it passes the promotion gate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from ralis_backend.core.learning.crops import LabelledImage, NothingReadable
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.loop import TrainingProgress, TrainingSummary
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.new_version import NewVersions, compare
from ralis_backend.online.worker.training_plan import ImageLabels, plan_training
from ralis_backend.online.worker.weights import usable_segmenter

logger = logging.getLogger(__name__)


SEEDS_APART = 1_000_003
"""Between two attempts: further than versions are ever apart."""
_NOTHING_PAINTED = (
    "no labelled region has a painted pixel; paint the regions, or name the class of unpainted "
    "pixels with `ralis connect --background NAME`"
)


class Stopped(Exception):
    """The worker was asked to stop, or lost its lease: the step begins anew later."""


class Trainer:
    """Trains one project's segmenter from what is labelled now."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._versions = NewVersions(store, config)
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
        if not is_painted(read.masks, plan.training):
            self._give_up(project, newest_label_id, read, _NOTHING_PAINTED)
            return None
        candidate = in_use.copy()
        if parent is not None:
            self._versions.measure(project, parent, in_use, read.of(plan.unseen))
        number = self._store.versions.next_number(project.id)
        try:
            training = read.of(plan.training)
            summary = self._fit(project, candidate, training, number, report, should_stop, attempt)
        except NothingReadable as error:
            self._give_up(project, newest_label_id, read, str(error))
            return None
        before, after = self._compare(parent, in_use, candidate, read.of(plan.validation))
        is_accepted, metrics = self._versions.judge(project, plan, read, before, after)
        version = Version(
            project_id=project.id,
            number=number,
            parent=parent.number if parent else None,
            is_accepted=is_accepted,
            num_labels=plan.num_labels,
            metrics={
                "steps": summary.steps,
                "final_loss": summary.final_loss,
                "newest_label_id": newest_label_id,
                **metrics,
                "seconds": {"train": round(time.monotonic() - started, 2)},
            },
        )
        return self._versions.keep(
            project,
            version,
            candidate,
            trained_label_id=newest_label_id,
            is_training_requested=False,
        )

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
        matrices = compare([in_use, candidate] if has_learned else [candidate], validation)
        if matrices is None:
            return None, None
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


def is_painted(masks: LabelMasks, parts: Sequence[ImageLabels]) -> bool:
    """Whether any of these labels holds a painted pixel."""
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
