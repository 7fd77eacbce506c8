"""The version in use -> a better one of the same labels, while nothing else is to be done.

A stretch of training ends with a look at what is held out, or within an update or an image of being
asked to stop; the next one goes on from there. What is learned is kept on disk every now and then,
so that a kill costs a minute of it, and before another project takes its place in memory.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ralis_backend.core.learning.continuing import ContinuedTraining, next_look
from ralis_backend.core.learning.course import Course
from ralis_backend.core.learning.crops import NothingReadable
from ralis_backend.core.segmenter import Segmenter, load
from ralis_backend.core.text import reason_of
from ralis_backend.core.weights import WeightsError
from ralis_backend.online.advice import gain_over, held_out_score
from ralis_backend.online.further import CONTINUED, CONVERGED, Further
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.attempts import MOST_ATTEMPTS
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.new_version import ContinuedWork, NewVersions
from ralis_backend.online.worker.promotion import can_be_judged, is_worth_publishing
from ralis_backend.online.worker.stretch import (
    Basis,
    Best,
    Interrupted,
    Lesson,
    Looked,
    Stretch,
    spending,
)
from ralis_backend.online.worker.train import is_painted
from ralis_backend.online.worker.training_plan import TrainingPlan, plan_training
from ralis_backend.online.worker.weights import usable_segmenter

logger = logging.getLogger(__name__)

IMPROVING = "improving"
KEEP_EVERY_S = 60.0
"""What is learned is written to disk this often."""
REST_S = 300.0
"""After a failure, which is nobody's loss."""
_REPORT_EVERY = 10
_GONE_BACK = "somebody went back to this version"


