"""The images of a project: the tasks of its pool."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from ralis_backend.online.store.database import Database, assign, now
from ralis_backend.online.store.tables import Image
from ralis_backend.online.tool import ToolTask

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(days=1)


class Images:
    """Images by project and task."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, project_id: int) -> list[Image]:
        """The images of a project that still exist, in the order of its tasks."""
        query = select(Image).where(Image.project_id == project_id, ~Image.is_deleted)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Image.id)))

    def get(self, image_id: int) -> Image:
        """One image by its row id."""
        with self._database.read() as session:
            return session.get_one(Image, image_id)

    def find(
        self, project_id: int, task_id: int, task_created_at: datetime | None = None
    ) -> Image | None:
        """The image of a task; without a creation time the newest with that id."""
        query = select(Image).where(Image.project_id == project_id, Image.task_id == task_id)
        if task_created_at is not None:
            query = query.where(Image.task_created_at == task_created_at)
        with self._database.read() as session:
            return session.scalars(query.order_by(Image.is_deleted, Image.id.desc())).first()

    def reconcile(self, project_id: int, tasks: Sequence[ToolTask]) -> None:
        """Make the project's images equal to the tasks; images that are gone are marked so."""
        with self._database.write() as session:
            rows = session.scalars(select(Image).where(Image.project_id == project_id))
            known = {(row.task_id, row.task_created_at): row for row in rows}
            for task in tasks:
                row = known.pop((task.id, task.created_at), None)
                if row is None:
                    session.add(
                        Image(
                            project_id=project_id,
                            task_id=task.id,
                            task_created_at=task.created_at,
                            ref=task.image,
                            error=None if task.image else "the task has no image",
                        )
                    )
                elif row.ref != task.image or row.is_deleted:
                    row.ref, row.is_deleted, row.error = task.image, False, None
                    row.height = row.width = None
                    row.num_failures, row.retry_at = 0, None
            for row in known.values():
                row.is_deleted = True

    def fail(self, image_id: int, message: str) -> None:
        """Note that an image cannot be used; it is tried again later, each time much later."""
        with self._database.write() as session:
            row = session.get_one(Image, image_id)
            row.error = message
            row.num_failures += 1
            pause = _FIRST_PAUSE * 4 ** min(row.num_failures - 1, 6)
            row.retry_at = now() + min(_LONGEST_PAUSE, pause)

    def to_try_again(self, project_id: int, moment: datetime, count: int) -> list[Image]:
        """At most `count` images whose pause after a failure is over at that moment."""
        query = (
            select(Image)
            .where(Image.project_id == project_id, ~Image.is_deleted, Image.retry_at <= moment)
            .order_by(Image.retry_at)
        )
        with self._database.read() as session:
            return list(session.scalars(query.limit(count)))

    def seen(self, image_id: int, size: tuple[int, int]) -> None:
        """Note that an image of (height, width) pixels was read."""
        height, width = size
        self.change(image_id, height=height, width=width, error=None, num_failures=0, retry_at=None)

    def change(self, image_id: int, **values: Any) -> None:
        """Set columns of an image."""
        with self._database.write() as session:
            assign(session.get_one(Image, image_id), values)
