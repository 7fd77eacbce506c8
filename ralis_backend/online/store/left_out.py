"""Annotations that do not count as a whole, in queries."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import Exists, Select, exists, func, or_, select
from sqlalchemy.orm import Session

from ralis_backend.online.left_out import LeftOut, bounded
from ralis_backend.online.store.tables import Annotation, Image, Label, TaskState

_Query = TypeVar("_Query", bound=Select)
UNREAD = "it has not been read yet"
REREAD = "unpainted pixels mean something else now: it is read again"
WAITING = (UNREAD, REREAD)
"""Errors of annotations whose turn to be read has not come: nothing is wrong with them."""


def find_left_out(session: Session, project_id: int, most: int | None) -> list[LeftOut]:
    """See `Annotations.left_out`."""
    query = _odd(project_id, select(Annotation, _has_label())).order_by(Annotation.id.desc())
    found = [
        LeftOut(
            row.annotation_id,
            row.task_id,
            row.tool_uid,
            is_read=row.error is None and bool(has_label),
            what=(*bounded([row.error] if row.error else []), *(row.left_out or ())),
        )
        for row, has_label in session.execute(query.limit(most))
    ]
    malformed = [it for state in _malformed(session, project_id) for it in _of_task(state)]
    return (malformed + found)[:most]


def count_left_out(session: Session, project_id: int) -> tuple[int, int]:
    """See `Annotations.count_left_out`."""
    counts = _odd(project_id, select(func.count(Annotation.id)))
    every = session.scalar(counts) or 0
    in_part = session.scalar(counts.where(Annotation.error.is_(None), _has_label())) or 0
    malformed = sum(len(state.unreadable or ()) for state in _malformed(session, project_id))
    return in_part, every - in_part + malformed


def _odd(project_id: int, query: _Query) -> _Query:
    """Of the tool's annotations those that do not count as a whole."""
    is_odd = or_(
        Annotation.left_out.is_not(None),
        Annotation.error.is_not(None) & Annotation.error.not_in(WAITING),
    )
    return (
        query.outerjoin(Image, Image.id == Annotation.image_id)
        .where(Annotation.project_id == project_id, ~Annotation.is_deleted, is_odd)
        .where(or_(Image.id.is_(None), ~Image.is_deleted))
    )


def _has_label() -> Exists:
    return exists().where(Label.annotation_row_id == Annotation.id, ~Label.is_skipped)


def _malformed(session: Session, project_id: int) -> list[TaskState]:
    query = select(TaskState).where(
        TaskState.project_id == project_id, TaskState.unreadable.is_not(None)
    )
    return list(session.scalars(query.order_by(TaskState.id.desc())))


def _of_task(state: TaskState) -> list[LeftOut]:
    return [
        LeftOut(annotation_id, state.task_id, state.tool_uid, is_read=False, what=(str(why),))
        for annotation_id, why in state.unreadable or ()
    ]
