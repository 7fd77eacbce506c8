"""The labelling tool -> the store: images, annotations, labels."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ralis_backend.core.text import reason_of, shortened
from ralis_backend.online.pictures import NOT_ITS_FAULT, attempt_on, keep_settings
from ralis_backend.online.pictures import task_of as tool_task
from ralis_backend.online.store import unpack
from ralis_backend.online.store.attempts import DOUBLE, SETTINGS, SetAsideError
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import (
    Hint,
    NoPool,
    Tool,
    ToolError,
    ToolNotFound,
    ToolProject,
)
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.label_reader import READING, LabelReader
from ralis_backend.online.worker.standing import Standing
from ralis_backend.online.worker.task_answers import ToolSource
from ralis_backend.online.worker.tool_reader import ToolReader

if TYPE_CHECKING:
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Event

__all__ = ["NOT_ITS_FAULT", "Sync", "attempt_on", "tool_task"]

logger = logging.getLogger(__name__)

MOST_HINTED = 1000
"""Ids that are followed of the webhooks read at once; where there are more, everything is read."""
WEBHOOKS = "webhooks"
"""What webhooks that are read at once are counted as while they may end the worker."""
MOST_SAID = 600
"""Characters of why settings were refused, in a note."""
DOUBLES_EVERY = 12
"""Every so many readings doubles of the regions project are looked for."""


def sources_of(project: Project) -> list[ToolSource]:
    """The projects of the tool that are read for a project: the pool, and the regions project."""
    sources = [ToolSource(project.uid, project.tool_id)]
    if project.regions_tool_id is not None and project.regions_uid is not None:
        sources.append(ToolSource(project.regions_uid, project.regions_tool_id))
    return sources


def _looks(found: ToolProject) -> str:
    return (
        f"looks like a regions project: its labelling interface has {found.regions_sign}; remove "
        "that, if it holds whole images, or disconnect it"
    )


class Sync:
    """Reads one project from the tool; every method may be repeated at any time."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._standing = Standing()

    def project(self, project: Project) -> ToolProject:
        """The pool project as the tool has it.

        Raises:
            ToolNotFound: if it was deleted.
            NoPool: if it holds the regions of another one.
            ValueError: if nobody knows, since it has not been read yet and looks as if it did.
        """
        found = self._tool.project(project.tool_id)
        if found.uid == project.uid:
            self._refuse_regions(project, found)
        if found.uid != project.uid:
            raise ToolNotFound(
                f"project {project.tool_id} is another one now (it was deleted, and its number "
                "given to a new one); connect the backend to it again"
            )
        return found

    def full(self, project: Project) -> Project:
        """Bring settings in order and read whatever changed: repairs lost webhooks.

        Settings that the tool refuses or fails at are noted, and tried again with the next reading.
        """
        project = self._store.projects.begin_reading(project.id)  # before anything is asked
        pool = self.project(project)
        keep_settings(self._store, project, self._config.pictures)
        # Of what others register from now on the reader knows not.
        project = self._as_read_here(self._register(pool))
        reader = self._reader(project, pool)
        number = project.num_readings
        pool = replace(pool, background=project.background_name)
        try:
            project = self._prepare(project, pool, reader)
        except (ToolError, ValueError) as error:
            project = self._unprepared(project, error)
        for source in sources_of(project):
            reader.read_aside(source)
            reader.read_changes(source)
        reader.read_unread()
        return self._store.projects.end_reading(project.id, number)

    def _prepare(self, project: Project, pool: ToolProject, reader: ToolReader) -> Project:
        """Bring settings in order; the project, with its regions project as it is now."""
        regions_id = self._tool.prepare(
            pool, self._config.mode, project.regions_tool_id, project.regions_uid
        )
        regions_uid = self._tool.project(regions_id).uid if regions_id is not None else None
        if regions_uid != project.regions_uid:
            for source in sources_of(project)[1:]:
                reader.forget_aside(source)
            self._forget_crop_tasks(project)
        project = self._store.projects.change(
            project.id, regions_tool_id=regions_id, regions_uid=regions_uid, is_prepared=True
        )
        if regions_id is not None and project.num_readings % DOUBLES_EVERY == 1:
            self._tidy_doubles(project, pool, regions_id)
        self._store.attempts.forget(project.id, SETTINGS)
        if pool.regions_sign is not None:
            note = f"project {pool.id} is worked on as a pool, but {_looks(pool)}"
            self._store.attempts.set_aside(project.id, SETTINGS, "", note)
        return project

    def _unprepared(self, project: Project, error: Exception) -> Project:
        """Note what could not be brought in order; raises it where there is no regions project yet.

        Or none any more: what has its number now is not read in its place.
        """
        if self._config.mode == "crops":
            known = project.regions_tool_id
            if known is None or self._tool.project(known).uid != project.regions_uid:
                raise error
        note = (
            f"not all settings of project {project.tool_id} in the labelling tool are as they "
            f"should be: {shortened(reason_of(error), MOST_SAID)}; labels are read all the same, "
            "and it is tried again with each reading"
        )
        logger.warning("project %s: %s", project.tool_id, note)
        self._store.attempts.set_aside(project.id, SETTINGS, "", note)
        return self._store.projects.change(project.id, is_prepared=True)

    def changes(self, project: Project) -> None:
        """Read what annotators did since the last reading, whether a webhook told of it or not."""
        project, pool = self._renewed(project)
        project = self._as_read_here(project)
        reader = self._reader(project, pool)
        for source in sources_of(project):
            reader.read_changes(source)
        reader.read_waiting()

    def num_missing(self, project: Project) -> int:
        """Annotations that the tool counts and that are not stored yet."""
        missing = 0
        for source in sources_of(project):
            counted = self._tool.project(source.id).num_annotations
            usual = self._store.readings.source(project.id, source.uid).extra_annotations
            stored = self._store.annotations.count(source.uid)
            missing += max(0, (counted or 0) - stored - usual)
        return missing

    def events(self, project: Project) -> bool:
        """Read what the webhooks that have come hint at; True if there were any.

        They are dropped once that is stored, or a reading of everything is requested instead: also
        where reading them has ended the worker three times.
        """
        events = self._store.events.unread(project)
        if not events:
            return False
        attempt = (project.id, WEBHOOKS, events[0].id)
        name = f"what {len(events)} webhooks say"
        try:
            with self._store.attempts.trying(*attempt, name):
                self._follow_all(project, events)
        except SetAsideError as error:
            logger.error("project %s: %s", project.tool_id, error)
            self._request_reading(project, error)
            self._store.attempts.end(*attempt)
        self._store.events.drop(*(event.id for event in events))
        return True

    def _follow_all(self, project: Project, events: Sequence[Event]) -> None:
        project, pool = self._renewed(project)
        for tool_uid, hint in self._hints(events).items():
            try:
                project = self._follow(project, pool, tool_uid, hint)
            except ToolNotFound as error:  # the regions project: the pool has just answered
                self._request_reading(project, error)
            except (ToolError, OSError):
                raise
            except Exception as error:
                self._request_reading(project, error)

    def _hints(self, events: Sequence[Event]) -> Mapping[str, Hint]:
        """By project of the tool: many webhooks of one task are one hint, and bounded."""
        hints: dict[str, Hint] = defaultdict(Hint)
        for event in events:
            try:
                hint = self._tool.hint(event.action, unpack(event.payload))
            except Exception as error:
                logger.warning("event %s of %s: %s", event.action, event.tool_uid, error)
                hint = Hint(is_unclear=True)
            both = hints[event.tool_uid] | hint
            hints[event.tool_uid] = both if both.num_ids <= MOST_HINTED else both.unclear()
        return hints

    def _follow(self, project: Project, pool: ToolProject, tool_uid: str, hint: Hint) -> Project:
        """Returns the project, whose labels may be others now."""
        is_pool = tool_uid == project.uid
        if hint.is_about_settings and is_pool:
            project = self._register(pool)
        if hint.is_unclear or self._are_tasks_news(project, is_pool, hint):
            self._request_reading(project, "a webhook hints at more than annotations")
        tool_id = pool.id if is_pool else project.regions_tool_id
        task_ids = hint.annotated | self._store.annotations.tasks_of(tool_uid, hint.annotations)
        if task_ids and tool_id is not None:
            source = ToolSource(tool_uid, tool_id)
            self._reader(project, pool).read_tasks(source, sorted(task_ids))
        return project

    def _are_tasks_news(self, project: Project, is_pool: bool, hint: Hint) -> bool:
        """Whether tasks were made or deleted by others: what this worker did is known here."""
        named = hint.made | hint.deleted
        if not named:
            return False
        rows = self._store.images if is_pool else self._store.queue
        known = rows.known_tasks(project.id, named)
        return bool(hint.made - known or hint.deleted & known)

    def _request_reading(self, project: Project, reason: object) -> None:
        logger.info("project %s will be read: %s", project.tool_id, reason)
        self._store.projects.change(project.id, is_sync_requested=True)

    def _tidy_doubles(self, project: Project, pool: ToolProject, regions_id: int) -> None:
        """A regions project may have been made twice: its answer was lost, or came too late."""
        notes = self._tool.tidy_doubles(pool, regions_id)
        self._store.attempts.forget(project.id, DOUBLE)
        for place, note in enumerate(notes):
            logger.warning("%s", note)
            self._store.attempts.set_aside(project.id, DOUBLE, place, note)

    def _refuse_regions(self, project: Project, found: ToolProject) -> None:
        """What was read as a pool stays one though it begins to look like a regions project."""
        if found.pool_uid is not None and found.pool_uid != found.uid:
            pool = self._store.projects.find(found.pool_uid)
            number = pool.tool_id if pool else int(found.pool_uid.partition(".")[0])
        elif found.regions_sign is None or project.synced_at is not None:
            return
        else:
            every = self._store.projects.every()
            holder = next((it.tool_id for it in every if it.regions_uid == found.uid), None)
            if holder is None:
                raise ValueError(f"project {found.id} ({found.title}) {_looks(found)}")
            number = holder
        raise NoPool(
            f"project {found.id} ({found.title}) holds the regions of project {number}; it is not "
            "worked on itself: connect that one"
        )

    def _renewed(self, project: Project) -> tuple[Project, ToolProject]:
        """The project with the labels that the tool has now, and its pool."""
        pool = self.project(project)
        default = self._config.background_label
        renewed = self._store.projects.renew(project.id, pool.label_config, pool.classes, default)
        return renewed, pool

    def _register(self, pool: ToolProject) -> Project:
        default = self._config.background_label
        return self._store.projects.register(
            pool.uid, pool.id, pool.label_config, pool.classes, pool.title, default
        )

    def _as_read_here(self, project: Project) -> Project:
        """The project; what another release has read of it is read again."""
        if project.read_as == READING:
            return project
        return self._store.projects.read_as(project.id, READING)

    def _reader(self, project: Project, pool: ToolProject) -> ToolReader:
        labels = LabelReader(self._store, self._tool, self._config, project, pool)
        return ToolReader(self._store, self._tool, labels, project, pool, self._standing)

    def _forget_crop_tasks(self, project: Project) -> None:
        """The regions project is another one: its open tasks are gone, its labels are kept."""
        rows = self._store.queue.open(project.id)
        self._store.queue.change({row.id: {"state": "deleted"} for row in rows})
        self._store.projects.change(project.id, published_version=None)
