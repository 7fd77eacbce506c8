"""Regions of a picture whose task is gone go on in another task of the pool that shows it."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session, aliased

from ralis_backend.online.store.sides import side_of_content
from ralis_backend.online.store.tables import Annotation, CropTask, Image, Label, Project


def hand_on(session: Session, project_id: int, content: str | None = None) -> list[Image]:
    """Move the tasks of regions, with what is labelled in them, off images that are gone.

    Each goes to the first image that shows the same pixels and still exists. Without one they stay
    until there is. Annotations of whole images stay: the tool has deleted them with their task.

    Args:
        session: of a transaction that writes.
        project_id: of the project.
        content: of the images that may be gone; None: whichever.

    Returns:
        The images that got labels.
    """
    living = aliased(Image)
    query = (
        select(Image.id, func.min(living.id))
        .join(living, living.content == Image.content)
        .where(Image.project_id == project_id, living.project_id == project_id)
        .where(Image.is_deleted, ~living.is_deleted)
        .where(select(CropTask.id).where(CropTask.image_id == Image.id).exists())
        .group_by(Image.id)
    )
    if content is not None:
        query = query.where(Image.content == content)
    heirs: dict[int, Image] = {}
    for gone_id, heir_id in session.execute(query).all():
        gone, heir = session.get_one(Image, gone_id), session.get_one(Image, heir_id)
        if _move(session, gone, heir):
            heirs[heir.id] = heir
    return list(heirs.values())


def _move(session: Session, gone: Image, heir: Image) -> bool:
    """Move regions to an heir; whether labels went along.

    What a training lacked of one of them, it lacked of the heir.
    """
    of_regions = select(Annotation.id).where(
        Annotation.image_id == gone.id, Annotation.crop_task_id.is_not(None)
    )
    labels = Label.annotation_row_id.in_(of_regions)
    has_labels = _is_any(session, Label.image_id == gone.id, labels)
    if has_labels:
        trained = session.get_one(Project, heir.project_id).trained_label_id
        lacked = Label.id.between(gone.trained_label_id + 1, trained)
        if not _is_any(session, Label.image_id == heir.id):
            heir.trained_label_id = gone.trained_label_id
        elif _is_any(session, Label.image_id == gone.id, labels, lacked, ~Label.is_skipped):
            heir.trained_label_id = min(gone.trained_label_id, heir.trained_label_id)
        if heir.is_validation is None:
            heir.is_validation = side_of_content(session, heir)
    for moving in (
        update(Label).where(Label.image_id == gone.id, labels),
        update(Annotation).where(Annotation.id.in_(of_regions)),
        update(CropTask).where(CropTask.image_id == gone.id),
    ):
        moved = moving.values(image_id=heir.id)
        session.execute(moved.execution_options(synchronize_session=False))
    return has_labels


def _is_any(session: Session, *which: ColumnElement[bool]) -> bool:
    return session.scalar(select(Label.id).where(*which).limit(1)) is not None
