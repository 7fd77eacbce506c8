"""Labelled regions -> the next version of the segmenter, if it passes the promotion gate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np

from ralis_backend.core.learning.crops import LabelledImage, NothingReadable
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.loop import TrainingProgress, TrainingSummary
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.advice import held_out_score
from ralis_backend.online.further import NOT_IN_USE
from ralis_backend.online.learned import region_metrics
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.paint_alone import PAINT_ALONE, kept_off, left_off
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.attempts import REQUEST
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.new_version import NewVersions, compare
from ralis_backend.online.worker.promotion import MIN_VALIDATION_REGIONS, can_judge
from ralis_backend.online.worker.training_plan import (
    ImageLabels,
    TrainingPlan,
    plan_training,
)
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


@dataclass(frozen=True)
class _Lesson:
    """What the trials of one training have in common."""

    project: Project
    parent: Version | None
    in_use: Segmenter
    read: LabelledImages
    number: int
    seed: int
    report: Callable[[dict[str, Any]], None]
    should_stop: Callable[[], bool]


@dataclass(frozen=True)
class _Trial:
    """A trained candidate, and what the gate says of it.

    score: on what is held out, in [0, 1]; None where nothing is.
    before, after: (N, C, C) confusion matrices of the version in use and of the candidate on that;
        None as in `_compare`.
    """

    candidate: Segmenter
    summary: TrainingSummary
    is_accepted: bool
    metrics: dict[str, Any]
    score: float | None
    before: np.ndarray | None
    after: np.ndarray | None


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

        An image or a label that cannot be read is left out; the version says which. Where so little
        of what is held out can be read that nothing judges the version, it is not in use.

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
            is_training=True,
        )
        parent, in_use = usable.version, usable.segmenter
        images, labels = self._store.images.of(project.id), self._store.labels.of(project.id)
        plan = plan_training(images, labels, parent, now(), self._config.learner)
        read = LabelledImages(self._store, self._tool, project)
        if not is_painted(read.masks, plan.training):
            self._give_up(project, newest_label_id, read, _NOTHING_PAINTED)
            return None
        if parent is not None:
            self._versions.measure(project, parent, in_use, read.of(plan.unseen))
        number = self._store.versions.next_number(project.id)
        seed = self._config.ranking.seed + number + (attempt - 1) * SEEDS_APART
        lesson = _Lesson(project, parent, in_use, read, number, seed, report, should_stop)
        try:
            trial = self._better_trial(lesson, plan)
        except NothingReadable as error:
            # Whoever asked gets this training once they can be read, though one before read them.
            self._store.images.note_trained({each.image.id for each in plan.training}, 0)
            self._give_up(project, newest_label_id, read, str(error))
            return None
        if parent is not None:
            self._versions.catch_up(project, parent, plan, read, trial.before)
        version = Version(
            project_id=project.id,
            number=number,
            parent=parent.number if parent else None,
            is_accepted=trial.is_accepted,
            num_labels=plan.num_labels,
            metrics={
                "steps": trial.summary.steps,
                "final_loss": trial.summary.final_loss,
                **region_metrics(self._store, project, parent, newest_label_id, plan.num_labels),
                **trial.metrics,
                "seconds": {"train": round(time.monotonic() - started, 2)},
            },
        )
        self._versions.tell_gain_of_round(project, version, plan, read, trial.after)
        stored = self._versions.keep(
            project,
            version,
            trial.candidate,
            instead_of=parent.number if parent else 0,
            ends=REQUEST,
            trained_label_id=newest_label_id,
        )
        # Only now: a kill before the version is kept must not lose that an image was left out.
        seen = read.readable([*plan.training, *plan.validation])
        self._store.images.note_trained({each.image.id for each in seen}, newest_label_id)
        return stored

    def _better_trial(self, lesson: _Lesson, plan: TrainingPlan) -> _Trial:
        """As planned; from paint alone where the gate refuses what the rest made of it."""
        if plan.not_yet:
            logger.info("project %s: from paint alone: %s", lesson.project.tool_id, plan.not_yet)
        first = self._trial(lesson, plan)
        num_held_out = lesson.read.num_regions(plan.validation)
        if plan.besides and first.is_accepted and not can_judge(num_held_out):
            return self._unmeasured(lesson, plan, num_held_out)
        if first.is_accepted or not plan.besides or NOT_IN_USE in first.metrics:
            return first
        second = self._trial(lesson, plan.from_paint_alone())
        with_it, without = first.score, second.score
        if with_it is None or without is None or without <= with_it:
            return first
        note = left_off(plan.besides, plan.num_labels, with_it, without)
        logger.warning("project %s: %s", lesson.project.tool_id, note[PAINT_ALONE]["why"])
        second.metrics.update(note)
        if lesson.parent is not None and not second.is_accepted:  # the next plan reads it there
            self._store.versions.change(lesson.parent.id, metrics=note)
        return second

    def _unmeasured(self, lesson: _Lesson, plan: TrainingPlan, num_held_out: int) -> _Trial:
        """From paint alone: it passes, and nobody could tell whether the rest did harm."""
        why = (
            f"{num_held_out} labelled regions of those that are held out could be read in the end, "
            f"expected at least {MIN_VALIDATION_REGIONS} to tell whether more does harm"
        )
        logger.warning("project %s: from paint alone: %s", lesson.project.tool_id, why)
        return self._trial(lesson, replace(plan.from_paint_alone(), not_yet=why))

    def _trial(self, lesson: _Lesson, plan: TrainingPlan) -> _Trial:
        """Train a candidate, and have it judged."""
        read, parent, background = lesson.read, lesson.parent, lesson.project.background_class
        candidate = lesson.in_use.copy()
        summary = self._fit(lesson, candidate, plan)
        before, after = self._compare(parent, lesson.in_use, candidate, read.of(plan.validation))
        project, judge = lesson.project, self._versions.judge
        is_accepted, metrics = judge(project, parent, plan, read, before, after)
        score = None if after is None else held_out_score(after, background)
        metrics |= summary.facts
        metrics |= kept_off(None if parent is None else parent.metrics, plan.besides)
        return _Trial(candidate, summary, is_accepted, metrics, score, before, after)

    def _fit(self, lesson: _Lesson, segmenter: Segmenter, plan: TrainingPlan) -> TrainingSummary:
        """Train the segmenter in place."""
        summary = finetune(
            segmenter,
            lesson.read.of(plan.learned_from),
            self._config.finetune,
            seed=lesson.seed,
            besides=plan.besides,
            removed_classes=lesson.project.removed_classes,
            on_progress=lambda progress: lesson.report(_progress_values(lesson.number, progress)),
            should_stop=lesson.should_stop,
        )
        if lesson.should_stop():
            raise Stopped(f"training of project {lesson.project.tool_id} was interrupted")
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
        asked = {"is_training_requested": True} if is_first_time else {}
        self._store.projects.change(project.id, trained_label_id=newest_label_id, **asked)
        logger.warning("project %s: nothing to learn from, %s", project.tool_id, why)


def is_painted(masks: LabelMasks, parts: Sequence[ImageLabels]) -> bool:
    """Whether any of these labels holds a painted pixel."""
    return any(any(masks.pixels(label)) for part in parts for label in part.labels)


def _progress_values(number: int, progress: TrainingProgress) -> dict[str, Any]:
    return {
        "state": "training",
        "training_version": f"v{number}",
        "epoch": round(progress.epoch, 2),
        "step": progress.step,
        "steps": progress.steps,
        "loss": round(progress.loss, 4),
        "percent": round(progress.percent, 1),
        "expected_end": (now() + timedelta(seconds=progress.seconds_left)).isoformat(
            timespec="seconds"
        ),
    }
