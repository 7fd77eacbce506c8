"""One worker at a time for each project: whoever holds its lease, and moves."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from ralis_backend.online.owner import is_dead
from ralis_backend.online.store import Store
from ralis_backend.online.store.leases import LeaseLost, LeaseState, require_lease
from ralis_backend.online.worker.standing import Standing

logger = logging.getLogger(__name__)


class Lease:
    """A project's lease, kept alive from a thread of its own for as long as the step moves.

    Args:
        store: not guarded by this lease.
        project_id: of the project.
        owner: who holds the lease.
        generation: under which it was taken.
        seconds: after which others take over when they see no heartbeat.
        stall_s: the step has stalled when it has not moved for so long.
        on_stall: called once then, from the thread; the heartbeat has ended.
    """

    def __init__(
        self,
        store: Store,
        project_id: int,
        owner: str,
        generation: int,
        seconds: float,
        stall_s: float,
        on_stall: Callable[[], None],
    ) -> None:
        self.project_id = project_id
        self.is_lost = False
        self._store = store
        self._owner = owner
        self._generation = generation
        self._seconds = seconds
        self._stall_s = stall_s
        self._on_stall = on_stall
        self._moved_at = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        self._end_anyway_later()
        self._thread.start()
        return self

    def is_next_to(self, state: LeaseState) -> bool:
        """Whether nobody has worked on the project since its lease stood so, free."""
        return state.owner is None and self._generation == state.generation + 1

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._store.leases.release(self.project_id, self._owner, self._generation)

    def move(self) -> None:
        """The step has made progress."""
        self._moved_at = time.monotonic()

    def require(self, session: Session) -> None:
        """Let a transaction go on only under this lease; `LeaseLost` if it is another's now."""
        try:
            require_lease(session, self.project_id, self._owner, self._generation)
        except LeaseLost:
            self.is_lost = True
            raise

    def _keep(self) -> None:
        beaten_at = time.monotonic()
        while not self._done.wait(min(self._seconds, self._stall_s) / 4):
            self._end_anyway_later()
            if time.monotonic() - self._moved_at > self._stall_s:
                self._on_stall()
                return
            try:
                is_held = self._store.leases.beat(self.project_id, self._owner, self._generation)
            except Exception as error:
                logger.warning("the lease of project row %s: %s", self.project_id, error)
                is_held = time.monotonic() - beaten_at < self._seconds
            else:
                beaten_at = time.monotonic()
            if not is_held:
                logger.warning("project row %s: another worker has taken over", self.project_id)
                self.is_lost = True
                return

    def _end_anyway_later(self) -> None:
        """End the process even if the step hangs in native code that lets no thread run."""
        if sys.__stderr__ is not None:
            timeout_s = self._stall_s + self._seconds
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=sys.__stderr__)


class Leaser:
    """Takes leases for one worker, from owners that are dead or that it sees stand still.

    Args:
        store: not guarded.
        owner: the worker's name.
        seconds: for which a heartbeat must stand still, as seen by this worker.
        stall_s: as in `Lease`.
        on_stall: likewise.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        seconds: float,
        stall_s: float,
        on_stall: Callable[[], None],
    ) -> None:
        self._store = store
        self._owner = owner
        self._seconds = seconds
        self._stall_s = stall_s
        self._on_stall = on_stall
        self._standing = Standing()

    def is_free(self, project_id: int, state: LeaseState) -> bool:
        """Whether the lease may be taken as it stands."""
        stands_s = self._standing.seconds(project_id, state)
        is_nobodys = state.owner is None or state.owner == self._owner or is_dead(state.owner)
        return is_nobodys or stands_s >= self._seconds

    @contextmanager
    def leased(self, project_id: int, *, takes_over: bool = False) -> Iterator[Lease | None]:
        """The project's lease while the block runs; None if another worker holds it.

        takes_over: whether it is taken from a worker that lives, too.
        """
        state = self._store.leases.state(project_id)
        generation = None
        if takes_over or self.is_free(project_id, state):
            generation = self._store.leases.take(project_id, self._owner, state)
        if generation is None:
            yield None
            return
        if state.owner is not None:
            logger.warning("project row %s: taken over from %s", project_id, state.owner)
        with Lease(
            self._store,
            project_id,
            self._owner,
            generation,
            self._seconds,
            self._stall_s,
            self._on_stall,
        ) as lease:
            yield lease


class Fence:
    """What a worker's steps may do: nothing without the lease of the project they work on.

    Args:
        store: not guarded.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lease: Lease | None = None

    @contextmanager
    def around(self, lease: Lease) -> Iterator[None]:
        """Steps act under this lease while the block runs."""
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None

    def guard(self, session: Session, *, is_change: bool) -> None:
        """Of the steps' store: nothing is committed unless the lease is held to the end."""
        if self._lease is not None:
            self._lease.move()
        if is_change:
            self._held().require(session)

    def watch(self, *, is_change: bool) -> None:
        """Of the steps' tool: each change asks for the lease immediately before it is sent."""
        if self._lease is not None:
            self._lease.move()
        if is_change:
            with self._store.database.read() as session:
                self._held().require(session)

    def _held(self) -> Lease:
        if self._lease is None:
            raise LeaseLost("a step writes without a lease")
        return self._lease
