"""The version in use -> the best that its labels give, from another process than the worker.

Training takes minutes, and the worker goes on meanwhile: the project's lease is held only to read
what is new, and to store what was made. What is stored is compared with the version in use before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ralis_backend.core.learning.continuing import (
    ContinuedTraining,
    Converged,
    train_until_converged,
)
from ralis_backend.core.learning.course import Course
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.advice import FEW_IMAGES, gain_over, held_out_score
from ralis_backend.online.further import ALL_LABELS, NOT_IN_USE, Further
from ralis_backend.online.learned import learned_metrics, region_metrics
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import ImageUnreachable, Tool, ToolTask, ToolUnavailable
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.new_version import ContinuedWork, NewVersions, compare
from ralis_backend.online.worker.promotion import MIN_VALIDATION_REGIONS, can_be_judged
from ralis_backend.online.worker.stretch import Basis
from ralis_backend.online.worker.training_plan import TrainingPlan, plan_training
from ralis_backend.online.worker.visit import Visit, visiting

WAIT_S = 600.0
"""For the end of the worker's step; then the lease is taken from it."""
BY_COMMAND = "a command has trained it to the end"
PAUSES_S = (5.0, 15.0, 45.0)
"""Before what could not be read is tried again, where giving up would cost what was learned."""
PATIENCE_S = 600.0
"""For which a training waits for images in all: some hosts never come back."""


@dataclass(frozen=True)
class Ending:
    """What came of it.

    start: the version that it went on from.
    version: the version in use afterwards, or what was trained where its metrics say why it is not.
    is_better: whether that is what was trained.
    best_updates: after how many more updates it was best; 0: it had converged before.
    is_stopped: whether it ended before it had converged.
    for_all: the version that has learned from all labels, if it was asked for and not stopped.
    """

    start: Version
    version: Version
    is_better: bool
    best_updates: int
    is_stopped: bool = False
    for_all: Version | None = None

    @property
    def to_export(self) -> Version:
        """The version that knows most."""
        return self.for_all or self.version


@dataclass(frozen=True)
class _Lesson:
    version: Version
    in_use: Segmenter
    plan: TrainingPlan
    read: LabelledImages
    basis: Basis

    @property
    def newest_label_id(self) -> int:
        return self.basis.newest_label_id


@dataclass(frozen=True)
class _Compared:
    """What was trained, beside what is in use.

    project: as it was then.
    in_use: its version in use then.
    segmenter: what was trained, with the classes of the project.
    matrices: (2, N, C, C) confusion matrices of both; None: nothing was gained, or nobody can tell.
    read: what of the labels could be read for that.
    untold: why it cannot be told which is better; None: it can.
    """

    project: Project
    in_use: Version
    segmenter: Segmenter
    matrices: np.ndarray | None
    read: LabelledImages
    untold: str | None = None

    def is_of(self, project: Project) -> bool:
        """Whether neither the version in use nor the classes are others now."""
        then = self.project
        return (then.current_version, then.class_names) == (
            project.current_version,
            project.class_names,
        )


