"""The steps that advance a project, in their order: when each is due, and what it does.

A new kind of work is one more entry in `worker_steps`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ralis_backend.online.further import Further
from ralis_backend.online.hits import followed, has_looked, may_look_again, wish_looked_for
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.attempts import MOST_ATTEMPTS, REQUEST, TRAINING
from ralis_backend.online.store.tables import Project, Version, Wish
from ralis_backend.online.tool import Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.descriptions import Descriptions
from ralis_backend.online.worker.improve import Improver
from ralis_backend.online.worker.openness import of_queue, openness
from ralis_backend.online.worker.people import People
from ralis_backend.online.worker.promotion import can_be_judged
from ralis_backend.online.worker.publish import Publisher
from ralis_backend.online.worker.rank import USED_UP, Ranker
from ralis_backend.online.worker.reading import Reading
from ralis_backend.online.worker.retry import Retry
from ralis_backend.online.worker.stretch import Basis
from ralis_backend.online.worker.sync import Sync
from ralis_backend.online.worker.tidy import Tidying
from ralis_backend.online.worker.train import Trainer
from ralis_backend.online.worker.unjudged import is_judging_due, note_tried

logger = logging.getLogger(__name__)

DIVERGED = "diverged"
MOST_DEADLY_TRAININGS = MOST_ATTEMPTS + 2
"""After three an image that ends the worker is set aside; if it was none, the training is."""

Report = Callable[[dict[str, Any]], None]
"""Takes JSON values that say how far a step is."""
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class ProjectState:
    """What decides which step of a project is due.

    unread_s: for how long it has not been read as a whole, as far as this worker has seen.
    has_labels: whether any region is painted.
    is_judging_due: whether what could not be judged when it was trained could be now.
    num_new_labels: painted regions since the last training, counted up to a round.
    newest_label_id: of all labels, 0 without any.
    is_ranked: whether the version in use has ranked the pool, for the class that is wished for too;
        one whose regions are used up has not while there are images that it has not ranked.
    has_ranking: whether it has ranked at all, since that was last asked for.
    is_published: whether annotators meet what it has ranked, as far as there was room.
    may_have_open: whether regions may have opened since that was published last; asked only while
        less than a round waits, a wish takes the places, the ranking found no open region, or the
        image of a waiting one is gone.
    is_used_up: whether its ranking found no open region.
    sought_wish: the wish that its ranking has regions for; None without one.
    has_bad_images: whether images that could not be read should be tried again.
    has_open_request: whether a training that was asked for has begun and not ended.
    further: how far the training of the version in use was continued; None where it cannot be,
        since it has learned nothing, or too little is held out to judge by.
    basis: what tells the labels there are from those it was continued with; None: not asked, since
        nothing was noted.
    leaves_share: whether that wish leaves a share of each round to the ordinary strategy.
    num_waiting, num_planned: region tasks without a label; those of them not yet in the tool.
    has_gone: whether the image of any of them is gone from the pool.
    """

    project: Project
    unread_s: float
    has_events: bool
    has_labels: bool
    num_new_labels: int
    newest_label_id: int
    is_ranked: bool
    is_published: bool
    num_waiting: int
    num_planned: int
    is_judging_due: bool = False
    has_gone: bool = False
    has_ranking: bool = True
    may_have_open: bool = False
    is_used_up: bool = False
    has_bad_images: bool = False
    has_open_request: bool = False
    further: Further | None = None
    basis: str | None = None
    sought_wish: int | None = None
    leaves_share: bool = False


class Kind(Enum):
    """Which steps are looked at.

    WORK: all but idle ones. SERVING: those of them that bring annotators tasks. IDLE: see `Step`.
    """

    WORK = "work"
    SERVING = "serving"
    IDLE = "idle"


@dataclass(frozen=True)
class Step:
    """One kind of work on a project; `is_due` where it makes what is more like what should be.

    is_idle: done only while no other step of any project is due, and stopped as soon as one is.
    brings_tasks: other projects wait for it while annotators of this one have nothing to do. Where
        one that brings none fails, whatever the reason, the others go on.
    may_rest_alone: where it fails by itself, the other steps go on without it; if not, they go by
        what it brings.
    """

    name: str
    is_due: Callable[[ProjectState, WorkerConfig], bool]
    run: Callable[[Project, Report, ShouldStop], object]
    is_idle: bool = False
    brings_tasks: bool = True
    may_rest_alone: bool = True

    def is_of(self, kind: Kind) -> bool:
        """Whether it is looked at with that kind."""
        if self.is_idle or kind is Kind.IDLE:
            return self.is_idle and kind is Kind.IDLE
        return self.brings_tasks or kind is Kind.WORK


def worker_steps(store: Store, tool: Tool, config: WorkerConfig) -> tuple[Step, ...]:
    """Every step, in the order in which a project needs them."""
    improver = Improver(store, tool, config)
    work = _Work(store, tool, config, improver)
    tidying = Tidying(store, config)
    return (
        Step("sync", is_sync_due, work.sync, may_rest_alone=False),
        Step("events", are_events_due, work.read_events),
        Step("publish", is_ranking_unpublished, work.publish),
        Step("train", is_training_due, work.train),
        Step("rank", is_ranking_due, work.rank),
        Step("publish", is_publishing_due, work.publish),
        Step("retry", is_retry_due, work.retry, brings_tasks=False),
        Step(
            "tidy",
            lambda state, config: tidying.is_due(state.project),
            lambda project, report, should_stop: tidying.tidy(project),
            brings_tasks=False,
        ),
        Step(
            "improve",
            lambda state, config: (
                is_improving_due(state, config) and improver.may_try(state.project)
            ),
            improver.improve,
            is_idle=True,
            brings_tasks=False,
        ),
    )


def all_due(steps: Sequence[Step], state: ProjectState, config: WorkerConfig) -> list[Step]:
    """The steps that are due, in their order; none if all is well."""
    return [step for step in steps if step.is_due(state, config)]


def read_state(store: Store, project: Project, unread_s: float, enough: int) -> ProjectState:
    """A project as it is now, at a cost that does not grow with its labels while a round waits.

    Args:
        store: what is known of it.
        project: as it is now.
        unread_s: for how long it has not been read as a whole.
        enough: new labels are not counted further than this.
    """
    version = store.versions.find(project.id, project.current_version)
    wish = followed(store, project)
    waiting = store.queue.open(project.id)
    sought_wish = wish_looked_for(version, wish)
    leaves_share = sought_wish is not None and wish is not None and wish.share < 1
    is_used_up = version is not None and bool(version.metrics.get(USED_UP))
    may_have_open = False
    gone = store.queue.gone(project.id)
    if len(waiting) < enough or leaves_share or is_used_up or gone:
        now_open = [*openness(store, project.id), *of_queue(waiting, gone)]
        may_have_open = now_open != project.filled_with
    further = _further(version)
    is_published = (
        project.published_version == project.current_version and not project.is_publishing_requested
    )
    is_queue_done = (
        project.regions_tool_id is not None and is_published and not waiting and not may_have_open
    )
    return ProjectState(
        project=project,
        unread_s=unread_s,
        has_events=store.events.has_unread(project),
        has_labels=store.labels.count(project.id, most=1) > 0,
        num_new_labels=store.labels.count(project.id, project.trained_label_id, most=enough),
        is_judging_due=is_judging_due(store, project),
        newest_label_id=store.labels.newest_id(project.id),
        is_ranked=_is_ranked(
            store, project, version, wish, may_be_more=is_used_up or is_queue_done
        ),
        has_ranking=version is not None and version.ranked_at is not None,
        is_published=is_published,
        may_have_open=may_have_open,
        is_used_up=is_used_up,
        num_waiting=len(waiting),
        has_gone=bool(gone),
        num_planned=sum(row.task_id is None for row in waiting),
        further=further,
        basis=None if further is None or further.basis is None else Basis.of(store, project).digest,
        has_open_request=store.attempts.has_open_request(project.id),
        has_bad_images=bool(store.images.to_try_again(project.id, now(), 1)),
        sought_wish=sought_wish,
        leaves_share=leaves_share,
    )


def is_sync_due(state: ProjectState, config: WorkerConfig) -> bool:
    """A request, a reading that did not end, settings not in order, or nothing read for a while."""
    project = state.project
    if project.is_sync_requested or project.open_reading is not None:
        return True
    if not project.is_prepared or project.synced_at is None:
        return True
    return state.unread_s >= config.sync_s


def are_events_due(state: ProjectState, config: WorkerConfig) -> bool:
    """Webhooks have come."""
    return state.has_events


def is_ranking_unpublished(state: ProjectState, config: WorkerConfig) -> bool:
    """The version in use has ranked: annotators get that before another training, which takes long.

    Where there is only room in the queue, it is filled up after that.
    """
    return state.is_ranked and not state.is_published


def is_training_due(state: ProjectState, config: WorkerConfig) -> bool:
    """Enough new labels, a request, a version to judge, or annotators without suggestions."""
    project = state.project
    if project.is_training_requested or state.has_open_request or state.is_judging_due:
        return state.has_labels
    if state.num_new_labels >= config.ranking.regions_per_round:
        return True
    is_queue_empty = project.regions_tool_id is not None and not state.num_waiting
    return state.num_new_labels > 0 and state.is_published and is_queue_empty


def is_ranking_due(state: ProjectState, config: WorkerConfig) -> bool:
    """The version in use has not looked at the pool, or not for what is wished for."""
    return not state.is_ranked


def is_publishing_due(state: ProjectState, config: WorkerConfig) -> bool:
    """It was asked for, or another class is sought; tasks wait to be made; there is room.

    There is room when less than a round waits, and regions may be open for it; whether they are is
    looked at in a pool that was used up, too. Beside a wish, of which very many may wait,
    they also have when a training has learned from them in vain: else a refused version would leave
    nothing but what is mined. While the ranking of the version in use fails, what annotators meet
    is filled up from what was ranked before.
    """
    project = state.project
    if not state.has_ranking:
        return project.published_version is not None and _has_room(state, config)
    if not state.is_published or project.published_wish != state.sought_wish:
        return True
    if state.is_used_up and state.may_have_open:
        return True
    return _has_room(state, config)


def _has_room(state: ProjectState, config: WorkerConfig) -> bool:
    project = state.project
    if project.regions_tool_id is None:
        return False
    if state.num_planned:
        return True
    if not state.may_have_open:
        return False
    if state.has_gone:
        return True
    if state.leaves_share and project.trained_label_id > project.published_label_id:
        return True
    return state.num_waiting < config.ranking.regions_per_round


def is_retry_due(state: ProjectState, config: WorkerConfig) -> bool:
    """The pause after an image could not be read is over."""
    return state.has_bad_images


def is_improving_due(state: ProjectState, config: WorkerConfig) -> bool:
    """The version in use may become better with the labels there are, and has time for it."""
    if not config.improve_s or state.further is None:
        return False
    return not state.further.is_over(state.newest_label_id, config.improve_s, state.basis)


def _is_ranked(
    store: Store,
    project: Project,
    version: Version | None,
    wish: Wish | None,
    *,
    may_be_more: bool,
) -> bool:
    if version is None or version.ranked_at is None or not has_looked(version, wish):
        return False
    if wish is not None and may_look_again(store, project, version, wish):
        return False
    return not (may_be_more and store.images.has_unranked(project.id, version.id))


def _further(version: Version | None) -> Further | None:
    if version is None or version.weights_key is None:
        return None
    held_out = (version.metrics.get(f"validation_{name}", 0) for name in ("regions", "images"))
    return Further.of(version.metrics) if can_be_judged(*held_out) else None


class _Work:
    """What the steps do."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig, improver: Improver) -> None:
        self._store = store
        self._improver = improver
        self._sync = Sync(store, tool, config)
        self._trainer = Trainer(store, tool, config)
        self._ranker = Ranker(store, tool, config)
        self._publisher = Publisher(store, tool, config, self._sync)
        self._retry = Retry(store, tool)
        self._people = People(store)
        self._descriptions = Descriptions(store, tool)
        self._reading = Reading(self._sync, self._people)

    def sync(self, project: Project, report: Report, should_stop: ShouldStop) -> None:
        report({"state": "syncing"})
        self._sync.full(project)
        self._people.count(project)
        self._descriptions.keep(project.id)

    def read_events(self, project: Project, report: Report, should_stop: ShouldStop) -> None:
        self._sync.events(project)
        self._people.count(project)
        self._descriptions.keep(project.id, is_urgent=False)

    def train(self, project: Project, report: Report, should_stop: ShouldStop) -> None:
        """Train, each time in another way, until it is given up for the labels there are."""
        self._store.attempts.begin_requested(project.id)
        self._reading.newest(project)
        basis = Basis.of(self._store, project)
        labels = basis.newest_label_id
        number = self._store.attempts.begin(project.id, TRAINING, labels)
        if number > MOST_DEADLY_TRAININGS:
            self._give_up_training(project, labels, f"it ended the worker {number - 1} times")
            return
        logger.info("project %s: training begins", project.tool_id)
        self._improver.forget()
        report({"state": "training", "percent": 0.0})
        should_stop = self._reading.on_the_way(project, should_stop)
        try:
            seeds = 1 + self._store.attempts.count(project.id, DIVERGED, labels)
            self._trainer.train(project, report, should_stop, attempt=seeds)
        except FloatingPointError as error:  # another seed next time
            self._store.attempts.take_back(project.id, TRAINING, labels)
            if self._store.attempts.begin(project.id, DIVERGED, labels) < MOST_ATTEMPTS:
                raise
            self._give_up_training(project, labels, f"{error}, with {MOST_ATTEMPTS} seeds")
        except Exception:
            self._store.attempts.take_back(project.id, TRAINING, labels)
            raise
        else:
            self._forget_trainings(project)
            note_tried(self._store, self._store.projects.by_id(project.id), basis)
            self._people.count(project)  # the advice goes by what it came to, in use or not

    def _forget_trainings(self, project: Project) -> None:
        for kind in (TRAINING, DIVERGED, REQUEST):
            self._store.attempts.forget(project.id, kind)

    def _give_up_training(self, project: Project, labels: int, why: str) -> None:
        """The version in use stays so; new labels, or Start Training, are another try."""
        note = f"training on the labels there are was given up: {why}"
        self._forget_trainings(project)
        self._store.attempts.set_aside(project.id, TRAINING, labels, note)
        self._store.projects.change(project.id, trained_label_id=labels)
        logger.error("project %s: %s", project.tool_id, note)

    def rank(self, project: Project, report: Report, should_stop: ShouldStop) -> None:
        """Rank; what was found is published though the version was before.

        Not where it ranks once more beside tasks that wait, as for a wish.
        """
        should_stop = self._reading.on_the_way(project, should_stop)
        version = self._version_in_use(project)
        # First, lest a kill after ranking forgets it.
        if version.ranked_at is None or not self._store.queue.open(project.id):
            self._store.projects.change(project.id, is_publishing_requested=True)
        self._ranker.rank(project, version, report, should_stop)
        self._people.count(project)  # pictures that were read now may be known from other tasks

    def publish(self, project: Project, report: Report, should_stop: ShouldStop) -> None:
        report({"state": "publishing"})
        version = self._version_in_use(project)
        before = project.published_version
        if version.ranked_at is None and before is not None:
            version = self._store.versions.find(project.id, before) or version
        self._publisher.publish(project, version)
        self._descriptions.keep(project.id)

    def retry(self, project: Project, report: Report, should_stop: ShouldStop) -> None:
        version = self._store.versions.find(project.id, project.current_version)
        self._retry.retry(project, version, should_stop)

    def _version_in_use(self, project: Project) -> Version:
        """Made if there is none: the one that has learned nothing yet."""
        found = self._store.versions.find(project.id, project.current_version)
        return found or self._store.versions.add(
            Version(
                project_id=project.id,
                number=project.current_version,
                is_accepted=True,
                num_labels=0,
                created_at=now(),
            )
        )