class Improver:
    """Goes on with the training of one project's version in use at a time."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._versions = NewVersions(store, config)
        self._stretch: Stretch | None = None
        self._rests_until: dict[int, float] = {}

    def may_try(self, project: Project) -> bool:
        """Whether it did not fail a short while ago."""
        return time.monotonic() >= self._rests_until.get(project.id, float("-inf"))

    def forget(self) -> None:
        """Give back the memory, for something that needs it; what was learned is kept before."""
        stretch, self._stretch = self._stretch, None
        if stretch is None:
            return
        try:
            if self._is_of_use(stretch):
                self._note_time(stretch)
                self._keep(stretch, stretch.training.candidate, stretch.further)
        except Exception:
            logger.warning("what %s has learned was not kept", stretch.version.name, exc_info=True)

    def improve(
        self,
        project: Project,
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Go on until the next look at what is held out; a better version is in use then.

        A failure is noted in the log, and tried again later: nothing depends on it.

        Args:
            project: whose version in use is trained on.
            report: takes the progress for log and `/job_status`.
            should_stop: asked before each update, and each image.
        """
        version = self._store.versions.find(project.id, project.current_version)
        if version is None or version.weights_key is None:
            return
        newest_label_id = self._store.labels.newest_id(project.id)
        try:
            with self._counted(project, newest_label_id) as number:
                if number > MOST_ATTEMPTS - 1:
                    self._end(version, newest_label_id, f"it ended the worker {number - 1} times")
                else:
                    self._go_on(project, version, newest_label_id, report, should_stop)
        except NothingReadable as error:
            self._rest(project, version, reason_of(error))
        except FloatingPointError as error:
            self._end(version, newest_label_id, reason_of(error))
        except Exception:
            self._rests_until[project.id] = time.monotonic() + REST_S
            logger.warning(
                "project %s: %s is trained on later", project.tool_id, version.name, exc_info=True
            )
            stretch = self._dropped(project.id)
            if stretch is not None:
                self._note_time(stretch)

    def _go_on(
        self,
        project: Project,
        version: Version,
        newest_label_id: int,
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> None:
        if any(it.is_accepted and it.number > version.number for it in self._all(project)):
            self._end(version, newest_label_id, _GONE_BACK)
            return
        stretch = self._stretch_of(project, version)
        if stretch is None:  # another version is in use now; what is due for it comes next
            return
        try:
            lesson = self._lesson(stretch, project, should_stop)
            self._train(stretch, lesson, report, should_stop)
            self._look(stretch, lesson, project, should_stop)
        except Interrupted:
            self._keep_now_and_then(stretch)
        except _CannotReadNow as why:
            self._rest(project, version, str(why))
        except _CannotJudge as why:
            self._end(version, newest_label_id, str(why))

    # Begin

    def _stretch_of(self, project: Project, version: Version) -> Stretch | None:
        """What is in memory, if nobody else has gone on since; else from what was kept on disk.

        None where the weights of the version in use are damaged: another one is in use then.
        """
        known, further = self._stretch, Further.of(version.metrics)
        if (
            known is not None
            and (known.project_id, known.version.id) == (project.id, version.id)
            and known.in_use.num_classes == len(project.classes)
            and known.further.checkpoint == further.checkpoint
        ):
            known.version = version
            return known
        self.forget()
        version = self._store.versions.find(project.id, version.number) or version
        further = Further.of(version.metrics)
        usable = usable_segmenter(self._store, project, version, self._config.ranking)
        if usable.damage:
            return None
        kept = self._kept(project, further.checkpoint)
        best = self._kept(project, further.best_checkpoint)
        if kept is None and further.checkpoint is not None:
            further = replace(further, updates=0, seconds=0.0, checkpoint=None, facts={})
            self._note(version, further)
        if further.checkpoint is None or (best is None and further.best_checkpoint is not None):
            further = replace(further, num_held_out=0)
        training = ContinuedTraining(
            kept or usable.segmenter,
            self._config.finetune,
            self._config.continuing,
            seed=self._config.ranking.seed + version.number,
            updates=further.updates,
            facts=further.facts or (version.metrics if CONTINUED in version.metrics else {}),
        )
        self._stretch = Stretch(project.id, version, usable.segmenter, training, further)
        if best is not None:
            self._stretch.best = Best(best, Looked(), is_kept=True)
        return self._stretch

    def _kept(self, project: Project, key: str | None) -> Segmenter | None:
        """What was kept under a key; None if there is nothing, or it is damaged."""
        if key is None:
            return None
        try:
            path = self._store.blobs.path(key)
            segmenter = load(path, self._config.ranking.device)
        except (WeightsError, FileNotFoundError) as error:
            logger.warning("project %s: training goes on anew: %s", project.tool_id, error)
            return None
        num_classes = len(project.classes)
        return segmenter if segmenter.num_classes == num_classes else segmenter.resized(num_classes)

    def _lesson(
        self,
        stretch: Stretch,
        project: Project,
        should_stop: Callable[[], bool],
    ) -> Lesson:
        """The labels as they are now; `_CannotJudge` if it cannot go on with them.

        What was learned stays; scores on other held-out regions do not compare, and begin anew.
        Those of a training that is taken up again go on.
        """
        basis = Basis.of(self._store, project)
        if stretch.lesson and stretch.lesson.basis == basis:
            return stretch.lesson
        images, labels = self._store.images.of(project.id), self._store.labels.of(project.id)
        plan = plan_training(images, labels, stretch.version, now(), self._config.learner)
        read = LabelledImages(self._store, self._tool, project)
        held_out = read.of(plan.validation)
        before = stretch.before.at(stretch.in_use, plan.validation, held_out, should_stop)
        num_seen = int(before.any(axis=(1, 2)).sum())
        if not can_be_judged(read.num_regions(plan.validation), num_seen):
            raise _because("too little is held out to tell a better version by", plan, read)
        if not is_painted(read.masks, plan.training):
            raise _because("nothing that is learned from is painted", plan, read)
        stretch.training.learn_from(
            read.of(plan.learned_from), plan.besides, project.removed_classes
        )
        is_taken_up, further = stretch.lesson is None, stretch.further
        stretch.lesson = Lesson(plan, read, basis, held_out, before)
        is_same = further.is_of(basis.newest_label_id, basis.digest)
        if not (is_taken_up and is_same and further.num_held_out == num_seen):
            stretch.best = None
            self._begin_course(stretch, project, stretch.lesson)
        return stretch.lesson

    def _begin_course(self, stretch: Stretch, project: Project, lesson: Lesson) -> None:
        """From the score of the version in use on; the time is that of the newest label."""
        score = held_out_score(lesson.before, project.background_class)
        course = Course().seen(score, stretch.training.updates, self._config.continuing)
        further = stretch.further
        basis = lesson.basis.digest
        is_new = not further.is_of(lesson.basis.newest_label_id, basis)
        further = replace(
            further,
            newest_label_id=lesson.basis.newest_label_id,
            basis=basis,
            seconds_on_labels=0.0 if is_new else further.seconds_on_labels,
            ended=None,
            num_held_out=int(lesson.before.any(axis=(1, 2)).sum()),
        )
        stretch.further = _with_course(further, course)

    # Go on

    def _train(
        self,
        stretch: Stretch,
        lesson: Lesson,
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Go on until the next look; `Interrupted` if it was asked to stop before."""
        training, config = stretch.training, self._config
        if stretch.is_at_look:
            return

        def on_update(loss: float) -> None:
            if training.updates % _REPORT_EVERY == 0:
                report(_progress_values(stretch.version, training.updates, loss))

        until = next_look(training.updates, lesson.held_out, config.finetune, config.continuing)
        with spending(stretch):
            stretch.is_at_look = training.advance(until, should_stop, on_update)
        if not stretch.is_at_look:
            raise Interrupted

    def _look(
        self,
        stretch: Stretch,
        lesson: Lesson,
        project: Project,
        should_stop: Callable[[], bool],
    ) -> None:
        """Score the candidate; publish the best one, go on, or end."""
        candidate, rules = stretch.training.candidate, self._config.continuing
        with spending(stretch):
            held_out = lesson.plan.validation
            after = stretch.after.at(candidate, held_out, lesson.held_out, should_stop)
        if (lesson.before.any(axis=(1, 2)) & ~after.any(axis=(1, 2))).any():
            # scores of fewer images do not compare with those before
            raise _because("what is held out cannot be read any more", lesson.plan, lesson.read)
        looked, stretch.is_at_look, stretch.after = stretch.after, False, Looked()
        score = held_out_score(after, project.background_class)
        course = stretch.further.course.seen(score, stretch.training.updates, rules)
        stretch.further = _with_course(stretch.further, course)
        stretch.further = replace(stretch.further, facts=stretch.training.facts())
        if not course.num_looks:  # not by updates: labels that came begin a course at this update
            stretch.best = Best(candidate.copy(), looked)
        if stretch.best is not None:
            best = stretch.best.segmenter
            with spending(stretch):  # none, where it was not taken up again since
                after = stretch.best.looked.at(best, held_out, lesson.held_out, should_stop)
            if self._publish(stretch, lesson, best, after, project):
                return
        if course.has_converged(rules):
            self._keep_best(stretch, CONVERGED)
        else:
            self._keep_now_and_then(stretch)

    def _publish(
        self,
        stretch: Stretch,
        lesson: Lesson,
        segmenter: Segmenter,
        after: np.ndarray,
        project: Project,
    ) -> bool:
        """Put the best candidate in use if it is worth it; whether it was."""
        is_seen = lesson.before.any(axis=(1, 2)) & after.any(axis=(1, 2))
        seen = lesson.before[is_seen], after[is_seen]
        further = stretch.further
        if not is_seen.any() or not self._is_worth_it(stretch, project, *seen):
            return False
        work = ContinuedWork(
            lesson.plan,
            lesson.read,
            lesson.basis.newest_label_id,
            further.best_updates,
            further.seconds,
            stretch.training.facts(),
        )
        version = self._versions.continued(project, stretch.version, work, *seen)
        if version is None:
            return False
        unseen = lesson.read.of(lesson.plan.unseen)
        self._versions.measure(project, stretch.version, stretch.in_use, unseen)
        spent = Further(
            lesson.basis.newest_label_id,
            seconds_on_labels=further.seconds_on_labels,
            basis=lesson.basis.digest,
        )
        version.metrics = {**version.metrics, **spent.as_metrics()}
        stretch.version = self._versions.keep(
            project, version, segmenter, instead_of=stretch.version.number
        )
        # Training does not notice that its best candidate is in use now; it is counted anew.
        stretch.training.count_from(further.best_updates)
        stretch.in_use, stretch.best, stretch.before = segmenter, None, Looked()
        plan = replace(lesson.plan, unseen=())  # the new version has learned from those
        stretch.lesson, stretch.further = replace(lesson, plan=plan, before=after), spent
        self._begin_course(stretch, project, stretch.lesson)
        return True

    def _is_worth_it(
        self, stretch: Stretch, project: Project, before: np.ndarray, after: np.ndarray
    ) -> bool:
        seed = self._config.ranking.seed
        gain, error = gain_over(before, after, seed, project.background_class)
        known = stretch.version.metrics.get("seconds", {})
        disturbance_s = known.get("rank", 0.0) + known.get("publish", 0.0)
        return is_worth_publishing(gain, error, stretch.further.seconds, disturbance_s)

    # Keep

    def _keep_now_and_then(self, stretch: Stretch) -> None:
        """Write what was learned, if enough was since the last time, or the time is used up."""
        further = stretch.further
        is_over = further.is_over(further.newest_label_id, self._config.improve_s)
        if is_over or time.monotonic() - stretch.kept_at >= KEEP_EVERY_S:
            self._keep(stretch, stretch.training.candidate, further)
        if is_over:
            self._stretch = None

    def _keep_best(self, stretch: Stretch, why: str) -> None:
        """It ends here: what follows begins with the best there was, or with the version in use."""
        further = replace(stretch.further, ended=why)
        self._stretch = None
        if stretch.best is None:
            self._note(stretch.version, replace(further, checkpoint=None, best_checkpoint=None))
        else:
            best = stretch.best.segmenter
            self._keep(stretch, best, replace(further, updates=further.best_updates))
        logger.info(
            "project row %s: training of %s goes on no more: %s",
            stretch.project_id,
            stretch.version.name,
            why,
        )

    def _keep(self, stretch: Stretch, segmenter: Segmenter, further: Further) -> None:
        key, best = self._written(stretch.version, segmenter, further.updates), stretch.best
        best_key = None
        if best is not None:
            if further.updates == further.best_updates:
                best_key = key
            elif best.is_kept:
                best_key = further.best_checkpoint
            else:
                best_key = self._written(stretch.version, best.segmenter, further.best_updates)
        further = replace(
            further, checkpoint=key, best_checkpoint=best_key, facts=stretch.training.facts()
        )
        self._note(stretch.version, further)
        for unused in stretch.further.files - further.files:
            self._store.blobs.delete(unused)
        stretch.further, stretch.kept_at = further, time.monotonic()
        if best is not None:
            best.is_kept = True

    def _written(self, version: Version, segmenter: Segmenter, updates: int) -> str:
        """The key under which a segmenter is kept now."""
        # A name of its own: a worker that has lost its lease must not write over these.
        name = f"{version.number}-{secrets.token_hex(4)}"
        key = f"further/{version.project_id}/{name}.safetensors"
        path = self._store.blobs.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        segmenter.save(path, {"version": version.name, "updates": updates})
        return key

    def _end(self, version: Version, newest_label_id: int, why: str) -> None:
        """Nothing more with these labels; when they change it begins anew."""
        self._dropped(version.project_id)
        project = self._store.projects.by_id(version.project_id)
        basis = Basis.of(self._store, project).digest
        self._note(version, Further(newest_label_id, ended=why, basis=basis))
        logger.info("%s is not trained on with the labels there are: %s", version.name, why)

    def _rest(self, project: Project, version: Version, why: str) -> None:
        """For a while: what cannot be read now may be readable then."""
        self.forget()
        self._rests_until[project.id] = time.monotonic() + REST_S
        logger.info("%s is trained on later: %s", version.name, why)

    def _is_of_use(self, stretch: Stretch) -> bool:
        """Whether it has learned something that nobody has gone on from, or ended, since.

        The lease may be another project's, so that another worker may have.
        """
        project = self._store.projects.by_id(stretch.project_id)
        version = self._store.versions.find(project.id, project.current_version)
        if version is None or version.id != stretch.version.id or stretch.lesson is None:
            return False
        known, further = Further.of(version.metrics), stretch.further
        is_ended = known.is_over(further.newest_label_id, float("inf"), further.basis)
        is_known = known.checkpoint == further.checkpoint
        return is_known and not is_ended and not project.is_deleted and further.updates > 0

    def _dropped(self, project_id: int) -> Stretch | None:
        """What was in memory of this project, and is no more; another one's stays."""
        stretch = self._stretch
        if stretch is None or stretch.project_id != project_id:
            return None
        self._stretch = None
        return stretch

    def _note_time(self, stretch: Stretch) -> None:
        """What it took counts, whatever becomes of the weights: it must end."""
        version = self._store.versions.find(stretch.project_id, stretch.version.number)
        if version is None or stretch.lesson is None:
            return
        spent, known = stretch.further, Further.of(version.metrics)
        is_same = known.is_of(spent.newest_label_id, spent.basis)
        noted = replace(
            known,
            num_held_out=known.num_held_out if is_same else 0,  # its scores are of other labels
            newest_label_id=spent.newest_label_id,
            basis=spent.basis,
            seconds_on_labels=spent.seconds_on_labels,
            ended=None,
        )
        self._note(version, noted)

    def _note(self, version: Version, further: Further) -> None:
        self._store.versions.change(version.id, metrics=further.as_metrics())

    @contextmanager
    def _counted(self, project: Project, newest_label_id: int) -> Iterator[int]:
        """Which try in a row it is that was not ended in order, from 1."""
        key = (project.id, IMPROVING, newest_label_id)
        number = self._store.attempts.begin(*key)
        try:
            yield number
        finally:  # a kill leaves it counted
            self._store.attempts.end(*key)

    def _all(self, project: Project) -> list[Version]:
        return self._store.versions.all(project.id)


class _CannotJudge(Exception):
    """There is nothing to learn from, or to judge by."""


class _CannotReadNow(_CannotJudge):
    """The same, and something could not be read."""


def _because(why: str, plan: TrainingPlan, read: LabelledImages) -> _CannotJudge:
    left_out = [*plan.left_out, *read.left_out()]
    return _CannotReadNow(f"{why}; {'; '.join(left_out)}") if left_out else _CannotJudge(why)


def _with_course(further: Further, course: Course) -> Further:
    return replace(
        further,
        updates=course.updates,
        best_score=course.best_score,
        best_updates=course.best_updates,
        num_looks=course.num_looks,
    )


def _progress_values(version: Version, updates: int, loss: float) -> dict[str, Any]:
    return {
        "state": "improving",
        "improved_version": version.name,
        "updates": updates,
        "loss": round(loss, 4),
    }
