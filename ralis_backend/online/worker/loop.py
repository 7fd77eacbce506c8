"""The loop: for each project the first step that is due, until none is."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import Tool, ToolError, ToolNotFound
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.lease import Lease, is_dead, leased, own_name
from ralis_backend.online.worker.progress import Progress
from ralis_backend.online.worker.steps import Step, first_due, read_state, worker_steps
from ralis_backend.online.worker.sync import Sync
from ralis_backend.online.worker.train import Stopped

logger = logging.getLogger(__name__)

EXPECTED_ERRORS = (ToolError, ValueError, OSError)
"""What their message explains; any other error is logged with its traceback."""


class Worker:
    """Advances every project of a store. Several workers may share one store."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._config = config
        self._owner = own_name()
        self._sync = Sync(store, tool, config)
        self._steps = worker_steps(store, tool, config)
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; a step in progress ends within a training step or an image.

        On start every project is read as a whole: webhooks may have been lost meanwhile.
        """
        self._stop = stop
        for project in self._store.projects.all():
            self._store.projects.change(project.id, is_sync_requested=True, retry_at=None)
            if is_dead(project.lease_owner):
                self._store.projects.release_lease(project.id, str(project.lease_owner))
        while not stop.is_set():
            if not self.advance_all():
                stop.wait(self._config.poll_s)

    def advance_all(self) -> bool:
        """One step for each project that needs one; True if there was any."""
        is_busy = False
        for project in self._store.projects.all():
            if not self._stop.is_set():
                is_busy |= self.advance(project)
        return is_busy

    def advance(self, project: Project) -> bool:
        """Do the project's first due step; True if it was done (so more may be due)."""
        if project.retry_at is not None and project.retry_at > now():
            return False
        if self._due(project) is None:
            return False
        with leased(self._store, project.id, self._owner, self._config.lease_s) as lease:
            if lease is None:
                return False
            project = self._store.projects.get(project.uid)  # as it is under the lease
            step = self._due(project)
            return step is not None and self._run(project, step, lease)

    def _due(self, project: Project) -> Step | None:
        return first_due(self._steps, read_state(self._store, project), self._config)

    def _run(self, project: Project, step: Step, lease: Lease) -> bool:
        progress = Progress(self._store, project)
        try:
            step.run(project, progress, lambda: self._stop.is_set() or lease.is_lost)
            progress.end()
        except Stopped as stopped:
            logger.info("%s; it begins anew later", stopped)
            return False
        except ToolNotFound as error:
            self._note_loss(project, error)
            return False
        except Exception as error:
            self._note_failure(project, error)
            return False
        if project.last_error is not None or project.num_failures:
            self._store.projects.change(project.id, last_error=None, num_failures=0, retry_at=None)
        return True

    def _note_loss(self, project: Project, error: ToolNotFound) -> None:
        """The project is gone; or only something in it, which a full reading repairs."""
        try:
            self._sync.project(project)
        except ToolNotFound:
            self._store.projects.change(project.id, is_deleted=True, last_error=str(error))
            logger.warning(
                "project %s is gone: %s. Its labels and versions are kept.", project.uid, error
            )
        except Exception as failure:
            self._note_failure(project, failure)
        else:
            self._store.projects.change(project.id, is_sync_requested=True)
            self._note_failure(project, error)

    def _note_failure(self, project: Project, error: Exception) -> None:
        """Tell the operator, and try again later."""
        num_failures = project.num_failures + 1
        pause_s = pause_after(num_failures)
        logger.error(
            "project %s: %s; next try in %.0f s",
            project.uid,
            error,
            pause_s,
            exc_info=None if isinstance(error, EXPECTED_ERRORS) else error,
        )
        try:
            self._store.projects.change(
                project.id,
                last_error=str(error),
                num_failures=num_failures,
                retry_at=now() + timedelta(seconds=pause_s),
                progress={"state": "waiting"},
            )
        except Exception:
            # A full disk refuses this too; the labels are safe, and the loop goes on.
            logger.exception("project %s: the failure could not be noted", project.uid)
            self._stop.wait(pause_s)


def pause_after(num_failures: int) -> float:
    """Seconds until the next try after so many failures in a row: 5, 10, 20, ... 300."""
    return min(300.0, 5.0 * 2.0 ** min(num_failures - 1, 6))  # 2.0 ** 1024 is an error
