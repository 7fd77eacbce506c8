"""How far the tool's projects have been read, so that what is unchanged is not read again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ralis_backend.online.left_out import MOST_TEXTS, bounded
from ralis_backend.online.store.database import Database, assign
from ralis_backend.online.store.tables import Source, TaskState
from ralis_backend.online.tool import TaskAnnotations, ToolTask

_UNKNOWN = ""
"""A state that no task has."""


class Readings:
    """What is remembered of the tool's projects and tasks between two readings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def source(self, project_id: int, tool_uid: str) -> Source:
        """How far a tool's project has been read; a new one if it never was."""
        with self._database.read() as session:
            found = session.scalars(select(Source).where(Source.tool_uid == tool_uid)).first()
        return found or _new(project_id, tool_uid)

    def note(self, source: Source, **values: int | datetime | None) -> Source:
        """Set columns of how far a tool's project has been read."""
        with self._database.write() as session:
            row = session.get(Source, source.id) if source.id is not None else None
            if row is None:
                row = _new(source.project_id, source.tool_uid)
                session.add(row)
            assign(row, values)
            return row

    def changed(self, tool_uid: str, tasks: Iterable[ToolTask]) -> list[ToolTask]:
        """Those of the tasks whose annotations are not stored as the tool has them."""
        tasks = list(tasks)
        query = select(TaskState.task_id, TaskState.state).where(
            TaskState.tool_uid == tool_uid, TaskState.task_id.in_([task.id for task in tasks])
        )
        with self._database.read() as session:
            known = {task_id: state for task_id, state in session.execute(query)}
        return [
            task
            for task in tasks
            if (
                not task.state or known[task.id] != task.state
                if task.id in known
                else task.num_annotations > 0
            )
        ]


def _new(project_id: int, tool_uid: str) -> Source:
    return Source(
        project_id=project_id, tool_uid=tool_uid, num_doubts=0, extra_tasks=0, extra_annotations=0
    )


def ask_again(session: Session, project_id: int) -> None:
    """Have all tasks of a project be listed, and the annotated ones be read, once more."""
    of_project = Source.project_id == project_id
    session.execute(update(Source).where(of_project).values(changed_at=None))
    states = TaskState.project_id == project_id
    session.execute(update(TaskState).where(states).values(state=_UNKNOWN))


def is_kept(session: Session, tool_uid: str, task: ToolTask) -> bool:
    """Whether a task is remembered as the tool describes it."""
    query = select(TaskState.state).where(
        TaskState.tool_uid == tool_uid, TaskState.task_id == task.id
    )
    return session.scalar(query) == task.state


def keep_state(session: Session, project_id: int, tool_uid: str, found: TaskAnnotations) -> None:
    """Remember how the tool described a task whose annotations are stored in this transaction."""
    task = found.task
    row = session.scalars(
        select(TaskState).where(TaskState.tool_uid == tool_uid, TaskState.task_id == task.id)
    ).first()
    if row is None:
        row = TaskState(project_id=project_id, tool_uid=tool_uid, task_id=task.id)
        session.add(row)
    row.state = task.state
    unreadable = dict(list(found.unreadable.items())[:MOST_TEXTS])
    row.unreadable = [[it, *bounded([why])] for it, why in unreadable.items()] or None
