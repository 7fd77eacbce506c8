"""The loop: for each project the first step that is due, until none is."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import Tool, ToolError, ToolNotFound
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.publish import Publisher
from ralis_backend.online.worker.rank import Ranker
from ralis_backend.online.worker.sync import Sync
from ralis_backend.online.worker.train import Stopped, Trainer

logger = logging.getLogger(__name__)


class Worker:
    """Advances every project of a store. Several workers may share one store."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._config = config
        self._owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._sync = Sync(store, tool, config)
        self._trainer = Trainer(store, tool, config)
        self._ranker = Ranker(store, tool, config)
        self._publisher = Publisher(store, tool, config, self._sync)
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; a step in progress ends within a training step or an image.

        On start every project is read as a whole: webhooks may have been lost meanwhile.
        """
        self._stop = stop
        for project in self._store.projects.all():
            self._store.projects.change(project.id, is_sync_requested=True, retry_at=None)
            if _is_dead(project.lease_owner):
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
        with self._lease(project) as lease:
            if lease is None:
                return False
            project = self._store.projects.get(project.uid)  # as it is under the lease
            step = self._due(project)
            if step is None:
                return False
            return self._run(project, step, lease)

    def _due(self, project: Project) -> Callable[[Project, _Lease], None] | None:
        """The first step that makes what is more like what should be; None if all is well."""
        if project.is_sync_requested or not project.is_prepared or self._is_stale(project):
            return self._sync_all
        if self._store.events.unread(project, limit=1):
            return self._read_events
        if self._is_training_due(project):
            return self._train
        version = self._store.versions.find(project.id, project.current_version)
        if version is None or version.ranked_at is None:
            return self._rank
        if self._is_publishing_due(project, version):
            return self._publish
        return None

    def _is_stale(self, project: Project) -> bool:
        oldest = now() - timedelta(seconds=self._config.sync_s)
        return project.synced_at is None or project.synced_at < oldest

    def _is_training_due(self, project: Project) -> bool:
        """Enough new labels, a request, or annotators who have run out of suggestions."""
        if project.is_training_requested:
            return bool(self._store.labels.count(project.id))
        num_new = self._store.labels.count(project.id, project.trained_label_id)
        if num_new >= self._config.ranking.regions_per_round:
            return True
        has_published = project.published_version is not None
        is_queue_empty = project.regions_tool_id is not None and not self._store.queue.open(
            project.id
        )
        return bool(num_new) and has_published and is_queue_empty

    def _is_publishing_due(self, project: Project, version: Version) -> bool:
        if project.published_version != version.number:
            return True
        if project.regions_tool_id is None:
            return False
        queue = self._store.queue.open(project.id)
        if any(row.task_id is None for row in queue):
            return True
        has_new_labels = self._store.labels.newest_id(project.id) != project.published_label_id
        return has_new_labels and len(queue) < self._config.ranking.regions_per_round

    def _run(
        self, project: Project, step: Callable[[Project, _Lease], None], lease: _Lease
    ) -> bool:
        try:
            step(project, lease)
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
        """Tell the operator, and try again later: after 5 s, 10 s, ... 5 minutes."""
        num_failures = project.num_failures + 1
        pause_s = min(300.0, 5.0 * 2 ** (num_failures - 1))
        is_expected = isinstance(error, (ToolError, ValueError, OSError))
        logger.error(
            "project %s: %s; next try in %.0f s",
            project.uid,
            error,
            pause_s,
            exc_info=None if is_expected else error,
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

    # The steps

    def _sync_all(self, project: Project, lease: _Lease) -> None:
        self._progress(project, lease)({"state": "syncing"})
        self._sync.full(project)
        self._idle(project)

    def _read_events(self, project: Project, lease: _Lease) -> None:
        self._sync.events(project)

    def _train(self, project: Project, lease: _Lease) -> None:
        logger.info("project %s: training begins", project.uid)
        report = self._progress(project, lease)
        report({"state": "training", "percent": 0.0})
        self._trainer.train(project, report, self._should_stop(lease))
        self._idle(project)

    def _rank(self, project: Project, lease: _Lease) -> None:
        version = self._store.versions.find(project.id, project.current_version)
        if version is None:
            version = self._store.versions.add(
                Version(
                    project_id=project.id,
                    number=project.current_version,
                    is_accepted=True,
                    num_labels=0,
                    created_at=now(),
                )
            )
        report = self._progress(project, lease)
        self._ranker.rank(project, version, report, self._should_stop(lease))
        self._idle(project)

    def _publish(self, project: Project, lease: _Lease) -> None:
        version = self._store.versions.find(project.id, project.current_version)
        if version is None:
            return
        self._progress(project, lease)({"state": "publishing"})
        self._publisher.publish(project, version)
        self._idle(project)

    def _idle(self, project: Project) -> None:
        self._store.projects.change(project.id, progress={"state": "idle"})

    def _should_stop(self, lease: _Lease) -> Callable[[], bool]:
        return lambda: self._stop.is_set() or lease.is_lost

    def _progress(self, project: Project, lease: _Lease) -> Callable[[dict[str, Any]], None]:
        """Takes each step's progress; one line in the log every 10 s, one write a second."""
        last = {"write": 0.0, "log": time.monotonic()}

        def report(values: dict[str, Any]) -> None:
            moment = time.monotonic()
            if moment - last["write"] >= 1.0:
                last["write"] = moment
                self._store.projects.change(project.id, progress=values)
            if moment - last["log"] >= 10.0:
                last["log"] = moment
                text = ", ".join(f"{name} {value}" for name, value in values.items())
                logger.info("project %s: %s", project.uid, text)

        return report

    @contextmanager
    def _lease(self, project: Project) -> Iterator[_Lease | None]:
        if not self._store.projects.acquire_lease(project.id, self._owner, self._config.lease_s):
            yield None
            return
        lease = _Lease(self._store, project.id, self._owner, self._config.lease_s)
        with lease:
            yield lease


def _is_dead(owner: str | None) -> bool:
    """Whether a lease's owner was a process of this machine that is no more."""
    machine, _, rest = (owner or "").partition("/")
    pid = rest.partition("/")[0]
    if machine != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class _Lease:
    """Keeps a project's lease alive from a thread of its own, until the step has ended."""

    def __init__(self, store: Store, project_id: int, owner: str, seconds: float) -> None:
        self._store = store
        self._project_id = project_id
        self._owner = owner
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self.is_lost = False

    def __enter__(self) -> _Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._store.projects.release_lease(self._project_id, self._owner)

    def _beat(self) -> None:
        alive_until = time.monotonic() + self._seconds
        while not self._done.wait(self._seconds / 4):
            try:
                is_held = self._store.projects.acquire_lease(
                    self._project_id, self._owner, self._seconds
                )
            except Exception as error:
                logger.warning("the lease of project %s: %s", self._project_id, error)
                is_held = time.monotonic() < alive_until
            else:
                alive_until = time.monotonic() + self._seconds
            if not is_held:
                logger.warning("project %s: another worker has taken over", self._project_id)
                self.is_lost = True
                return
