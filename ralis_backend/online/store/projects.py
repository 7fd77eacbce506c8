"""The labelling projects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, or_, select, update
from sqlalchemy.orm import undefer

from ralis_backend.core.regions import VOID
from ralis_backend.online.store.attempts import MOST_ATTEMPTS, STEP
from ralis_backend.online.store.database import Database, assign, now
from ralis_backend.online.store.leases import LeaseState
from ralis_backend.online.store.tables import Attempt, Event, Image, Project
from ralis_backend.online.tool import ClassLabel

_ALIVE = {
    "is_deleted": False,
    "is_sync_requested": True,
    "num_losses": 0,
    "num_failures": 0,
    "retry_at": None,
}


@dataclass(frozen=True)
class Look:
    """All of a project that can change whether work on it is due, without looking at its labels.

    Labels, queue and rankings change under a lease alone, and each lease counts the generation up.
    """

    id: int
    uid: str
    lease: LeaseState
    synced_at: datetime | None
    retry_at: datetime | None
    num_failures: int
    wanted: tuple[object, ...]
    has_events: bool


class Projects:
    """Each labelling project by its uid."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Project]:
        """All projects that still exist, oldest first."""
        with self._database.read() as session:
            found = session.scalars(select(Project).where(~Project.is_deleted).order_by(Project.id))
            return list(found)

    def looks(self) -> list[Look]:
        """A look at each project that still exists, oldest first, in one query."""
        with self._database.read() as session:
            return [_look(row) for row in session.execute(_LOOKS, {"moment": now()})]

    def gone(self) -> list[Project]:
        """The projects that the tool did not know any more; without those that were forgotten."""
        query = select(Project).where(Project.is_deleted, Project.num_losses > 0)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Project.id)))

    def by_id(self, project_id: int) -> Project:
        """One project by its row id."""
        with self._database.read() as session:
            return session.get_one(Project, project_id)

    def find(self, uid: str) -> Project | None:
        """The project whose pool or regions project has this uid."""
        with self._database.read() as session:
            return session.scalars(
                select(Project).where(or_(Project.uid == uid, Project.regions_uid == uid))
            ).first()

    def get(self, uid: str) -> Project:
        """As `find`; `ValueError` if there is none."""
        found = self.find(uid)
        if found is None:
            known = ", ".join(project.uid for project in self.all()) or "none"
            raise ValueError(
                f"project {uid} is not known here (known: {known}); connect the backend to it in "
                "Label Studio, or run `ralis connect --project ID`"
            )
        return found

    def by_tool_id(self, tool_id: int) -> Project:
        """The newest project with this id in the labelling tool; `ValueError` if there is none."""
        with self._database.read() as session:
            found = session.scalars(
                select(Project)
                .where(or_(Project.tool_id == tool_id, Project.regions_tool_id == tool_id))
                .order_by(Project.is_deleted, Project.id.desc())
            ).first()
        if found is None:
            raise ValueError(
                f"project {tool_id} is not known here; run `ralis connect --project {tool_id}`"
            )
        return found

    def register(
        self, uid: str, tool_id: int, label_config: str, classes: Sequence[ClassLabel], title: str
    ) -> Project:
        """Make the project known, or bring its labels up to date.

        New labels get new class indices. A label that is gone keeps its index, so that masks
        stay valid, and is not offered any more.
        """
        with self._database.write() as session:
            known = select(Project).where(Project.uid == uid)
            project = session.scalars(known.options(undefer(Project.label_config))).first()
            if project is None:
                project = Project(uid=uid, tool_id=tool_id)
                session.add(project)
            project.title = title or project.title
            if project.is_deleted or project.num_losses:
                assign(project, _ALIVE)
            if label_config and (project.label_config != label_config or not project.classes):
                project.label_config = label_config
                project.classes = _merge_classes(project.classes or [], classes)
                project.is_sync_requested = True
                project.is_prepared = False
            session.flush()
            return project

    def revive(self, project_id: int) -> None:
        """The project shows a sign of life: work on it again, and read it as a whole."""
        self.change(project_id, **_ALIVE)

    def begin_again(self) -> None:
        """A worker starts: read every project as a whole, and wait for nothing.

        But for what ended the worker, and for projects that the tool did not know: those rest on.
        """
        deadly = select(Attempt.project_id).where(
            Attempt.kind == STEP, Attempt.count >= MOST_ATTEMPTS
        )
        rests_on = or_(Project.num_losses > 0, Project.id.in_(deadly))
        with self._database.write() as session:
            session.execute(update(Project).values(is_sync_requested=True))
            session.execute(update(Project).where(~rests_on).values(retry_at=None))

    def change(self, project_id: int, **values: Any) -> Project:
        """Set columns of a project and return it."""
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            assign(project, values)
            return project

    def settle_range(
        self, project_id: int, kind: str, limits: tuple[float, float], source: str
    ) -> Project:
        """Remember how a kind of deep values is shown; what is remembered already stays."""
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            rule = dict(project.pixel_rule or {})
            ranges = dict(rule.get("ranges") or {})
            if kind not in ranges:
                ranges[kind] = list(limits)
                sources = {**(rule.get("sources") or {}), kind: source}
                project.pixel_rule = {**rule, "ranges": ranges, "sources": sources}
            return project

    def begin_reading(self, project_id: int) -> Project:
        """Count one more reading of the tool, which answers every request made so far.

        It stays open, and due again, until `end_reading`: a request made meanwhile is another one.
        """
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            project.num_readings += 1
            project.open_reading = project.num_readings
            project.is_sync_requested = False
            return project

    def end_reading(self, project_id: int, number: int) -> Project:
        """Note that this reading has seen everything, unless another one was begun since."""
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            if project.open_reading == number:
                project.open_reading, project.synced_at = None, now()
            return project


def _unread_of(uid: Any) -> Any:
    return exists().where(Event.tool_uid == uid)


_LOOKS = (
    select(
        Project.id,
        Project.uid,
        Project.lease_owner,
        Project.lease_generation,
        Project.lease_heartbeat,
        Project.synced_at,
        Project.retry_at,
        Project.num_failures,
        or_(_unread_of(Project.uid), _unread_of(Project.regions_uid)),
        exists().where(Image.project_id == Project.id, Image.retry_at <= bindparam("moment")),
        Project.is_sync_requested,
        Project.open_reading,
        Project.is_prepared,
        Project.is_training_requested,
        Project.regions_tool_id,
        Project.current_version,
        Project.published_version,
    )
    .where(~Project.is_deleted)
    .order_by(Project.id)
)


def _look(row: Any) -> Look:
    identity, uid, owner, generation, heartbeat, synced_at, retry_at, failures, events, *wanted = (
        row
    )
    lease = LeaseState(owner, generation, heartbeat)
    return Look(identity, uid, lease, synced_at, retry_at, failures, tuple(wanted), bool(events))


def _merge_classes(known: Sequence[Any], classes: Sequence[ClassLabel]) -> list[Any]:
    colors = {label.name: label.color for label in classes}
    merged = [
        {
            "name": entry["name"],
            "color": colors.get(entry["name"], entry["color"]),
            "is_active": entry["name"] in colors,
        }
        for entry in known
    ]
    names = {entry["name"] for entry in known}
    merged += [
        {"name": label.name, "color": label.color, "is_active": True}
        for label in classes
        if label.name not in names
    ]
    if len(merged) > VOID:
        raise ValueError(f"the project has had {len(merged)} labels, at most {VOID} are possible")
    return merged
