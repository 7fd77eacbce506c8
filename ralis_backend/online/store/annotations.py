"""Annotations as the tool has them, from which labels are read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session, undefer

from ralis_backend.online.left_out import MOST_NAMED, LeftOut, summary
from ralis_backend.online.store.database import BATCH, Database, pack, parts
from ralis_backend.online.store.left_out import (
    UNREAD,
    WAITING,
    count_left_out,
    find_left_out,
)
from ralis_backend.online.store.readings import is_kept, keep_state
from ralis_backend.online.store.starts import note_start
from ralis_backend.online.store.tables import (
    Annotation,
    CropTask,
    Image,
    Label,
    Project,
)
from ralis_backend.online.tool import TaskAnnotations, ToolAnnotation


class Annotations:
    """Annotations by the tool's project, id and creation time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        project: Project,
        tool_uid: str,
        annotation: ToolAnnotation,
        image: Image | None,
        crop_task: CropTask | None,
        *,
        shows_boxes: bool = False,
    ) -> Annotation | None:
        """Store an annotation as the tool has it now, whatever was stored and however it is dated.

        Until `Labels.put` it counts as one that could not be read, so that a kill in between loses
        nothing.

        Args:
            project: whose annotation it is.
            tool_uid: of the tool's project in which it is.
            annotation: as the tool has it.
            image: that it labels; None: it is not known yet.
            crop_task: the region's task, if it is of one.
            shows_boxes: whether suggested regions are shown as boxes on whole images: who has none
                of them began from none.

        Returns:
            The row if its labels must be read (again); None if nothing changed.
        """
        with self._database.write() as session:
            return _put(session, project, tool_uid, annotation, image, crop_task, shows_boxes)

    def put_task(
        self,
        project: Project,
        tool_uid: str,
        found: TaskAnnotations,
        image: Image | None,
        crop_task: CropTask | None,
        *,
        shows_boxes: bool = False,
    ) -> list[Annotation]:
        """Store all annotations of a task as the tool has them now, in one transaction.

        What is stored of this task and the tool has no more is withdrawn; the rows are kept.
        Where all is as it is stored, nothing is written.

        Returns:
            As `put`, the rows whose labels must be read.
        """
        with self._database.read() as session:
            if _is_stored(session, tool_uid, found, image, crop_task):
                return []
        with self._database.write() as session:
            rows = [
                _put(session, project, tool_uid, annotation, image, crop_task, shows_boxes)
                for annotation in sorted(found.annotations, key=lambda it: it.id)  # originals first
            ]
            _withdraw_others(session, tool_uid, found, image, crop_task)
            keep_state(session, project.id, tool_uid, found)
            return [row for row in rows if row is not None]

    def fail(self, annotation: Annotation, message: str) -> None:
        """Note that an annotation could not be read; it stays stored and is tried again."""
        if annotation.error == message:
            return
        with self._database.write() as session:
            session.get_one(Annotation, annotation.id).error = message

    def reread(self, row_ids: Sequence[int]) -> None:
        """Have the labels of these read once more from what annotators sent."""
        with self._database.write() as session:
            for row_id in row_ids:
                session.get_one(Annotation, row_id).error = UNREAD

    def failed(self, project_id: int) -> list[Annotation]:
        """Annotations that could not be read so far, with their payloads."""
        return list(self.unread(project_id))

    def unread(self, project_id: int) -> Iterator[Annotation]:
        """As `failed`, one after the other: payloads are large."""
        return self._each(self.unread_ids(project_id))

    def waiting(self, project_id: int) -> Iterator[Annotation]:
        """Of `unread` those with which nothing is wrong: their turn has not come yet."""
        return self._each(self.waiting_ids(project_id))

    def unread_ids(self, project_id: int) -> list[int]:
        """The row ids of those that could not be read so far."""
        return self._ids(project_id, Annotation.error.is_not(None))

    def waiting_ids(self, project_id: int) -> list[int]:
        """The row ids of `waiting`."""
        return self._ids(project_id, Annotation.error.is_not(None), Annotation.error.in_(WAITING))

    def _each(self, row_ids: Sequence[int]) -> Iterator[Annotation]:
        for row_id in row_ids:
            with self._database.read() as session:
                found = session.get_one(Annotation, row_id, options=[undefer(Annotation.payload)])
            yield found

    def _ids(self, project_id: int, *which: ColumnElement[bool]) -> list[int]:
        query = select(Annotation.id).where(Annotation.project_id == project_id, *which)
        with self._database.read() as session:
            return list(session.scalars(query.where(~Annotation.is_deleted)))

    def left_out(self, project_id: int, most: int | None = None) -> list[LeftOut]:
        """The submitted annotations that do not count as a whole, newest first, and why.

        Of annotations that the tool still has, of images that still exist; without those whose
        turn to be read has not come yet.

        Args:
            project_id: of the project, whose pool and regions are looked at.
            most: so many at most; None: all.
        """
        with self._database.read() as session:
            return find_left_out(session, project_id, most)

    def count_left_out(self, project_id: int) -> tuple[int, int]:
        """How many `left_out` gives: of which a part counts, of which nothing counts."""
        with self._database.read() as session:
            return count_left_out(session, project_id)

    def left_out_note(self, project_id: int) -> str | None:
        """In a sentence how many `left_out` gives, and which; None if every annotation counts."""
        in_part, not_at_all = self.count_left_out(project_id)
        newest = self.left_out(project_id, MOST_NAMED) if in_part + not_at_all else []
        return summary(in_part, not_at_all, newest)

    def tasks_of(self, tool_uid: str, annotation_ids: Collection[int]) -> set[int]:
        """The tasks that these annotations are known of."""
        query = select(Annotation.task_id).where(Annotation.tool_uid == tool_uid)
        with self._database.read() as session:
            return {
                task_id
                for part in parts(annotation_ids, BATCH)
                for task_id in session.scalars(query.where(Annotation.annotation_id.in_(part)))
            }

    def count(self, tool_uid: str) -> int:
        """How many of a tool's project count, those that could not be read included."""
        query = select(func.count()).select_from(Annotation)
        with self._database.read() as session:
            found = query.where(Annotation.tool_uid == tool_uid, ~Annotation.is_deleted)
            return session.scalar(found) or 0

    def count_machine(self, project_id: int) -> int:
        """How many were made from predictions in bulk, and are not counted as anybody's."""
        query = select(func.count()).select_from(Annotation)
        with self._database.read() as session:
            found = query.where(
                Annotation.project_id == project_id, Annotation.is_machine, ~Annotation.is_deleted
            )
            return session.scalar(found) or 0

    def withdraw(self, tool_uid: str, annotation_ids: Sequence[int]) -> None:
        """An annotator deleted these: their labels do not count any more; the rows are kept."""
        with self._database.write() as session:
            for annotation_id in annotation_ids:
                row = session.scalars(
                    select(Annotation)
                    .where(
                        Annotation.tool_uid == tool_uid, Annotation.annotation_id == annotation_id
                    )
                    .order_by(Annotation.id.desc())
                ).first()
                if row is not None:
                    _withdraw(session, row)


