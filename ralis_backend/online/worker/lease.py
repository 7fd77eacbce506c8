"""One worker at a time for each project: whoever holds its lease."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ralis_backend.online.store import Store

logger = logging.getLogger(__name__)


def own_name() -> str:
    """This worker's name as the owner of leases; another one at each call."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"


def is_dead(owner: str | None) -> bool:
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


@contextmanager
def leased(store: Store, project_id: int, owner: str, seconds: float) -> Iterator[Lease | None]:
    """The project's lease for as long as the block runs; None if another worker holds it."""
    if not store.projects.acquire_lease(project_id, owner, seconds):
        yield None
        return
    with Lease(store, project_id, owner, seconds) as lease:
        yield lease


class Lease:
    """Keeps a project's lease alive from a thread of its own, until the step has ended."""

    def __init__(self, store: Store, project_id: int, owner: str, seconds: float) -> None:
        self._store = store
        self._project_id = project_id
        self._owner = owner
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self.is_lost = False

    def __enter__(self) -> Lease:
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
