"""The version in use -> the best that its labels give, from another process than the worker.

Training takes minutes, and the worker goes on meanwhile: the project's lease is held only to read
what is new, and to store what was made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ralis_backend.core.learning.continuing import (
    ContinuedTraining,
    Converged,
    train_until_converged,
)
from ralis_backend.core.learning.course import Course
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.advice import FEW_IMAGES, held_out_score
from ralis_backend.online.further import ALL_LABELS, Further
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.new_version import ContinuedWork, NewVersions, compare
from ralis_backend.online.worker.promotion import MIN_VALIDATION_REGIONS, can_be_judged
from ralis_backend.online.worker.training_plan import TrainingPlan, plan_training
from ralis_backend.online.worker.visit import Visit, visiting

WAIT_S = 600.0
"""For the end of the worker's step; then the lease is taken from it."""
BY_COMMAND = "a command has trained it to the end"


@dataclass(frozen=True)
class Ending:
    """What came of it.

    version: the best; it is in use afterwards, unless its metrics say why not.
    best_updates: after how many more updates it was best; 0: it had converged before.
    for_all: the version that has learned from all labels, if it was asked for.
    """

    version: Version
    best_updates: int
    for_all: Version | None = None


@dataclass(frozen=True)
class _Lesson:
    version: Version
    in_use: Segmenter
    plan: TrainingPlan
    read: LabelledImages
    newest_label_id: int


class ToTheEnd:
    """Trains one project's version in use until it has converged.

    Args:
        store: not guarded.
        tool: the labelling tool, for images.
        config: how the worker trains.
    """

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store, self._tool, self._config = store, tool, config

    def train(
        self,
        project: Project,
        *,
        has_all_labels: bool = False,
        on_look: Callable[[Course, float], object] = lambda course, score: None,
    ) -> Ending:
        """Go on until what is held out gains no more; then, if asked to, once more on all labels.

        What is better, and passes the gate, is in use from then on. What has learned from all
        labels never is: nothing would be left to judge it, and all that come after it, by.

        Args:
            project: whose version in use it goes on from.
            has_all_labels: whether another version learns from all labels, for as many updates as
                were best, at least as many as a round makes of what was held out.
            on_look: told where it stands after each look, and that look's score.

        Raises:
            ValueError: if there is no version yet, or too little is held out to stop by.
            FloatingPointError: if the loss is not finite.
        """
        started = time.monotonic()
        lesson = self._lesson(project)
        background, seed = project.background_class, self._config.ranking.seed
        end = train_until_converged(
            lesson.in_use,
            lesson.read.of(lesson.plan.learned_from),
            lesson.read.of(lesson.plan.validation),
            self._config.finetune,
            self._config.continuing,
            lambda matrix: held_out_score(matrix[np.newaxis], background),
            seed=seed + lesson.version.number,
            besides=lesson.plan.besides,
            on_look=on_look,
        )
        seconds = time.monotonic() - started
        better = self._keep(project, lesson, end, seconds)
        for_all = self._on_all(project, lesson, end.course.best_updates) if has_all_labels else None
        return Ending(better or lesson.version, end.course.best_updates, for_all)

    def _lesson(self, project: Project) -> _Lesson:
        """What it goes on from, and what is labelled now."""
        version = self._store.versions.find(project.id, project.current_version)
        if version is None or version.weights_key is None:
            raise ValueError(
                f"project {project.tool_id} has no trained version yet; label some regions first"
            )
        newest_label_id = self._store.labels.newest_id(project.id)
        images, labels = self._store.images.of(project.id), self._store.labels.of(project.id)
        plan = plan_training(images, labels, version, now(), self._config.learner)
        read = LabelledImages(self._store, self._tool, project)
        num_regions = read.num_regions(plan.validation)
        if not can_be_judged(num_regions, len(plan.validation)):
            raise ValueError(
                f"project {project.tool_id} holds out {num_regions} labelled regions in "
                f"{len(plan.validation)} images, expected at least {MIN_VALIDATION_REGIONS} in "
                f"{FEW_IMAGES}, to tell when to stop: label more images, every fifth is held out"
            )
        return _Lesson(version, self._segmenter(project, version), plan, read, newest_label_id)

    def _segmenter(self, project: Project, version: Version) -> Segmenter:
        ranking = self._config.ranking
        usable = load_segmenter(
            self._store, project, version, ranking.spec, seed=ranking.seed, device=ranking.device
        )
        if usable.damage:
            why = "; ".join(usable.damage.values())
            raise ValueError(f"{version.name} cannot be trained on: {why}")
        return usable.segmenter

    def _keep(
        self, project: Project, lesson: _Lesson, end: Converged, seconds: float
    ) -> Version | None:
        """Put it in use, if it is better than what is in use now; None if it is not."""
        with self._visit(project) as visit:
            versions = NewVersions(visit.store, self._config)
            project = visit.store.projects.by_id(project.id)  # as it is under the lease
            in_use = visit.store.versions.find(project.id, project.current_version)
            if in_use is None:
                raise ValueError(f"project {project.tool_id} has no version in use any more")
            updates, newest = end.course.best_updates, lesson.newest_label_id
            ended = Further(newest, ended=BY_COMMAND).as_metrics()
            work = ContinuedWork(lesson.plan, lesson.read, newest, updates, seconds, end.facts)
            version = None
            if updates:
                segmenters = [self._segmenter(project, in_use), end.segmenter]
                matrices = compare(segmenters, lesson.read.of(lesson.plan.validation))
                if matrices is not None:
                    version = versions.continued(project, lesson.version, work, *matrices)
            if version is None:
                visit.store.versions.change(in_use.id, metrics=ended)
                return None
            if in_use.id == lesson.version.id:
                unseen = lesson.read.of(lesson.plan.unseen)
                versions.measure(project, in_use, lesson.in_use, unseen)
            version.metrics = {**version.metrics, **ended}
            # Where somebody went back behind what was trained on, that stays so.
            newer = max(in_use.number, lesson.version.number)
            return versions.keep(project, version, end.segmenter, instead_of=newer)

    def _on_all(self, project: Project, lesson: _Lesson, best_updates: int) -> Version:
        """A version that has learned from what is held out as well; for export alone."""
        started = time.monotonic()
        config, plan, read = self._config, lesson.plan, lesson.read
        updates = max(best_updates, config.finetune.num_steps(read.num_regions(plan.validation)))
        training = ContinuedTraining(
            lesson.in_use,
            config.finetune,
            config.continuing,
            seed=config.ranking.seed + lesson.version.number,
        )
        every = [*plan.training, *plan.validation]
        training.learn_from(read.of([*every, *plan.unlabelled]), plan.besides)
        training.advance(updates, lambda: False)
        with self._visit(project) as visit:
            version = Version(
                project_id=project.id,
                number=visit.store.versions.next_number(project.id),
                parent=lesson.version.number,
                is_accepted=False,
                num_labels=plan.num_labels,
                metrics={
                    **training.facts(),
                    ALL_LABELS: {"updates": updates},
                    "training_regions": read.num_regions(every),
                    "newest_label_id": lesson.newest_label_id,
                    "seconds": {"train": round(time.monotonic() - started, 2)},
                },
            )
            return NewVersions(visit.store, config).keep(
                project, version, training.candidate, instead_of=lesson.version.number
            )

    @contextmanager
    def _visit(self, project: Project) -> Iterator[Visit]:
        with visiting(self._store, project.id, wait_s=WAIT_S, takes_over=True) as visit:
            if visit is None:
                raise ValueError(f"project {project.tool_id} is held by another command")
            yield visit
