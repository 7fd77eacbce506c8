"""What may end the worker (out of memory, a crash, a hang): counted before it begins.

Whatever ends in order is forgotten, with or without an error. What is still counted has ended the
worker, and stands to be tried again or to be set aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from ralis_backend.online.store.database import Database, now
from ralis_backend.online.store.tables import Attempt, Image, Project

MOST_ATTEMPTS = 3
"""After so many the culprit is set aside."""
MOST_NOTES = 20
"""Of a project, for people."""
STEP = "step"
TRAINING = "training"
"""On all labels up to one: the key is its id."""
REQUEST = "request"
"""A training that somebody has asked for and that has begun: due until it has ended in order."""

FAILURE = "failure"
"""A step that failed by itself, or has ended the worker: it rests, and the others go on."""
REST = "rest"
"""A step that failed on items that may be to blame themselves: after many it goes on without them.

Counted until it was done, whatever else it fails at, and over a start of the worker.
"""
IMAGE = "image"
TASK = "task"
"""A task that the tool could not tell of."""
DOUBLE = "double"
"""A second regions project."""
SETTINGS = "settings"
"""Settings in the tool that could not be brought in order."""
_LOOKED_AFTER = (TASK, DOUBLE, SETTINGS)
"""What each reading tries again, or looks for: nothing else would, once it is forgotten."""

_INNERMOST: ContextVar[tuple[int, str, object] | None] = ContextVar("innermost", default=None)
"""Of the items that are tried and counted now."""


class SetAsideError(ValueError):
    """Something has ended the worker several times, and is left out."""


class Attempts:
    """Attempts by project, kind (`step`, `training`, `image`, ...) and key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, project_id: int, kind: str, key: object) -> int:
        """Count an attempt, on disk before it begins; which one in a row it is, from 1."""
        return self._count(project_id, kind, key, 1)

    def begin_requested(self, project_id: int) -> None:
        """A training begins that answers every request made so far.

        A request made from now on asks for another one. This one stays due, whatever ends it or
        the worker, until its `REQUEST` is forgotten.
        """
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            if project.is_training_requested:
                project.is_training_requested = False
                _find_or_add(session, project_id, REQUEST, "").count = 1

    def has_open_request(self, project_id: int) -> bool:
        """Whether a training that was asked for has begun and not ended."""
        return self.count(project_id, REQUEST, "") > 0

    def count(self, project_id: int, kind: str, key: object) -> int:
        """How many are counted."""
        with self._database.read() as session:
            return session.scalar(select(Attempt.count).where(*_is(project_id, kind, key))) or 0

    def end(self, project_id: int, kind: str, key: object) -> None:
        """The attempt has ended in order: forget it and those before."""
        with self._database.write() as session:
            session.execute(delete(Attempt).where(*_is(project_id, kind, key)))

    def take_back(self, project_id: int, kind: str, key: object) -> None:
        """The attempt was none: count one less."""
        with self._database.write() as session:
            row = _find_or_add(session, project_id, kind, key)
            row.count = max(0, row.count - 1)

    @contextmanager
    def trying(self, project_id: int, kind: str, key: object, name: str) -> Iterator[None]:
        """Around one item of a step that may end the worker, such as decoding one image.

        It costs one look at the database until a step of the project has ended the worker; then
        each item is counted before it begins, as if it had been the culprit. Of items within one
        another the innermost is: those around it are not counted meanwhile.

        Args:
            project_id: of the project.
            kind: what the item is, in one word.
            key: which one it is.
            name: how people know it.

        Raises:
            SetAsideError: if it has ended the worker three times.
        """
        counts = self._counts(project_id, kind, key)
        if counts.get(kind, 0) >= MOST_ATTEMPTS:
            raise SetAsideError(self._set_aside(project_id, kind, key, name))
        if counts.get(STEP, 0) < 2:
            yield
            return
        around = _INNERMOST.get()
        if around is not None:
            self.take_back(*around)
        self._count(project_id, kind, key, 2)  # it may have ended the worker the first time, too
        begun = _INNERMOST.set((project_id, kind, key))
        try:
            yield
        finally:
            _INNERMOST.reset(begun)
            self.end(project_id, kind, key)
            if around is not None:
                self._count(*around, 2)

    def set_aside(self, project_id: int, kind: str, key: object, note: str) -> None:
        """Leave something out from now on, and say why."""
        with self._database.write() as session:
            row = _find_or_add(session, project_id, kind, key)
            row.count, row.note = MOST_ATTEMPTS, note

    def fail(self, project_id: int, step: str, why: str) -> int:
        """A step has failed by itself; how often in a row, until `end` of its `FAILURE`.

        One that has ended the worker before is counted before it begins.
        """
        with self._database.write() as session:
            row = _find_or_add(session, project_id, FAILURE, step)
            row.count += 1
            row.note = f"{step} failed and is tried again, while all else goes on: {why}"
            return row.count

    def failures(self, project_id: int) -> dict[str, str]:
        """Why steps that failed by themselves did, by their names."""
        query = select(Attempt.key, Attempt.note).where(
            Attempt.project_id == project_id, Attempt.kind == FAILURE
        )
        with self._database.read() as session:
            return {
                str(name): str(note) for name, note in session.execute(query.order_by(Attempt.id))
            }

    def set_aside_keys(self, project_id: int, kind: str) -> list[str]:
        """The keys of what is set aside of a kind, oldest first."""
        query = select(Attempt.key).where(
            Attempt.project_id == project_id, Attempt.kind == kind, Attempt.note.is_not(None)
        )
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Attempt.id)))

    def notes(self, project_id: int) -> list[str]:
        """Why what is set aside is set aside, oldest first; of very much how much more there is."""
        query = select(Attempt.note).where(
            Attempt.project_id == project_id, Attempt.note.is_not(None), Attempt.kind != FAILURE
        )
        with self._database.read() as session:
            found = [str(note) for note in session.scalars(query.order_by(Attempt.id))]
        more = [f"and {len(found) - MOST_NOTES} more"] if len(found) > MOST_NOTES else []
        return [*found[:MOST_NOTES], *more]

    def forget(self, project_id: int, kind: str) -> None:
        """Try everything of a kind again; nothing is written where there is none."""
        of_kind = (Attempt.project_id == project_id, Attempt.kind == kind)
        with self._database.read() as session:
            if session.scalar(select(Attempt.id).where(*of_kind).limit(1)) is None:
                return
        with self._database.write() as session:
            session.execute(delete(Attempt).where(*of_kind))

    def _count(self, project_id: int, kind: str, key: object, first: int) -> int:
        with self._database.write() as session:
            row = _find_or_add(session, project_id, kind, key)
            row.count = max(first, row.count + 1)
            return row.count

    def _counts(self, project_id: int, kind: str, key: object) -> dict[str, int]:
        """The counts of this item and of the project's steps, by kind."""
        steps = [Attempt.project_id == project_id, Attempt.kind == STEP]
        with self._database.read() as session:
            item = session.scalar(select(Attempt.count).where(*_is(project_id, kind, key)))
            in_steps = session.scalars(select(Attempt.count).where(*steps))
            return {kind: item or 0, STEP: max(in_steps, default=0)}

    def _set_aside(self, project_id: int, kind: str, key: object, name: str) -> str:
        note = (
            f"{name} was set aside: it ended the worker {MOST_ATTEMPTS} times (out of "
            "memory, a crash, or no progress); Start Training tries it again"
        )
        self.set_aside(project_id, kind, key, note)
        return note


def is_training_given_up(session: Session, project: Project) -> bool:
    """Whether training on the labels there were at the last one was set aside."""
    given_up = _is(project.id, TRAINING, project.trained_label_id)
    query = select(Attempt.id).where(*given_up, Attempt.note.is_not(None))
    return session.scalar(query) is not None


def try_all_again(session: Session, project_id: int) -> None:
    """Forget what has ended the worker, and let images that could not be read wait no longer."""
    waiting = (Image.project_id == project_id, Image.retry_at.is_not(None))
    session.execute(update(Image).where(*waiting).values(retry_at=now()))
    of_project = Attempt.project_id == project_id
    session.execute(delete(Attempt).where(of_project, Attempt.kind.not_in(_LOOKED_AFTER)))


def _find_or_add(session: Session, project_id: int, kind: str, key: object) -> Attempt:
    row = session.scalars(select(Attempt).where(*_is(project_id, kind, key))).first()
    if row is None:
        row = Attempt(project_id=project_id, kind=kind, key=str(key), count=0)
        session.add(row)
    return row


def _is(project_id: int, kind: str, key: object) -> list[ColumnElement[bool]]:
    return [Attempt.project_id == project_id, Attempt.kind == kind, Attempt.key == str(key)]