def version_number(name: str | None) -> int | None:
    """3 of `v3`; None for names that are not ours."""
    digits = (name or "").removeprefix("v")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else None


def annotation_to_json(annotation: ToolAnnotation) -> dict[str, Any]:
    """An annotation as JSON values; the inverse of `annotation_from_json`."""
    return {
        "id": annotation.id,
        "task_id": annotation.task_id,
        "task_created_at": _isoformat(annotation.task_created_at),
        "annotator": annotation.annotator,
        "created_at": annotation.created_at.isoformat(),
        "updated_at": annotation.updated_at.isoformat(),
        "lead_time_s": annotation.lead_time_s,
        "is_skipped": annotation.is_skipped,
        "results": list(annotation.results),
        "suggested_version": annotation.suggested_version,
        "is_starred": annotation.is_starred,
        "is_machine": annotation.is_machine,
        "copied_from": annotation.copied_from,
        "is_of_others": annotation.is_of_others,
    }


def annotation_from_json(values: Mapping[str, Any]) -> ToolAnnotation:
    """The annotation that `annotation_to_json` wrote."""
    task_created_at = values["task_created_at"]
    return ToolAnnotation(
        **{
            **values,
            "task_created_at": task_created_at and datetime.fromisoformat(task_created_at),
            "created_at": datetime.fromisoformat(values["created_at"]),
            "updated_at": datetime.fromisoformat(values["updated_at"]),
        }
    )