class ToTheEnd:
    """Trains one project's version in use until it has converged.

    Args:
        store: not guarded.
        tool: the labelling tool, for images.
        config: how the worker trains.
    """

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store, self._tool, self._config = store, _Patient(tool), config

    def train(
        self,
        project: Project,
        *,
        has_all_labels: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        on_look: Callable[[Course, float], object] = lambda course, score: None,
    ) -> Ending:
        """Go on until what is held out gains no more; then, if asked to, once more on all labels.

        What is better, and passes the gate, is in use from then on. What has learned from all
        labels never is: nothing would be left to judge it, and all that come after it, by.

        Args:
            project: whose version in use it goes on from.
            has_all_labels: whether another version learns from all labels, for as many updates as
                were best, at least as many as a round makes of what was held out.
            should_stop: asked before each update; the best so far is kept then.
            on_look: told where it stands after each look, and that look's score.

        Raises:
            ValueError: if there is no version yet, or too little that can be read is held out to
                stop by.
            FloatingPointError: if the loss is not finite.
        """
        started = time.monotonic()
        lesson = self._lesson(project)
        background, seed = project.background_class, self._config.ranking.seed

        is_begun, num_read = False, 0

        def score(matrix: np.ndarray) -> float:
            nonlocal is_begun, num_read
            if not is_begun:  # later it would cost what was learned
                self._require_readable(project, lesson)
                is_begun = self._tool.is_patient = True
                num_read = lesson.read.num_regions(lesson.plan.validation)
            return held_out_score(matrix[np.newaxis], background)

        end = train_until_converged(
            lesson.in_use,
            lesson.read.of(lesson.plan.learned_from),
            lesson.read.of(lesson.plan.validation),
            self._config.finetune,
            self._config.continuing,
            score,
            seed=seed + lesson.version.number,
            besides=lesson.plan.besides,
            removed_classes=project.removed_classes,
            should_stop=should_stop,
            on_look=on_look,
        )
        seconds, best_updates = time.monotonic() - started, end.course.best_updates
        if lesson.read.num_regions(lesson.plan.validation) < num_read:
            end = replace(end, is_stopped=True)  # the last looks saw less: that is no convergence
        version, is_better = self._keep(project, lesson, end, seconds)
        for_all = None
        if has_all_labels and not end.is_stopped:
            for_all = self._on_all(project, lesson, best_updates, should_stop)
        is_stopped = end.is_stopped or (has_all_labels and for_all is None)
        return Ending(lesson.version, version, is_better, best_updates, is_stopped, for_all)

    def _lesson(self, project: Project) -> _Lesson:
        """What it goes on from, and what is labelled now."""
        version = self._store.versions.find(project.id, project.current_version)
        if version is None or version.weights_key is None:
            raise ValueError(
                f"project {project.tool_id} has no trained version yet; label some regions first"
            )
        basis = Basis.of(self._store, project)
        images, labels = self._store.images.of(project.id), self._store.labels.of(project.id)
        plan = plan_training(images, labels, version, now(), self._config.learner)
        read = LabelledImages(self._store, self._tool, project)
        num_regions = read.num_regions(plan.validation)
        if not can_be_judged(num_regions, len(plan.validation)):
            raise ValueError(
                f"project {project.tool_id} holds out {num_regions} labelled regions in "
                f"{len(plan.validation)} images, expected at least {MIN_VALIDATION_REGIONS} in "
                f"{FEW_IMAGES}, to tell when to stop: label more images, every fifth is held out"
                + _unreadable(plan.left_out)
            )
        return _Lesson(version, self._segmenter(project, version), plan, read, basis)

    def _require_readable(self, project: Project, lesson: _Lesson) -> None:
        """Raise `ValueError` if too much of what is held out has turned out to be unreadable."""
        held_out, read = lesson.plan.validation, lesson.read
        readable = read.readable(held_out)
        num_regions = read.num_regions(readable)
        if not can_be_judged(num_regions, len(readable)):
            raise ValueError(
                f"of the {len(held_out)} images that project {project.tool_id} holds out "
                f"{len(readable)} can be read, with {num_regions} labelled regions, expected at "
                f"least {FEW_IMAGES} with {MIN_VALIDATION_REGIONS}, to tell when to stop"
                + _unreadable(read.left_out())
            )

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
    ) -> tuple[Version, bool]:
        """Put it in use, if it is better than what is in use now.

        Returns:
            The version in use then, and whether it is what was trained.
        """
        compared = self._compared(self._store, project, lesson, end)
        for pause_s in PAUSES_S:
            if compared.untold is None:
                break
            time.sleep(pause_s)
            compared = self._compared(self._store, project, lesson, end)
        with self._visit(project) as visit:
            if not compared.is_of(visit.store.projects.by_id(project.id)):
                compared = self._compared(visit.store, project, lesson, end)
            is_as_before = compared.in_use.id == lesson.version.id
            ended = None if end.is_stopped or compared.untold else BY_COMMAND
            note = Further(
                lesson.newest_label_id, ended=ended, basis=lesson.basis.digest
            ).as_metrics()
            work = ContinuedWork(
                lesson.plan,
                compared.read.through(visit.store),
                lesson.newest_label_id,
                end.course.best_updates,
                seconds,
                end.facts,
            )
            if compared.untold is not None:
                return self._kept_aside(visit.store, lesson, work, compared), False
            version = self._better(visit.store, lesson, work, compared)
            if version is None:
                if is_as_before and ended:
                    visit.store.versions.change(compared.in_use.id, metrics=note)
                return compared.in_use, False
            version.metrics = {**version.metrics, **note}
            return self._replace(visit.store, lesson, work, compared, version), True

    def _compared(
        self, store: Store, project: Project, lesson: _Lesson, end: Converged
    ) -> _Compared:
        """What was trained and what is in use now, on what is held out; takes as long as a look."""
        project = store.projects.by_id(project.id)
        in_use = store.versions.find(project.id, project.current_version)
        if in_use is None:
            raise ValueError(f"project {project.tool_id} has no version in use any more")
        segmenter, parts = _with_classes(end.segmenter, project), lesson.plan.validation
        read = LabelledImages(store, self._tool, project)  # afresh: what failed may be there again
        if not end.course.best_updates:
            return _Compared(project, in_use, segmenter, None, read)
        matrices = compare([self._segmenter(project, in_use), segmenter], read.of(parts))
        num_images = 0 if matrices is None else matrices.shape[1]
        if matrices is not None and can_be_judged(read.num_regions(parts), num_images):
            return _Compared(project, in_use, segmenter, matrices, read)
        why = (
            f"of the {len(parts)} images that are held out {num_images} could be read when it was "
            "to be compared" + _unreadable(read.left_out())
        )
        return _Compared(project, in_use, segmenter, None, read, why)

    def _kept_aside(
        self, store: Store, lesson: _Lesson, work: ContinuedWork, compared: _Compared
    ) -> Version:
        """What was trained as a version that is not in use, since nothing could judge it."""
        project, plan = compared.project, lesson.plan
        version = Version(
            project_id=project.id,
            number=store.versions.next_number(project.id),
            parent=lesson.version.number,
            is_accepted=False,
            num_labels=plan.num_labels,
            metrics={
                "steps": work.updates,
                "training_regions": lesson.read.num_regions(plan.training),
                **learned_metrics(lesson.version, lesson.read.class_pixels(plan.training)),
                **work.facts,
                **region_metrics(
                    store, project, lesson.version, lesson.newest_label_id, plan.num_labels
                ),
                "seconds": {"train": round(work.seconds, 2)},
                NOT_IN_USE: compared.untold,
            },
        )
        return NewVersions(store, self._config).keep(
            project, version, compared.segmenter, instead_of=lesson.version.number
        )

    def _better(
        self, store: Store, lesson: _Lesson, work: ContinuedWork, compared: _Compared
    ) -> Version | None:
        """The version to put in use; None if what is in use stays.

        One that has come into use meanwhile may know more labels: it stays unless what was trained
        is better.
        """
        if compared.matrices is None:
            return None
        project, seed = compared.project, self._config.ranking.seed
        before, after = compared.matrices
        if compared.in_use.id != lesson.version.id:
            gain, _ = gain_over(before, after, seed, project.background_class)
            if gain <= 0:
                return None
        versions = NewVersions(store, self._config)
        return versions.continued(project, lesson.version, work, before, after)

    def _replace(
        self,
        store: Store,
        lesson: _Lesson,
        work: ContinuedWork,
        compared: _Compared,
        version: Version,
    ) -> Version:
        """Store the version, and put it in use."""
        project, versions = compared.project, NewVersions(store, self._config)
        if compared.in_use.id == lesson.version.id:
            unseen = work.read.of(lesson.plan.unseen)
            versions.measure(project, compared.in_use, lesson.in_use, unseen)
        # Where somebody went back behind what was trained on, that stays so.
        newer = max(compared.in_use.number, lesson.version.number)
        values = {}
        if compared.in_use.number > lesson.version.number:
            # Labels that only the version before has learned count as new again.
            values["trained_label_id"] = min(project.trained_label_id, lesson.newest_label_id)
        return versions.keep(project, version, compared.segmenter, instead_of=newer, **values)

    def _on_all(
        self,
        project: Project,
        lesson: _Lesson,
        best_updates: int,
        should_stop: Callable[[], bool],
    ) -> Version | None:
        """A version that has learned from what is held out as well, for export alone.

        None if it was asked to stop.
        """
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
        training.learn_from(
            read.of([*every, *plan.unlabelled]), plan.besides, project.removed_classes
        )
        if not training.advance(updates, should_stop):
            return None
        with self._visit(project) as visit:
            project = visit.store.projects.by_id(project.id)  # as it is under the lease
            segmenter = _with_classes(training.candidate, project)
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
                    **learned_metrics(lesson.version, read.class_pixels(every)),
                    "newest_label_id": lesson.newest_label_id,
                    "seconds": {"train": round(time.monotonic() - started, 2)},
                },
            )
            return NewVersions(visit.store, config).keep(
                project, version, segmenter, instead_of=lesson.version.number
            )

    @contextmanager
    def _visit(self, project: Project) -> Iterator[Visit]:
        with visiting(self._store, project.id, wait_s=WAIT_S, takes_over=True) as visit:
            if visit is None:
                raise ValueError(f"project {project.tool_id} is held by another command")
            yield visit


