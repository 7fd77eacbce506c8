"""The labelling projects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased, undefer

from ralis_backend.core.regions import VOID
from ralis_backend.online.background import Kept, background_of, marked
from ralis_backend.online.store.attempts import FAILURE, MOST_ATTEMPTS, STEP, try_all_again
from ralis_backend.online.store.database import Database, assign, now
from ralis_backend.online.store.leases import LeaseState
from ralis_backend.online.store.left_out import REREAD, UNREAD, read_again
from ralis_backend.online.store.readings import ask_again
from ralis_backend.online.store.tables import (
    UNREAL_PAUSE,
    Annotation,
    Attempt,
    CropTask,
    Event,
    Image,
    Label,
    Project,
    Wish,
)
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

    do_annotators_wait: whether nothing is left in the queue of regions, or never was.
    """

    id: int
    uid: str
    lease: LeaseState
    synced_at: datetime | None
    retry_at: datetime | None
    num_failures: int
    wanted: tuple[object, ...]
    has_events: bool
    do_annotators_wait: bool


class Projects:
    """Each labelling project by its uid."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Project]:
        """All projects that still exist, oldest first."""
        with self._database.read() as session:
            found = session.scalars(select(Project).where(~Project.is_deleted).order_by(Project.id))
            return list(found)

    def every(self) -> list[Project]:
        """All projects, those that are not worked on any more among them, oldest first."""
        with self._database.read() as session:
            return list(session.scalars(select(Project).order_by(Project.id)))

    def looks(self) -> list[Look]:
        """A look at each project that still exists, oldest first, in one query."""
        moment = now()
        times = {"moment": moment, "unreal": moment + UNREAL_PAUSE}
        with self._database.read() as session:
            return [_look(row) for row in session.execute(_LOOKS, times)]

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
            known = ", ".join(f"{it.tool_id} ({it.title})" for it in self.all()) or "none"
            raise ValueError(
                f"project {uid.partition('.')[0]} is not known here (known: {known}); connect the "
                "backend to it in Label Studio, or run `ralis connect --project ID`"
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
            known = ", ".join(f"{it.tool_id} ({it.title})" for it in self.all()) or "none"
            raise ValueError(
                f"project {tool_id} is not known here (known: {known}); run "
                f"`ralis connect --project {tool_id}`"
            )
        return found

    def register(
        self,
        uid: str,
        tool_id: int,
        label_config: str,
        classes: Sequence[ClassLabel],
        title: str,
        default_background: str | None = None,
        choice: str | Kept | None = Kept.CHOICE,
    ) -> Project:
        """Make the project known, or bring its labels up to date.

        New labels get new class indices. A label that is gone keeps its index, so that masks
        stay valid, and is not offered any more. Where unpainted pixels mean something else than
        before, all labels are read again from what annotators sent; where the label config is
        another one, those of which something was left out.

        Args:
            uid: of the pool project.
            tool_id: its id in the tool.
            label_config: as the tool has it.
            classes: the labels in it.
            title: of the project; empty: as known.
            default_background: of projects that choose none, see `background_of`.
            choice: of this project, see `online/background`.
        """
        values = (uid, tool_id, label_config, classes, title, default_background, choice)
        try:
            return self._register(*values)
        except IntegrityError:  # another process made it known at the same moment
            return self._register(*values)

    def _register(
        self,
        uid: str,
        tool_id: int,
        label_config: str,
        classes: Sequence[ClassLabel],
        title: str,
        default_background: str | None,
        choice: str | Kept | None,
    ) -> Project:
        with self._database.write() as session:
            known = select(Project).where(Project.uid == uid)
            project = session.scalars(known.options(undefer(Project.label_config))).first()
            if project is None:
                project = Project(uid=uid, tool_id=tool_id)
                session.add(project)
            project.title = title or project.title
            if project.is_deleted or project.num_losses:
                assign(project, _ALIVE)
            if not isinstance(choice, Kept):
                project.background = choice
            if label_config:
                _bring_up_to_date(session, project, label_config, classes, default_background)
            session.flush()
            return project

    def renew(
        self,
        project_id: int,
        label_config: str,
        classes: Sequence[ClassLabel],
        default_background: str | None = None,
    ) -> Project:
        """The project as it is now; its labels are brought up to date, as `register` does it.

        Nothing else of it changes, and nothing is written where the label config is as known.
        """
        config = undefer(Project.label_config)
        with self._database.read() as session:
            project = session.get_one(Project, project_id, options=[config])
        if project.label_config == label_config or not label_config:
            return project
        with self._database.write() as session:
            project = session.get_one(Project, project_id, options=[config])
            _bring_up_to_date(session, project, label_config, classes, default_background)
            session.flush()
            return project

    def revive(self, project_id: int) -> None:
        """The project shows a sign of life: work on it again, and read it as a whole."""
        self.change(project_id, **_ALIVE)

    def begin_again(self) -> None:
        """A worker starts: read every project as a whole, and wait for nothing.

        But for what ended the worker, and for projects that the tool did not know: those rest on.
        """
        step = aliased(Attempt)
        has_ended_it = (step.kind == STEP, step.count >= MOST_ATTEMPTS)
        deadly = select(step.project_id).where(*has_ended_it)
        is_deadly = exists().where(
            *has_ended_it, step.project_id == Attempt.project_id, step.key == Attempt.key
        )
        rests_on = or_(Project.num_losses > 0, Project.id.in_(deadly))
        with self._database.write() as session:
            session.execute(update(Project).values(is_sync_requested=True))
            session.execute(update(Project).where(~rests_on).values(retry_at=None))
            failures = delete(Attempt).where(Attempt.kind == FAILURE, ~is_deadly)
            session.execute(failures.execution_options(synchronize_session=False))

    def request_training(self, project_id: int) -> None:
        """Train as soon as a worker is free; what webhooks missed is read first.

        What was set aside because it ended the worker is tried again, and a project that was
        forgotten or gone is worked on again.
        """
        with self._database.write() as session:
            try_all_again(session, project_id)
            project = session.get_one(Project, project_id)
            assign(project, {**_ALIVE, "is_training_requested": True})

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

    def read_as(self, project_id: int, reading: int) -> Project:
        """The project, whose labels are read in this way from now on.

        What was read in another way is read again: all annotations that are stored, and all that
        the tool has, which are asked for anew.
        """
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            if project.read_as != reading:
                project.read_as = reading
                _mean_otherwise(session, project, UNREAD)
                ask_again(session, project_id)
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
        ~exists().where(
            CropTask.project_id == Project.id,
            CropTask.state == "open",
            CropTask.task_id.is_not(None),
        ),
        exists().where(
            Image.project_id == Project.id,
            ~Image.is_deleted,
            Image.is_due(bindparam("moment"), bindparam("unreal")),
        ),
        Project.is_sync_requested,
        Project.open_reading,
        Project.is_prepared,
        Project.is_training_requested,
        Project.regions_tool_id,
        Project.current_version,
        Project.published_version,
        Project.is_publishing_requested,
        select(func.max(Wish.id))
        .where(Wish.project_id == Project.id, Wish.ended_at.is_(None))
        .scalar_subquery(),
    )
    .where(~Project.is_deleted)
    .order_by(Project.id)
)


def _look(row: Any) -> Look:
    identity, uid, owner, generation, heartbeat, synced_at, retry_at, failures, *found = row
    events, has_empty_queue, *wanted = found
    lease = LeaseState(owner, generation, heartbeat)
    is_new = synced_at is None
    return Look(
        id=identity,
        uid=uid,
        lease=lease,
        synced_at=synced_at,
        retry_at=retry_at,
        num_failures=failures,
        wanted=tuple(wanted),
        has_events=bool(events),
        do_annotators_wait=is_new or (row.regions_tool_id is not None and bool(has_empty_queue)),
    )


def _bring_up_to_date(
    session: Session,
    project: Project,
    label_config: str,
    classes: Sequence[ClassLabel],
    default_background: str | None,
) -> None:
    if project.label_config != label_config or not project.classes:
        project.label_config = label_config
        project.classes = _merge_classes(project.classes or [], classes)
        project.is_sync_requested = True
        project.is_prepared = False
        _mean_otherwise(session, project, UNREAD, Annotation.left_out.is_not(None))
    _settle_background(session, project, [label.name for label in classes], default_background)


def _settle_background(
    session: Session, project: Project, labels: Sequence[str], default: str | None
) -> None:
    """Mark the background in the class table; where it is another one, ask for all labels again."""
    before = project.background_class
    kept = _kept_background(session, project, labels)
    background = background_of(labels, project.background, default, kept)
    settled = marked(project.classes, labels, background)
    if settled == project.classes:
        return
    _check_number(settled)
    project.classes = settled
    project.is_sync_requested, project.is_prepared = True, False
    if project.background_class != before:
        _mean_otherwise(session, project, REREAD, ~Annotation.is_skipped)


def _mean_otherwise(
    session: Session, project: Project, why: str, *which: ColumnElement[bool]
) -> None:
    """Have the labels that this may change be read again, by who has heard of it.

    Whoever reads at this moment has not: `Labels.put` takes nothing of it any more.
    """
    session.flush()
    project.meaning += 1
    session.flush()
    read_again(session, why, Annotation.project_id == project.id, *which)


def _kept_background(session: Session, project: Project, labels: Sequence[str]) -> str | None:
    """The background that a single label had brought, once something was labelled with it."""
    name = project.kept_background
    if name is None or len(labels) == 1:
        return name
    is_labelled = select(Label.id).where(Label.project_id == project.id, ~Label.is_skipped)
    return name if session.scalar(is_labelled.limit(1)) else None


def _merge_classes(known: Sequence[Any], classes: Sequence[ClassLabel]) -> list[Any]:
    colors = {label.name: label.color for label in classes}
    merged = [
        {
            **entry,
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
    _check_number(merged)
    return merged


def _check_number(classes: Sequence[Any]) -> None:
    if len(classes) > VOID:
        raise ValueError(
            f"the project has had {len(classes)} classes, at most {VOID} are possible; connect a "
            "new project"
        )
