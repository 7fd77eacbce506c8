"""The side of training and validation that a picture is on, in whatever tasks show it."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ralis_backend.online.store.tables import Image


def side_of_content(session: Session, image: Image) -> bool | None:
    """Whether the picture is held out in the tasks that show it; None: in none yet.

    Tasks that are gone count too: what was learned of them is not unlearned.
    """
    if image.content is None:
        return image.is_validation
    query = select(Image.is_validation).where(
        Image.project_id == image.project_id,
        Image.content == image.content,
        Image.is_validation.is_not(None),
    )
    sides = set(session.scalars(query))
    return all(sides) if sides else None


def unite(session: Session, image: Image) -> None:
    """Bring all tasks of a picture to one side of training and validation."""
    side = side_of_content(session, image)
    if side is None:
        return
    session.execute(
        update(Image)
        .where(
            Image.project_id == image.project_id,
            Image.content == image.content,
            Image.is_validation.is_not(None),
            Image.is_validation != side,
        )
        .values(is_validation=side)
    )
