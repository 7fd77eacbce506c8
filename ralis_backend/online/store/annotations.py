"""Annotations as the tool has them, from which labels are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, undefer

from ralis_backend.online.store.database import Database, now, pack
from ralis_backend.online.store.tables import Annotation, CropTask, Image, Project
from ralis_backend.online.tool import ToolAnnotation

_UNREAD = "it has not been read yet"


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
    ) -> Annotation | None:
        """Store an annotation as the tool has it.

        Until `Labels.put` it counts as one that could not be read, so that a kill in between loses
        nothing.

        Returns:
            The row if its labels must be read (again); None if nothing changed or a newer state
            of it is stored already.
        """
        digest = _digest(annotation)
        with self._database.write() as session:
            row = _find_or_add(session, project, tool_uid, annotation)
            if row.updated_at > annotation.updated_at:
                return None
            is_same = row.digest == digest and row.image_id is not None and not row.is_deleted
            _note(row, annotation, image, crop_task)
            if is_same and row.error is None:
                return None
            row.is_skipped, row.is_deleted = annotation.is_skipped, False
            row.digest, row.payload = digest, pack(annotation_to_json(annotation))
            row.error = _UNREAD
            session.flush()
            return row

    def fail(self, annotation: Annotation, message: str) -> None:
        """Note that an annotation could not be read; it stays stored and is tried again."""
        with self._database.write() as session:
            session.get_one(Annotation, annotation.id).error = message

    def reread(self, row_ids: Sequence[int]) -> None:
        """Have the labels of these read once more from what annotators sent."""
        with self._database.write() as session:
            for row_id in row_ids:
                session.get_one(Annotation, row_id).error = _UNREAD

    def failed(self, project_id: int) -> list[Annotation]:
        """Annotations that could not be read so far, with their payloads."""
        query = (
            select(Annotation)
            .where(
                Annotation.project_id == project_id,
                Annotation.error.is_not(None),
                ~Annotation.is_deleted,
            )
            .options(undefer(Annotation.payload))
        )
        with self._database.read() as session:
            return list(session.scalars(query))

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

    def withdraw_unseen(self, tool_uid: str, since: datetime, task_ids: Sequence[int]) -> None:
        """After a full reading that began at `since`: what it did not see was deleted.

        Only where the task still exists: when a task or a whole project vanishes, its labels
        are kept.
        """
        existing = set(task_ids)
        with self._database.write() as session:
            for row in session.scalars(
                select(Annotation).where(
                    Annotation.tool_uid == tool_uid,
                    Annotation.seen_at < since,
                    ~Annotation.is_deleted,
                )
            ):
                if row.task_id in existing:
                    _withdraw(session, row)


def version_number(name: str | None) -> int | None:
    """3 of `v3`; None for names that are not ours."""
    digits = (name or "").removeprefix("v")
    return int(digits) if digits.isdecimal() else None


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
            created_at=annotation.created_at,
            updated_at=annotation.updated_at,
            digest="",
        )
        session.add(row)
    return row


def _note(
    row: Annotation, annotation: ToolAnnotation, image: Image | None, crop_task: CropTask | None
) -> None:
    """What may change without anybody painting."""
    row.seen_at = now()
    row.task_id = annotation.task_id
    row.image_id = image.id if image else row.image_id
    row.crop_task_id = crop_task.id if crop_task else row.crop_task_id
    row.annotator = annotation.annotator
    row.updated_at = annotation.updated_at
    row.lead_time_s = annotation.lead_time_s
    row.suggested_version = version_number(annotation.suggested_version)


def _isoformat(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _withdraw(session: Session, annotation: Annotation) -> None:
    annotation.is_deleted = True
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
    crop_task = session.get_one(CropTask, annotation.crop_task_id)
    if not others and crop_task.state == "done":
        crop_task.state = "open"
