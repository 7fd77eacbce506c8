"""The labelling tool -> the store: images, annotations, labels."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ralis_backend.online.pictures import keep_settings
from ralis_backend.online.pictures import task_of as tool_task
from ralis_backend.online.store import unpack
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import Hint, Tool, ToolError, ToolNotFound, ToolProject
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.label_reader import (
    NOT_ITS_FAULT,
    LabelReader,
    attempt_on,
)
from ralis_backend.online.worker.tool_reader import ToolReader, ToolSource

if TYPE_CHECKING:
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Event

__all__ = ["NOT_ITS_FAULT", "Sync", "attempt_on", "tool_task"]

logger = logging.getLogger(__name__)


class Sync:
    """Reads one project from the tool; every method may be repeated at any time."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config

    def project(self, project: Project) -> ToolProject:
        """The pool project as the tool has it; `ToolNotFound` if it was deleted."""
        found = self._tool.project(project.tool_id)
        if found.uid != project.uid:
            raise ToolNotFound(
                f"project {project.tool_id} is another one now (created {found.uid}, known here "
                f"as {project.uid}); connect the backend to it again"
            )
        return found

    def full(self, project: Project) -> Project:
        """Bring settings in order and read whatever changed: repairs lost webhooks."""
        pool = self.project(project)
        self._register(pool)
        project = self._store.projects.begin_reading(project.id)
        project = keep_settings(self._store, project, self._config.pictures)
        number = project.num_readings
        regions_id = self._tool.prepare(pool, self._config.mode, project.regions_tool_id)
        regions_uid = self._tool.project(regions_id).uid if regions_id is not None else None
        if regions_uid != project.regions_uid:
            self._forget_crop_tasks(project)
        project = self._store.projects.change(
            project.id, regions_tool_id=regions_id, regions_uid=regions_uid, is_prepared=True
        )
        reader = self._reader(project, pool)
        reader.read_changes(ToolSource(pool.uid, pool.id))
        if regions_id is not None and regions_uid is not None:
            reader.read_changes(ToolSource(regions_uid, regions_id))
        reader.read_unread()
        return self._store.projects.end_reading(project.id, number)

    def events(self, project: Project) -> bool:
        """Read what the webhooks that have come hint at; True if there were any.

        They are dropped once that is stored, or a reading of everything is requested instead.
        """
        events = self._store.events.unread(project)
        if not events:
            return False
        pool = self.project(project)
        for tool_uid, hint in self._hints(events).items():
            try:
                self._follow(project, pool, tool_uid, hint)
            except ToolNotFound as error:  # the regions project: the pool has just answered
                self._request_reading(project, error)
            except (ToolError, OSError):
                raise
            except Exception as error:
                self._request_reading(project, error)
        self._store.events.drop(*(event.id for event in events))
        return True

    def _hints(self, events: Iterable[Event]) -> Mapping[str, Hint]:
        """By project of the tool: many webhooks of one task are one hint."""
        hints: dict[str, Hint] = defaultdict(Hint)
        for event in events:
            try:
                hint = self._tool.hint(event.action, unpack(event.payload))
            except Exception as error:
                logger.warning("event %s of %s: %s", event.action, event.tool_uid, error)
                hint = Hint(is_unclear=True)
            hints[event.tool_uid] |= hint
        return hints

    def _follow(self, project: Project, pool: ToolProject, tool_uid: str, hint: Hint) -> None:
        is_pool = tool_uid == project.uid
        if hint.is_about_settings and is_pool:
            self._register(pool)
        if hint.is_unclear or self._are_tasks_news(project, is_pool, hint):
            self._request_reading(project, "a webhook hints at more than annotations")
        tool_id = pool.id if is_pool else project.regions_tool_id
        task_ids = hint.annotated | self._store.annotations.tasks_of(tool_uid, hint.annotations)
        if task_ids and tool_id is not None:
            source = ToolSource(tool_uid, tool_id)
            self._reader(project, pool).read_tasks(source, sorted(task_ids))

    def _are_tasks_news(self, project: Project, is_pool: bool, hint: Hint) -> bool:
        """Whether tasks were made or deleted by others: what this worker did is known here."""
        named = hint.made | hint.deleted
        if not named:
            return False
        rows = self._store.images if is_pool else self._store.queue
        known = rows.known_tasks(project.id, named)
        return bool(hint.made - known or hint.deleted & known)

    def _request_reading(self, project: Project, reason: object) -> None:
        logger.info("project %s will be read: %s", project.uid, reason)
        self._store.projects.change(project.id, is_sync_requested=True)

    def _register(self, pool: ToolProject) -> None:
        self._store.projects.register(
            pool.uid, pool.id, pool.label_config, pool.classes, pool.title
        )

    def _reader(self, project: Project, pool: ToolProject) -> ToolReader:
        labels = LabelReader(self._store, self._tool, self._config, project, pool)
        return ToolReader(self._store, self._tool, labels, project)

    def _forget_crop_tasks(self, project: Project) -> None:
        """The regions project is another one: its open tasks are gone, its labels are kept."""
        rows = self._store.queue.open(project.id)
        self._store.queue.change({row.id: {"state": "deleted"} for row in rows})
        self._store.projects.change(project.id, published_version=None)
