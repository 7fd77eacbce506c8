"""Which workers live: for people who ask; leases alone decide who may write."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select

from ralis_backend.online.store.database import Database, now
from ralis_backend.online.store.tables import LiveWorker


class Workers:
    """The processes that advance projects, by name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, name: str) -> None:
        """This worker lives."""
        with self._database.write() as session:
            row = session.get(LiveWorker, name)
            if row is None:
                session.add(LiveWorker(name=name, seen_at=now()))
            else:
                row.seen_at = now()

    def end(self, name: str) -> None:
        """This worker has ended."""
        with self._database.write() as session:
            session.execute(delete(LiveWorker).where(LiveWorker.name == name))

    def seen(self) -> dict[str, datetime]:
        """When each worker showed last that it lives, by name; those that were killed among it."""
        with self._database.read() as session:
            return {row.name: row.seen_at for row in session.scalars(select(LiveWorker))}
