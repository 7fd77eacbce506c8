"""Which class a project looks for more of; older wishes are kept for the record."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, and_, select, update
from sqlalchemy.orm import Session

from ralis_backend.online.store.database import Database, now
from ralis_backend.online.store.tables import Project, Wish

STOPPED = "stopped"
REPLACED = "replaced by another wish"
REACHED = "as many as wanted are labelled"
LEFT_OUT = "the connection does not ask for it any more"


class Wishes:
    """Wishes by project, one at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def standing(self, project_id: int) -> Wish | None:
        """The one that has not ended; None without."""
        with self._database.read() as session:
            return session.scalars(_standing(project_id)).first()

    def all(self, project_id: int) -> list[Wish]:
        """Every wish, oldest first."""
        query = select(Wish).where(Wish.project_id == project_id).order_by(Wish.id)
        with self._database.read() as session:
            return list(session.scalars(query))

    def begin(self, wish: Wish) -> Wish:
        """Wish for this instead of whatever was wished for."""
        with self._database.write() as session:
            return _begin(session, wish)

    def end(self, wish_id: int, why: str) -> None:
        """End a wish, unless it has ended."""
        with self._database.write() as session:
            _end(session, Wish.id == wish_id, why)

    def follow(self, project_id: int, said: dict[str, object] | None, wish: Wish | None) -> None:
        """Take over what a connection says now, together with that it was said.

        Args:
            project_id: the project.
            said: as the connection has it; None: nothing.
            wish: made from it; without one the connection's own wish ends, if it stands.
        """
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            if project.said_wish == said:  # another process was first
                return
            project.said_wish = said
            if wish is not None:
                _begin(session, wish)
                return
            of_connection = and_(Wish.project_id == project_id, Wish.is_of_connection)
            _end(session, of_connection, LEFT_OUT)


def _begin(session: Session, wish: Wish) -> Wish:
    _end(session, Wish.project_id == wish.project_id, REPLACED)
    session.add(wish)
    session.flush()
    return wish


def _end(session: Session, which: ColumnElement[bool], why: str) -> None:
    ending = update(Wish).where(which, Wish.ended_at.is_(None))
    session.execute(ending.values(ended_at=now(), ended_by=why))


def _standing(project_id: int) -> Select:
    query = select(Wish).where(Wish.project_id == project_id, Wish.ended_at.is_(None))
    return query.order_by(Wish.id.desc())
