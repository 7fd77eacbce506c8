"""What annotations say besides paint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ralis_backend.online.answers import Answer
from ralis_backend.online.store.database import Database
from ralis_backend.online.store.tables import Annotation, CropTask, Image, StoredAnswer

_SOURCE = (
    Annotation.image_id,
    Annotation.annotator,
    Annotation.updated_at,
    Annotation.lead_time_s,
    Annotation.suggested_version,
)


class Answers:
    """Answers by project. They are written with the labels of their annotation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, project_id: int) -> list[Answer]:
        """The answers of annotations and images that still exist, oldest first."""
        query = (
            select(StoredAnswer, CropTask, *_SOURCE)
            .join(Annotation, Annotation.id == StoredAnswer.annotation_row_id)
            .join(Image, Image.id == Annotation.image_id)
            .outerjoin(CropTask, CropTask.id == Annotation.crop_task_id)
            .where(StoredAnswer.project_id == project_id)
            .where(~Annotation.is_deleted, ~Image.is_deleted)
            .order_by(Annotation.updated_at, StoredAnswer.id)
        )
        with self._database.read() as session:
            return [_answer(row) for row in session.execute(query)]


def replace_answers(session: Session, annotation: Annotation, answers: Mapping[str, Any]) -> None:
    """Make the stored answers of an annotation equal to these, value by kind."""
    session.execute(delete(StoredAnswer).where(StoredAnswer.annotation_row_id == annotation.id))
    session.add_all(
        StoredAnswer(
            project_id=annotation.project_id,
            annotation_row_id=annotation.id,
            kind=kind,
            value=value,
        )
        for kind, value in answers.items()
    )


def _answer(row: Any) -> Answer:
    return Answer(
        kind=row.StoredAnswer.kind,
        value=row.StoredAnswer.value,
        image_id=row.image_id,
        region=row.CropTask.region if row.CropTask else None,
        annotation_row_id=row.StoredAnswer.annotation_row_id,
        annotator=row.annotator,
        answered_at=row.updated_at,
        seconds=row.lead_time_s,
        version=row.suggested_version,
    )