class _Patient:
    """The images of a tool; once it is patient, one that does not answer is waited for.

    After that its images count as ones that cannot be read: a training goes on with the others.
    So do those of a host that does not deliver them, which are waited for `PATIENCE_S` in all.
    """

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self._pauses_s: tuple[float, ...] = PAUSES_S
        self._patience_s = PATIENCE_S
        self.is_patient = False

    def image(self, task: ToolTask) -> bytes:
        """The file of one task."""
        if not self.is_patient:
            return self._tool.image(task)
        for pause_s in (*self._pauses_s, None):
            try:
                found = self._tool.image(task)
            except (ToolUnavailable, ImageUnreachable) as error:
                if pause_s is None:
                    self._pauses_s = ()  # it was waited for, until it answers again
                    if isinstance(error, ImageUnreachable):
                        raise
                    raise ValueError(str(error)) from error
                if isinstance(error, ImageUnreachable):
                    if self._patience_s < pause_s:
                        raise
                    self._patience_s -= pause_s
                time.sleep(pause_s)
            else:
                self._pauses_s = PAUSES_S
                return found
        raise AssertionError("unreachable")


def _with_classes(segmenter: Segmenter, project: Project) -> Segmenter:
    """With the classes that the project has now: some may have come since the training began."""
    num_classes = len(project.classes)
    return segmenter if segmenter.num_classes == num_classes else segmenter.resized(num_classes)


def _unreadable(left_out: Sequence[str]) -> str:
    """What people should restore, as the end of a message."""
    return f"; what could not be read: {'; '.join(left_out)}" if left_out else ""
