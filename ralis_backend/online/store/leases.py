"""Which worker advances a project: leases that count, so that no machine's clock matters.

Whoever holds a lease counts its heartbeat up. Another worker takes over when it has itself seen the
count stand still for long enough, and only if it still stands as seen: the generation goes up, and
whatever the old owner writes from then on is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from ralis_backend.online.store.database import Database
from ralis_backend.online.store.tables import Project


class LeaseLost(BaseException):
    """Another worker advances the project: nothing may be written for it any more.

    No `Exception`: what handles the failure of one image or one annotation must not handle this.
    """


@dataclass(frozen=True)
class LeaseState:
    """A lease as it stands; `owner` is None where nobody holds it."""

    owner: str | None
    generation: int
    heartbeat: int


class Leases:
    """The leases of the projects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self, project_id: int) -> LeaseState:
        """The lease as it stands now."""
        with self._database.read() as session:
            row = session.execute(
                select(
                    Project.lease_owner, Project.lease_generation, Project.lease_heartbeat
                ).where(Project.id == project_id)
            ).one()
            return LeaseState(*row)

    def take(self, project_id: int, owner: str, seen: LeaseState) -> int | None:
        """Take the lease if it still stands as `seen`.

        Taken from another worker, the project is read as a whole first: what that worker did last
        in the tool may not be stored.

        Returns:
            The new generation; None if the lease has changed meanwhile.
        """
        generation = seen.generation + 1
        values = {"lease_owner": owner, "lease_generation": generation, "lease_heartbeat": 0}
        if seen.owner is not None:
            values["is_sync_requested"] = True
        taken = self._update(
            [
                Project.id == project_id,
                Project.lease_owner.is_not_distinct_from(seen.owner),
                Project.lease_generation == seen.generation,
                Project.lease_heartbeat == seen.heartbeat,
            ],
            values,
        )
        return generation if taken else None

    def beat(self, project_id: int, owner: str, generation: int) -> bool:
        """Show that the owner is alive; False if the lease is another worker's now."""
        beaten = {"lease_heartbeat": Project.lease_heartbeat + 1}
        return self._update(_held_by(project_id, owner, generation), beaten)

    def release(self, project_id: int, owner: str, generation: int) -> None:
        """Give the lease back, if it is still ours."""
        self._update(_held_by(project_id, owner, generation), {"lease_owner": None})

    def _update(self, conditions: Sequence[ColumnElement[bool]], values: Mapping[str, Any]) -> bool:
        with self._database.write() as session:
            done = session.execute(update(Project).where(*conditions).values(values))
            return bool(done.rowcount == 1)  # type: ignore[attr-defined]


def require_lease(session: Session, project_id: int, owner: str, generation: int) -> None:
    """Refuse to go on in this transaction unless the lease is held.

    Nobody takes it before the end of one that writes: these come one after the other.

    Raises:
        LeaseLost: if another worker has taken over.
    """
    query = select(Project.id).where(*_held_by(project_id, owner, generation))
    if session.scalar(query) is None:
        raise LeaseLost(f"project row {project_id}: another worker has taken over")


def _held_by(project_id: int, owner: str, generation: int) -> list[ColumnElement[bool]]:
    return [
        Project.id == project_id,
        Project.lease_owner == owner,
        Project.lease_generation == generation,
    ]