def _digest(annotation: ToolAnnotation) -> str:
    """Of what was painted: events and the API tell the rest of it in different words."""
    return hashlib.sha256(pack([annotation.is_skipped, list(annotation.results)])).hexdigest()


def _put(
    session: Session,
    project: Project,
    tool_uid: str,
    annotation: ToolAnnotation,
    image: Image | None,
    crop_task: CropTask | None,
    shows_boxes: bool,
) -> Annotation | None:
    digest = _digest(annotation)
    row = _find_or_add(session, project, tool_uid, annotation)
    is_repainted = row.digest != digest
    is_same = not is_repainted and row.image_id is not None and not row.is_deleted
    is_moved = _place(session, row, annotation, image, crop_task)
    is_same &= not _confirm(session, row, annotation, is_repainted)
    is_told_now = _note(row, annotation)
    with session.no_autoflush:  # of a row that has no payload yet
        is_same &= not note_start(
            session, row, annotation, is_told_now=is_told_now, shows_boxes=shows_boxes
        )
    if is_same and not is_moved and row.error is None:
        return None
    if is_repainted:
        row.painted_at, row.is_repainted = annotation.updated_at, True
    row.is_skipped, row.is_deleted = annotation.is_skipped, False
    row.digest, row.payload = digest, pack(annotation_to_json(annotation))
    row.error, row.left_out = UNREAD, None
    session.flush()
    return row


def _is_stored(
    session: Session,
    tool_uid: str,
    found: TaskAnnotations,
    image: Image | None,
    crop_task: CropTask | None,
) -> bool:
    """Whether everything of a task is stored, and read, as it was found."""
    query = select(Annotation).where(
        Annotation.tool_uid == tool_uid,
        Annotation.task_id == found.task.id,
        ~Annotation.is_deleted,
    )
    rows = {(row.annotation_id, row.created_at): row for row in session.scalars(query)}
    place = (image and image.id, crop_task and crop_task.id)
    return (
        rows.keys() == {(it.id, it.created_at) for it in found.annotations}
        and not any(row.error for row in rows.values())
        and all((row.image_id, row.crop_task_id) == place for row in rows.values())
        and all(_is_same(rows[it.id, it.created_at], it) for it in found.annotations)
        and is_kept(session, tool_uid, found.task)
    )


def _is_same(row: Annotation, annotation: ToolAnnotation) -> bool:
    annotator = annotation.annotator or row.annotator
    said = (annotator, annotation.updated_at, annotation.lead_time_s, annotation.is_starred)
    is_noted = said == (row.annotator, row.updated_at, row.lead_time_s, row.is_starred)
    return is_noted and row.digest == _digest(annotation)


def _find_or_add(
    session: Session, project: Project, tool_uid: str, annotation: ToolAnnotation
) -> Annotation:
    query = select(Annotation).where(
        Annotation.tool_uid == tool_uid,
        Annotation.annotation_id == annotation.id,
        Annotation.created_at == annotation.created_at,
    )
    row = session.scalars(query).first()
    if row is None:
        row = Annotation(
            project_id=project.id,
            tool_uid=tool_uid,
            annotation_id=annotation.id,
            task_id=annotation.task_id,
            created_at=annotation.created_at,
            annotator="",
            painted_at=annotation.updated_at,
            is_machine=annotation.is_machine,
            is_start_lost=False,
            digest="",
        )
        session.add(row)
    return row


