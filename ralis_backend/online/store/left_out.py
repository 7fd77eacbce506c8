"""Annotations that do not count as a whole, in queries."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import ColumnElement, Exists, Select, exists, func, or_, select, update
from sqlalchemy.orm import Session

from ralis_backend.online.left_out import LeftOut, bounded
from ralis_backend.online.store.tables import Annotation, Image, Label, TaskState

_Query = TypeVar("_Query", bound=Select)
UNREAD = "it has not been read yet"
REREAD = "unpainted pixels mean something else now: it is read again"
SAID_NOTHING = "it cannot be read, and the error said nothing; it is tried again"
"""Where an empty error was stored by an earlier release."""
WAITING = (UNREAD, REREAD)
"""Errors of annotations whose turn to be read has not come: nothing is wrong with them."""


def read_again(session: Session, why: str, *which: ColumnElement[bool]) -> int:
    """Have those of the annotations that were read be read once more, and how many these are.

    What was left out of them is to be found out anew.
    """
    has_been_read = (~Annotation.is_deleted, Annotation.error.is_(None))
    values = {"error": why, "left_out": None}
    done = session.execute(update(Annotation).where(*has_been_read, *which).values(values))
    return int(done.rowcount)  # type: ignore[attr-defined]


def find_left_out(session: Session, project_id: int, most: int | None) -> list[LeftOut]:
    """See `Annotations.left_out`."""
    newest_first = (Annotation.created_at.desc(), Annotation.id.desc())
    rows = [
        row
        for query in _odd(project_id, select(Annotation, _has_label()))
        for row in session.execute(query.order_by(*newest_first).limit(most))
    ]
    rows.sort(key=lambda row: (row.Annotation.created_at, row.Annotation.id), reverse=True)
    malformed = [it for state in _malformed(session, project_id) for it in _of_task(state)]
    return (malformed + [_of_annotation(*row) for row in rows])[:most]


def count_left_out(session: Session, project_id: int) -> tuple[int, int]:
    """See `Annotations.count_left_out`."""
    every = in_part = 0
    for query in _odd(project_id, select(func.count(Annotation.id))):
        every += session.scalar(query) or 0
        in_part += session.scalar(query.where(Annotation.error.is_(None), _has_label())) or 0
    malformed = sum(len(state.unreadable or ()) for state in _malformed(session, project_id))
    return in_part, every - in_part + malformed


def _odd(project_id: int, query: _Query) -> tuple[_Query, _Query]:
    """Of the annotations that count those that do not do so as a whole, in two disjoint queries.

    Each has an index of its own: what is searched stands behind the payload in a row, and whole
    payloads would be read to find it.
    """
    counting = (
        query.outerjoin(Image, Image.id == Annotation.image_id)
        .where(Annotation.project_id == project_id, ~Annotation.is_deleted)
        .where(or_(Image.id.is_(None), ~Image.is_deleted))
    )
    return (
        counting.where(Annotation.left_out.is_not(None)),
        counting.where(
            Annotation.error.is_not(None),
            Annotation.error.not_in(WAITING),
            Annotation.left_out.is_(None),
        ),
    )


def _has_label() -> Exists:
    return exists().where(Label.annotation_row_id == Annotation.id, ~Label.is_skipped)


def _malformed(session: Session, project_id: int) -> list[TaskState]:
    query = select(TaskState).where(
        TaskState.project_id == project_id, TaskState.unreadable.is_not(None)
    )
    return list(session.scalars(query.order_by(TaskState.id.desc())))


def _of_annotation(row: Annotation, has_label: bool) -> LeftOut:
    return LeftOut(
        row.annotation_id,
        row.task_id,
        row.tool_uid,
        is_read=row.error is None and bool(has_label),
        what=(
            *bounded([row.error or SAID_NOTHING] if row.error is not None else []),
            *(row.left_out or ()),
        ),
    )


def _of_task(state: TaskState) -> list[LeftOut]:
    return [
        LeftOut(annotation_id, state.task_id, state.tool_uid, is_read=False, what=(str(why),))
        for annotation_id, why in state.unreadable or ()
    ]
