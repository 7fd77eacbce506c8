"""What an annotation of a whole image began from: decided once, and kept with it.

What is handed out later, and where the annotation is moved to, change nothing of it.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ralis_backend.online.store.queue import in_force
from ralis_backend.online.store.tables import Annotation, Suggestion
from ralis_backend.online.tool import ToolAnnotation

_PLACE = ("row", "col", "height", "width")


def note_start(
    session: Session,
    row: Annotation,
    annotation: ToolAnnotation,
    *,
    is_told_now: bool,
    shows_boxes: bool,
) -> bool:
    """Note with an annotation what it began from, if that is not known yet; whether it changed.

    A duplicate that names no version began from what its original did.

    Args:
        session: a transaction that may write.
        row: the annotation, where it lies by now.
        annotation: as the tool has it.
        is_told_now: whether the tool tells for the first time which version it is.
        shows_boxes: whether suggested regions are shown as boxes on whole images.
    """
    before = (row.begun_from, row.is_start_lost)
    original = _original(session, row, annotation)
    if original is not None:
        row.suggested_version = original.suggested_version
        row.begun_from, row.is_start_lost = original.begun_from, original.is_start_lost
    elif row.image_id is not None and (row.begun_from is None or is_told_now):
        row.begun_from, row.is_start_lost = _start(session, row, annotation, shows_boxes)
    return (row.begun_from, row.is_start_lost) != before


def _original(session: Session, row: Annotation, annotation: ToolAnnotation) -> Annotation | None:
    """What an annotation that names no version is a duplicate of, if that is known."""
    if row.suggested_version is not None or annotation.copied_from is None:
        return None
    query = select(Annotation).where(
        Annotation.tool_uid == row.tool_uid,
        Annotation.annotation_id == annotation.copied_from,
        Annotation.created_at <= row.created_at,  # the tool may hand out ids again
        Annotation.begun_from.is_not(None),
    )
    return session.scalars(query.order_by(Annotation.id.desc())).first()


def _start(
    session: Session, row: Annotation, annotation: ToolAnnotation, shows_boxes: bool
) -> tuple[list[list[int]], bool]:
    """The regions that it began from, and whether nobody knows which of these.

    One that names no version may have begun from whatever was handed out for its image by now, but
    for boxes, which cannot be deleted, and unless it names a prediction of others.
    """
    is_named = row.suggested_version is not None
    is_of_none = not is_named and (annotation.is_of_others or shows_boxes)
    if row.crop_task_id is not None or is_of_none:
        return [], False
    query = select(Suggestion.regions).where(Suggestion.image_id == row.image_id)
    if is_named:
        query = query.where(Suggestion.version == row.suggested_version)
    entries = [entry for regions in session.scalars(query) for entry in regions]
    places = dict.fromkeys(tuple(entry[name] for name in _PLACE) for entry in entries)
    is_lost = not is_named or len(in_force(entries)) < len(entries)
    return [list(place) for place in places], bool(places) and is_lost