def _place(
    session: Session,
    row: Annotation,
    annotation: ToolAnnotation,
    image: Image | None,
    crop_task: CropTask | None,
) -> bool:
    """Set what the annotation labels; whether that was something else before.

    A task that is not known (any more) leaves the annotation where it was. The labels go along to
    another task of the same picture, so that those which come out as they were stay as they are.
    """
    if image is None and row.task_id == annotation.task_id:
        return False
    place = (image.id if image else None, crop_task.id if crop_task else None)
    is_moved = row.image_id is not None and place != (row.image_id, row.crop_task_id)
    if is_moved:
        of_annotation = Label.annotation_row_id == row.id
        if image is not None and crop_task is None and _is_of_picture(session, row, image):
            session.execute(update(Label).where(of_annotation).values(image_id=image.id))
            _keep_side(session, row, image)
        else:
            session.execute(delete(Label).where(of_annotation))
        _reopen(session, row)
    row.task_id, (row.image_id, row.crop_task_id) = annotation.task_id, place
    return is_moved


def _keep_side(session: Session, row: Annotation, image: Image) -> None:
    """What goes along to an image is held out there as well, unless its side is decided."""
    before, after = (session.get_one(Image, it) for it in (row.image_id, image.id))
    if after.is_validation is None:
        after.is_validation = before.is_validation


def _is_of_picture(session: Session, row: Annotation, image: Image) -> bool:
    """Whether the image that an annotation labels as a whole shows the same picture as this one."""
    if row.crop_task_id is not None or row.image_id is None:
        return False
    before = session.get_one(Image, row.image_id)
    if before.content is None or image.content is None:
        return before.ref == image.ref
    return before.content == image.content


def _confirm(
    session: Session, row: Annotation, annotation: ToolAnnotation, is_repainted: bool
) -> bool:
    """Note whether a machine's annotation is a person's now, or the other way; True if so.

    The tool forgets that it came from a prediction with that prediction, and names whoever took a
    star away again; so it stays a machine's until it is painted on, timed, starred or skipped. A
    person's labels are new ones then.
    """
    is_machine = annotation.is_machine or (
        row.is_machine
        and not is_repainted
        and not annotation.lead_time_s
        and not annotation.is_starred
    )
    if is_machine == row.is_machine:
        return False
    row.is_machine = is_machine
    session.execute(delete(Label).where(Label.annotation_row_id == row.id))
    return True


def _note(row: Annotation, annotation: ToolAnnotation) -> bool:
    """What may change without anybody painting; whether it is told now what it started from.

    The version that an annotation started from stays as it was first told: the tool forgets it
    with its predictions, and people with their accounts.
    """
    row.annotator = annotation.annotator or row.annotator
    row.is_starred = annotation.is_starred
    row.updated_at = annotation.updated_at
    row.lead_time_s = annotation.lead_time_s
    if row.suggested_version is None:
        row.suggested_version = version_number(annotation.suggested_version)
        return row.suggested_version is not None or (annotation.is_of_others and row.is_start_lost)
    return False


def _isoformat(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _withdraw_others(
    session: Session,
    tool_uid: str,
    found: TaskAnnotations,
    image: Image | None,
    crop_task: CropTask | None,
) -> None:
    """Withdraw what is stored of the task and not among what was found.

    A task that had the id before is another one: its annotations are kept. An annotation that had
    the id before is gone.
    """
    listed = {(annotation.id, annotation.created_at) for annotation in found.annotations}
    query = select(Annotation).where(
        Annotation.tool_uid == tool_uid,
        Annotation.task_id == found.task.id,
        ~Annotation.is_deleted,
    )
    for row in session.scalars(query):
        is_here = row.image_id is None or (
            row.image_id == (image and image.id)
            and row.crop_task_id == (crop_task and crop_task.id)
        )
        is_listed = (row.annotation_id, row.created_at) in listed
        if is_here and not is_listed and row.annotation_id not in found.unreadable:
            _withdraw(session, row)


def _withdraw(session: Session, annotation: Annotation) -> None:
    annotation.is_deleted = True
    _reopen(session, annotation)


def _reopen(session: Session, annotation: Annotation) -> None:
    """Ask for the region again, unless another annotation labels it."""
    if annotation.crop_task_id is None:
        return
    others = session.scalar(
        select(func.count())
        .select_from(Annotation)
        .where(
            Annotation.crop_task_id == annotation.crop_task_id,
            Annotation.id != annotation.id,
            ~Annotation.is_deleted,
        )
    )
    if not others:
        session.execute(
            update(CropTask)
            .where(CropTask.id == annotation.crop_task_id, CropTask.state == "done")
            .values(state="open")
        )
