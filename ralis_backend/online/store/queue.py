"""What annotators are asked next: crop tasks, and the regions suggested on whole images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, delete, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from ralis_backend.online.store.database import BATCH, Database, assign, parts
from ralis_backend.online.store.tables import Annotation, CropTask, Image, Suggestion, TaskState


def in_force(regions: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Of the regions of a `Suggestion` those that were not taken back."""
    return [entry for entry in regions if not entry.get("is_taken_back")]


class Queue:
    """Regions that are asked for, most useful first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, project_id: int) -> list[CropTask]:
        """The crop tasks that wait for an annotator, most useful first."""
        return self._tasks(CropTask.project_id == project_id, CropTask.state == "open")

    def gone(self, project_id: int) -> list[int]:
        """Row ids of the tasks that wait though their image is gone from the pool."""
        query = select(CropTask.id).join(Image, Image.id == CropTask.image_id)
        with self._database.read() as session:
            found = query.where(
                CropTask.project_id == project_id, CropTask.state == "open", Image.is_deleted
            )
            return list(session.scalars(found.order_by(CropTask.id)))

    def count_open(self, project_id: int) -> int:
        """How many tasks wait in the tool; without those that are only planned."""
        query = select(func.count(CropTask.task_id)).where(
            CropTask.project_id == project_id, CropTask.state == "open"
        )
        with self._database.read() as session:
            return session.scalar(query) or 0

    def all(self, project_id: int) -> list[CropTask]:
        """The crop tasks in every state, most useful first."""
        return self._tasks(CropTask.project_id == project_id)

    def get(self, row_id: int) -> CropTask:
        """One crop task by its row id."""
        with self._database.read() as session:
            return session.get_one(CropTask, row_id)

    def find(
        self, project_id: int, task_id: int, created_at: datetime | None = None
    ) -> CropTask | None:
        """The crop task behind a task id; without a creation time the newest with that id."""
        query = select(CropTask).where(
            CropTask.project_id == project_id, CropTask.task_id == task_id
        )
        if created_at is not None:
            query = query.where(CropTask.task_created_at == created_at)
        with self._database.read() as session:
            return session.scalars(query.order_by(CropTask.id.desc())).first()

    def of_tasks(self, project_id: int, task_ids: Collection[int]) -> list[CropTask]:
        """The crop tasks behind these task ids, in every state; earlier ones of an id too."""
        query = select(CropTask).where(CropTask.project_id == project_id)
        with self._database.read() as session:
            return [
                row
                for part in parts(task_ids, BATCH)
                for row in session.scalars(query.where(CropTask.task_id.in_(part)))
            ]

    def known_tasks(self, project_id: int, task_ids: Collection[int]) -> set[int]:
        """Those of the task ids that the tool has a task of ours for."""
        rows = self.of_tasks(project_id, task_ids)
        return {row.task_id for row in rows if row.task_id is not None and row.state != "deleted"}

    def planned(self, project_id: int) -> list[CropTask]:
        """The crop tasks that are not yet in the tool."""
        return self._tasks(CropTask.project_id == project_id, CropTask.task_id.is_(None))

    def count_made(self, project_id: int) -> int:
        """How many tasks the tool has, waiting and done."""
        query = select(func.count(CropTask.task_id)).where(
            CropTask.project_id == project_id, CropTask.state != "deleted"
        )
        with self._database.read() as session:
            return session.scalar(query) or 0

    def mark_missing(self, project_id: int, tool_uid: str, task_ids: Set[int]) -> None:
        """Mark the tasks of a regions project that are none of these as gone, and what they hold.

        Their annotations are withdrawn, and come back with them. What was labelled in another
        regions project, as one that was deleted, is left alone.

        Args:
            project_id: whose regions these are.
            tool_uid: of the regions project.
            task_ids: that the tool lists.
        """
        waiting = select(CropTask.id, CropTask.task_id).where(
            CropTask.project_id == project_id,
            CropTask.state == "open",
            CropTask.task_id.is_not(None),
        )
        annotated = select(Annotation.task_id).where(
            Annotation.tool_uid == tool_uid, ~Annotation.is_deleted
        )
        states = select(TaskState.task_id).where(TaskState.tool_uid == tool_uid)
        with self._database.read() as session:
            gone = [row.id for row in session.execute(waiting) if row.task_id not in task_ids]
            known = {*session.scalars(annotated.distinct()), *session.scalars(states)}
        for part in parts(gone, BATCH):
            with self._database.write() as session:
                marking = update(CropTask).where(CropTask.id.in_(part), CropTask.state == "open")
                session.execute(marking.values(state="deleted"))
        for part in parts(sorted(known - task_ids), BATCH):
            with self._database.write() as session:
                _withdraw(session, tool_uid, Annotation.task_id.in_(part))
                _forget(session, tool_uid, TaskState.task_id.in_(part))

    def withdraw(self, tool_uid: str, row_ids: Sequence[int]) -> None:
        """Mark these rows, whose tasks are gone from a regions project, and what they hold.

        Should they return, they are read again.
        """
        for part in parts(row_ids, BATCH):
            which = Annotation.crop_task_id.in_(part)
            held = (Annotation.tool_uid == tool_uid, ~Annotation.is_deleted, which)
            tasks = select(Annotation.task_id).where(*held)
            with self._database.write() as session:
                _forget(session, tool_uid, TaskState.task_id.in_(tasks))
                _withdraw(session, tool_uid, which)

    def misplaced(self, project_id: int) -> list[int]:
        """Row ids of annotations that were read, of regions that are not inside their images.

        Regions are believed while the size of their image is not known.
        """
        is_before = or_(CropTask.row < 0, CropTask.col < 0)
        is_beyond = or_(
            _sum(CropTask.row, CropTask.height) > Image.height,
            _sum(CropTask.col, CropTask.width) > Image.width,
        )
        is_empty = or_(CropTask.height < 1, CropTask.width < 1)
        query = (
            select(CropTask.id)
            .join(Image, Image.id == CropTask.image_id)
            .where(CropTask.project_id == project_id, CropTask.state == "done")
            .where(or_(is_before, is_beyond, is_empty))
        )
        of_annotations = select(Annotation.id).where(
            ~Annotation.is_deleted, Annotation.error.is_(None)
        )
        with self._database.read() as session:
            return [
                row_id
                for part in parts(session.scalars(query).all(), BATCH)
                for row_id in session.scalars(
                    of_annotations.where(Annotation.crop_task_id.in_(part))
                )
            ]

    def add(self, rows: Sequence[CropTask]) -> None:
        """Plan crop tasks: stored before they are made, so that none is made twice."""
        with self._database.write() as session:
            session.add_all(rows)

    def change(self, changes: Mapping[int, Mapping[str, Any]]) -> None:
        """Set columns of crop tasks, by row id."""
        with self._database.write() as session:
            for row_id, values in changes.items():
                assign(session.get_one(CropTask, row_id), values)

    def handed_out(self, image_id: int, version: int) -> list[Any] | None:
        """The regions that are handed out for an image under a version: those `in_force`.

        None where nothing was, or all was taken back.
        """
        query = select(Suggestion.regions).where(
            Suggestion.image_id == image_id, Suggestion.version == version
        )
        with self._database.read() as session:
            regions = session.scalars(query).first()
        return None if regions is None or _is_taken_back(regions) else in_force(regions)

    def hand_out(self, image_id: int, version: int, regions: list[Any]) -> list[Any]:
        """Remember what is handed out; if another request was first, its regions."""
        with self._database.write() as session:
            row = session.scalars(
                select(Suggestion).where(
                    Suggestion.image_id == image_id, Suggestion.version == version
                )
            ).first()
            if row is None:
                session.add(Suggestion(image_id=image_id, version=version, regions=regions))
                return regions
            if _is_taken_back(row.regions):
                places = [_place_of(entry) for entry in regions]
                kept = [entry for entry in row.regions if _place_of(entry) not in places]
                row.regions = [*regions, *kept]
            return in_force(row.regions)

    def take_back(self, project_id: int, version: int, wish_id: int | None) -> None:
        """Take back what was handed out under a version for another wish than this one, or none.

        So something else can be. What an annotation has begun from stays in force. The rest is
        marked: somebody may have it open, and submits it later.
        """
        begun = select(Annotation.image_id).where(
            Annotation.project_id == project_id,
            Annotation.suggested_version == version,
            Annotation.image_id.is_not(None),
        )
        of_project = select(Image.id).where(Image.project_id == project_id)
        may_go = (
            Suggestion.version == version,
            Suggestion.image_id.in_(of_project),
            Suggestion.image_id.not_in(begun),
        )
        wanted = {wish_id} - {None}
        with self._database.write() as session:
            rows = session.execute(select(Suggestion.id, Suggestion.regions).where(*may_go))
            gone = [row for row in rows if _wishes(row.regions) != wanted]
            empty = [row.id for row in gone if not row.regions]
            for part in parts(empty, BATCH):
                session.execute(delete(Suggestion).where(Suggestion.id.in_(part)))
            marked = [
                {"id": row.id, "regions": [{**it, "is_taken_back": True} for it in row.regions]}
                for row in gone
                if row.regions
            ]
            if marked:
                session.execute(update(Suggestion), marked)

    def _tasks(self, *conditions: ColumnElement[bool]) -> list[CropTask]:
        query = select(CropTask).where(*conditions)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(CropTask.round, CropTask.rank, CropTask.id)))


def _withdraw(session: Session, tool_uid: str, which: ColumnElement[bool]) -> None:
    """Annotations whose tasks are gone count no more; their rows are kept, for their return."""
    of_project = (Annotation.tool_uid == tool_uid, ~Annotation.is_deleted, which)
    regions = select(Annotation.crop_task_id).where(*of_project)
    marking = update(CropTask).where(CropTask.id.in_(regions)).values(state="deleted")
    session.execute(marking.execution_options(synchronize_session=False))
    session.execute(update(Annotation).where(*of_project).values(is_deleted=True))


def _forget(session: Session, tool_uid: str, which: ColumnElement[bool]) -> None:
    """How tasks were described: their annotations are read with the next list that has them."""
    forgetting = delete(TaskState).where(TaskState.tool_uid == tool_uid, which)
    session.execute(forgetting.execution_options(synchronize_session=False))


def _sum(start: InstrumentedAttribute[int], length: InstrumentedAttribute[int]) -> Any:
    """Of two columns, which may not fit into one of their kind."""
    return cast(start, BigInteger) + cast(length, BigInteger)


def _wishes(regions: Iterable[Mapping[str, Any]]) -> set[Any]:
    """The wishes that regions are handed out for."""
    return {entry["wish"] for entry in in_force(regions) if entry.get("wish") is not None}


def _is_taken_back(regions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether regions were handed out, and none is still."""
    return bool(regions) and not in_force(regions)


def _place_of(entry: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(entry[name] for name in ("row", "col", "height", "width"))
