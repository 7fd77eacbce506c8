"""The versions of a project's segmenter."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, or_, select

from ralis_backend.online.store.database import Database, assign
from ralis_backend.online.store.tables import Project, Version


class Versions:
    """Trained segmenters by project and number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, project_id: int) -> list[Version]:
        """All versions, oldest first."""
        with self._database.read() as session:
            return list(
                session.scalars(
                    select(Version).where(Version.project_id == project_id).order_by(Version.number)
                )
            )

    def find(self, project_id: int, number: int) -> Version | None:
        """One version by its number."""
        with self._database.read() as session:
            return session.scalars(
                select(Version).where(Version.project_id == project_id, Version.number == number)
            ).first()

    def next_number(self, project_id: int) -> int:
        """The number of the version that is trained next."""
        with self._database.read() as session:
            newest = select(func.max(Version.number)).where(Version.project_id == project_id)
            return 1 + (session.scalar(newest) or 0)

    def serving(self, project: Project) -> Version | None:
        """The version that answers: the one in use, or the one before until that is ranked."""
        is_in_use = Version.number == project.current_version
        query = (
            select(Version)
            .where(Version.project_id == project.id, or_(Version.ranked_at.is_not(None), is_in_use))
            .order_by(Version.ranked_at.is_(None), ~is_in_use, Version.number.desc())
        )
        with self._database.read() as session:
            return session.scalars(query.limit(1)).first()

    def add(self, version: Version, **project_values: Any) -> Version:
        """Store a version and set columns of its project, together."""
        with self._database.write() as session:
            session.add(version)
            project = session.get_one(Project, version.project_id)
            assign(project, project_values)
            session.flush()
            return version

    def change(self, version_id: int, **values: Any) -> None:
        """Set columns of a version; `metrics` is merged into what is there."""
        with self._database.write() as session:
            row = session.get_one(Version, version_id)
            metrics = values.pop("metrics", None)
            if metrics:
                row.metrics = {**row.metrics, **metrics}
            assign(row, values)
