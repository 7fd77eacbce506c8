"""Webhooks as they came, kept until the worker has read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select

from ralis_backend.online.store.database import Database, now, pack
from ralis_backend.online.store.tables import Event, Project


class Events:
    """Webhooks that nobody has read yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, tool_uid: str, action: str, payload: Mapping[str, Any]) -> None:
        """Store a webhook as it came."""
        row = Event(tool_uid=tool_uid, action=action, payload=pack(payload), received_at=now())
        with self._database.write() as session:
            session.add(row)

    def unread(self, project: Project, limit: int = 100) -> list[Event]:
        """The oldest unread events of a project and its regions project."""
        with self._database.read() as session:
            return list(
                session.scalars(
                    select(Event)
                    .where(Event.tool_uid.in_(_uids(project)))
                    .order_by(Event.id)
                    .limit(limit)
                )
            )

    def has_unread(self, project: Project) -> bool:
        """Whether `unread` would give any."""
        with self._database.read() as session:
            found = select(Event.id).where(Event.tool_uid.in_(_uids(project))).limit(1)
            return session.scalar(found) is not None

    def drop(self, *event_ids: int) -> None:
        """Forget events that have been read."""
        with self._database.write() as session:
            session.execute(delete(Event).where(Event.id.in_(event_ids)))

    def drop_unclaimed(self, before: datetime) -> int:
        """Forget events received before a moment that no project will read; how many."""
        claimed = [
            select(column).where(~Project.is_deleted, column.is_not(None))
            for column in (Project.uid, Project.regions_uid)
        ]
        unclaimed = [Event.tool_uid.not_in(uids) for uids in claimed]
        with self._database.write() as session:
            dropped = session.execute(delete(Event).where(Event.received_at < before, *unclaimed))
            return int(dropped.rowcount)  # type: ignore[attr-defined]


def _uids(project: Project) -> list[str]:
    return [uid for uid in (project.uid, project.regions_uid) if uid]
