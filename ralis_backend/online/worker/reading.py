"""What annotators submit while a long step runs is read then, not after it.

A training takes minutes. Who exports, looks at the progress or waits for the queue meanwhile must
not miss what is in the labelling tool already.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ralis_backend.online.store import StoreError
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolError
from ralis_backend.online.worker.people import People
from ralis_backend.online.worker.sync import Sync

logger = logging.getLogger(__name__)

EVERY_S = 10.0
_EXPECTED = (ToolError, StoreError, ValueError, OSError)
"""What its message explains; any other error is logged with its traceback."""


class Reading:
    """Reads beside other steps, under their lease."""

    def __init__(self, sync: Sync, people: People) -> None:
        self._sync, self._people = sync, people

    def newest(self, project: Project) -> None:
        """Whatever was submitted until now; if it cannot be read, what is known has to do."""
        self._try(project, self._sync.changes)

    def on_the_way(self, project: Project, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """`should_stop`, which now and then reads what webhooks have told since."""
        read_at = time.monotonic()

        def read_and_ask() -> bool:
            nonlocal read_at
            is_ended = should_stop()
            if not is_ended and time.monotonic() - read_at >= EVERY_S:
                self._try(project, self._sync.events)
                read_at = time.monotonic()
            return is_ended

        return read_and_ask

    def _try(self, project: Project, read: Callable[[Project], object]) -> None:
        try:
            read(project)
            self._people.count(project)
        except Exception as error:  # it must not end the step that goes on: it is read after it
            is_expected = isinstance(error, _EXPECTED)
            logger.log(
                logging.INFO if is_expected else logging.ERROR,
                "project %s: what is new is read later: %s",
                project.tool_id,
                error,
                exc_info=None if is_expected else error,
            )
