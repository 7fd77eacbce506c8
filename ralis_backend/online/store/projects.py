"""The labelling projects, and which worker advances which."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import undefer

from ralis_backend.core.regions import VOID
from ralis_backend.online.store.database import Database, assign, now
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ClassLabel


class Projects:
    """Each labelling project by its uid, with its lease."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Project]:
        """All projects that still exist, oldest first."""
        with self._database.read() as session:
            found = session.scalars(select(Project).where(~Project.is_deleted).order_by(Project.id))
            return list(found)

    def find(self, uid: str) -> Project | None:
        """The project whose pool or regions project has this uid."""
        with self._database.read() as session:
            return session.scalars(
                select(Project).where(or_(Project.uid == uid, Project.regions_uid == uid))
            ).first()

    def get(self, uid: str) -> Project:
        """As `find`; `ValueError` if there is none."""
        found = self.find(uid)
        if found is None:
            known = ", ".join(project.uid for project in self.all()) or "none"
            raise ValueError(
                f"project {uid} is not known here (known: {known}); connect the backend to it in "
                "Label Studio, or run `ralis connect --project ID`"
            )
        return found

    def by_tool_id(self, tool_id: int) -> Project:
        """The newest project with this id in the labelling tool; `ValueError` if there is none."""
        with self._database.read() as session:
            found = session.scalars(
                select(Project)
                .where(or_(Project.tool_id == tool_id, Project.regions_tool_id == tool_id))
                .order_by(Project.is_deleted, Project.id.desc())
            ).first()
        if found is None:
            raise ValueError(
                f"project {tool_id} is not known here; run `ralis connect --project {tool_id}`"
            )
        return found

    def register(
        self, uid: str, tool_id: int, label_config: str, classes: Sequence[ClassLabel], title: str
    ) -> Project:
        """Make the project known, or bring its labels up to date.

        New labels get new class indices. A label that is gone keeps its index, so that masks
        stay valid, and is not offered any more.
        """
        with self._database.write() as session:
            known = select(Project).where(Project.uid == uid)
            project = session.scalars(known.options(undefer(Project.label_config))).first()
            if project is None:
                project = Project(uid=uid, tool_id=tool_id)
                session.add(project)
            project.title = title or project.title
            project.is_deleted = False
            if label_config and (project.label_config != label_config or not project.classes):
                project.label_config = label_config
                project.classes = _merge_classes(project.classes or [], classes)
                project.is_sync_requested = True
                project.is_prepared = False
            session.flush()
            return project

    def change(self, project_id: int, **values: Any) -> Project:
        """Set columns of a project and return it."""
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            assign(project, values)
            return project

    def begin_reading(self, project_id: int) -> Project:
        """Count one more reading of the tool, which answers every request made so far.

        It stays open, and due again, until `end_reading`: a request made meanwhile is another one.
        """
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            project.num_readings += 1
            project.open_reading = project.num_readings
            project.is_sync_requested = False
            return project

    def end_reading(self, project_id: int, number: int) -> Project:
        """Note that this reading has seen everything, unless another one was begun since."""
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            if project.open_reading == number:
                project.open_reading, project.synced_at = None, now()
            return project

    def acquire_lease(self, project_id: int, owner: str, seconds: float) -> bool:
        """Take or extend the lease; False if another worker holds it."""
        with self._database.write() as session:
            taken = session.execute(
                update(Project)
                .where(
                    Project.id == project_id,
                    or_(
                        Project.lease_owner.is_(None),
                        Project.lease_owner == owner,
                        Project.lease_until < now(),
                    ),
                )
                .values(lease_owner=owner, lease_until=now() + timedelta(seconds=seconds))
            )
            return bool(taken.rowcount == 1)  # type: ignore[attr-defined]

    def release_lease(self, project_id: int, owner: str) -> None:
        """Give the lease back, if it is still ours."""
        with self._database.write() as session:
            session.execute(
                update(Project)
                .where(Project.id == project_id, Project.lease_owner == owner)
                .values(lease_owner=None, lease_until=None)
            )


def _merge_classes(known: Sequence[Any], classes: Sequence[ClassLabel]) -> list[Any]:
    colors = {label.name: label.color for label in classes}
    merged = [
        {
            "name": entry["name"],
            "color": colors.get(entry["name"], entry["color"]),
            "is_active": entry["name"] in colors,
        }
        for entry in known
    ]
    names = {entry["name"] for entry in known}
    merged += [
        {"name": label.name, "color": label.color, "is_active": True}
        for label in classes
        if label.name not in names
    ]
    if len(merged) > VOID:
        raise ValueError(f"the project has had {len(merged)} labels, at most {VOID} are possible")
    return merged
