"""The tool's answer about many tasks, of which one may spoil it for all the others.

What fails again is asked for in halves, down to the task that is to blame: it is named, set aside,
and tried again alone at each reading. A tool that does not answer at all is not asked on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ralis_backend.core.text import reason_of, shortened
from ralis_backend.online.store import StoreError
from ralis_backend.online.store.attempts import TASK
from ralis_backend.online.tool import TaskAnnotations, Tool, ToolError, ToolNotFound

if TYPE_CHECKING:
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Project

logger = logging.getLogger(__name__)

ANSWERS = "answers"
"""What answers that failed in a row are counted as."""
MOST_FAILED = 64
"""Answers that may fail in one reading; the next one goes on."""
TRIED_AGAIN = 10
"""Of the tasks that are set aside, so many at each reading, in turn."""
_MOST_SAID = 300


@dataclass(frozen=True)
class ToolSource:
    """One of the tool's projects that is read: the pool, or the regions project."""

    uid: str
    id: int


class TaskAnswers:
    """Reads the annotations of one project's tasks.

    Args:
        store: where it is noted what is set aside.
        tool: that is asked.
        project: whose tasks these are.
        read: stores what was told of one task.
    """

    def __init__(
        self,
        store: Store,
        tool: Tool,
        project: Project,
        read: Callable[[ToolSource, TaskAnnotations], None],
    ) -> None:
        self._store, self._tool, self._project = store, tool, project
        self._read = read

    def read(self, source: ToolSource, task_ids: Sequence[int]) -> None:
        """Read these tasks but for those that are set aside.

        Raises:
            Exception: what the tool raised, the first time; later if it does not answer at all.
        """
        aside = set(self._aside(source))
        waiting = [[task_id for task_id in task_ids if task_id not in aside]]
        failed = 0
        while waiting:
            part = waiting.pop()
            error = self._try(source, part)
            if error is None:
                continue
            failed += 1
            self._judge(source, error, failed)
            if len(part) == 1:
                self._set_aside(source, part[0], error)
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
        if self._store.attempts.count(self._project.id, ANSWERS, source.uid):
            self._store.attempts.end(self._project.id, ANSWERS, source.uid)

    def read_aside(self, source: ToolSource) -> None:
        """Try some of the tasks that are set aside again, those first that have waited longest."""
        for task_id in islice(self._aside(source), TRIED_AGAIN):
            self._store.attempts.end(self._project.id, TASK, _key(source, task_id))
            error = self._try(source, [task_id])
            if error is not None:
                self._set_aside(source, task_id, error)
                self._tool.project(source.id)

    def forget_aside(self, source: ToolSource) -> None:
        """The tool's project is none of this project's any more."""
        for task_id in self._aside(source):
            self._store.attempts.end(self._project.id, TASK, _key(source, task_id))

    def _try(self, source: ToolSource, task_ids: Sequence[int]) -> Exception | None:
        """Read tasks as far as the tool tells of them; what it failed with."""
        if not task_ids:
            return None
        try:
            answers = iter(self._tool.annotations(source.id, task_ids))
            while (found := next(answers, None)) is not None:
                self._read_one(source, found)
        except _Passed as passed:
            raise passed.error from None
        except (StoreError, ToolNotFound):
            raise
        except Exception as error:
            return error
        return None

    def _read_one(self, source: ToolSource, found: TaskAnnotations) -> None:
        """What of one task cannot be stored must not keep the others from it."""
        try:
            self._read(source, found)
        except (ToolError, StoreError, OSError) as error:
            raise _Passed(error) from error
        except Exception as error:
            self._set_aside(source, found.task.id, error)

    def _judge(self, source: ToolSource, error: Exception, failed: int) -> None:
        """Raises where halving would not help, or is not called for yet."""
        number = MOST_FAILED
        if failed == 1:
            number = self._store.attempts.begin(self._project.id, ANSWERS, source.uid)
        if number < 2 or failed > MOST_FAILED:
            raise error
        self._tool.project(source.id)

    def _set_aside(self, source: ToolSource, task_id: int, error: Exception) -> None:
        note = (
            f"the annotations of task {task_id} in project {source.id} cannot be read: "
            f"{shortened(reason_of(error), _MOST_SAID)}; what was read of it before is kept, and "
            "it is tried again"
        )
        logger.warning("project %s: %s", self._project.tool_id, note)
        self._store.attempts.set_aside(self._project.id, TASK, _key(source, task_id), note)

    def _aside(self, source: ToolSource) -> list[int]:
        """The tasks that are set aside, those first that have waited longest."""
        keys = (key.split() for key in self._store.attempts.set_aside_keys(self._project.id, TASK))
        return [int(task_id) for uid, task_id in keys if uid == source.uid]


class _Passed(Exception):
    """What reading raised, not the tool's answer."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _key(source: ToolSource, task_id: int) -> str:
    return f"{source.uid} {task_id}"
