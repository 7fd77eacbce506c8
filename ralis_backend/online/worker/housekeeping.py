"""What piles up and belongs to no project that is worked on, looked after once an hour."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from pathlib import Path

from ralis_backend.core.files import PARTIAL
from ralis_backend.online.store import Store, now
from ralis_backend.online.tool import Tool, ToolError, ToolNotFound
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.standing import Standing
from ralis_backend.online.worker.unused_masks import UnusedMasks

logger = logging.getLogger(__name__)

EVERY_S = 3600.0


class Housekeeping:
    """One per worker; several workers may do the same."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._standing = Standing()
        self._masks = UnusedMasks(store)
        self._done_at = float("-inf")

    def keep(self) -> None:
        """Once an hour: look for projects that were gone, drop old events and unused files.

        What fails is in the log and keeps nothing else from being done.
        """
        if time.monotonic() - self._done_at < EVERY_S:
            return
        self._done_at = time.monotonic()
        for part in (
            self._look_for_the_gone,
            self._drop_events,
            self._remove_partial_files,
            self._remove_masks,
        ):
            try:
                part()
            except Exception:
                logger.exception("housekeeping goes on after an error")

    def _look_for_the_gone(self) -> None:
        """A project that the tool knows after all is worked on again."""
        for project in self._store.projects.gone():
            try:
                found = self._tool.project(project.tool_id)
            except (ToolNotFound, ValueError) as error:
                logger.debug("project %s is still gone: %s", project.tool_id, error)
            except ToolError as error:  # the others would wait for it as well
                logger.info("projects that were gone are looked for later: %s", error)
                return
            else:
                if found.uid == project.uid:
                    logger.warning("project %s is there again", project.tool_id)
                    self._store.projects.revive(project.id)

    def _drop_events(self) -> None:
        """Webhooks are hints: a project that becomes known later is read as a whole."""
        before = now() - timedelta(days=self._config.kept_events_days)
        num_dropped = self._store.events.drop_unclaimed(before)
        if num_dropped:
            logger.info("%d events of projects that are not known here were dropped", num_dropped)

    def _remove_partial_files(self) -> None:
        """What killed writers left: it stood still for an hour."""
        for path in self._store.blobs.root.rglob(f"{PARTIAL}*"):
            if self._standing.seconds(path, _size_and_time(path)) >= EVERY_S - 60:
                path.unlink(missing_ok=True)
                logger.info("%s was removed: its writer is gone", path)

    def _remove_masks(self) -> None:
        num_removed = self._masks.remove()
        if num_removed:
            logger.info("%d masks that no label has any more were removed", num_removed)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (-1, -1)
    return stat.st_size, stat.st_mtime_ns
