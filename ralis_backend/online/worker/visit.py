"""A command that changes a project in the tool, beside workers that may do the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ralis_backend.online.owner import own_name
from ralis_backend.online.store import Store
from ralis_backend.online.store.leases import LeaseLost
from ralis_backend.online.tool import Watch
from ralis_backend.online.worker.lease import Fence, Leaser
from ralis_backend.online.worker.stall import end_process

LEASE_S = 60.0
STALL_S = 600.0
_LOOK_S = 0.2


def _end() -> None:
    end_process(f"a command made no progress for {STALL_S:.0f} s")


@dataclass(frozen=True)
class Visit:
    """What the holder of a project's lease may use: both refuse when it is another's.

    store: of which changes are committed under the lease alone.
    watch: for the tool, asked before each change is sent.
    """

    store: Store
    watch: Watch


@contextmanager
def visiting(
    store: Store,
    project_id: int,
    *,
    wait_s: float,
    on_wait: Callable[[str], None] = lambda doing: None,
    takes_over: bool = False,
) -> Iterator[Visit | None]:
    """The project's lease while the block runs; None if a worker held it all the time.

    Args:
        store: not guarded.
        project_id: row id.
        wait_s: how long to wait for a worker to end its step.
        on_wait: told once what is waited for.
        takes_over: whether the lease is taken from the worker then; its step ends without effect.

    Raises:
        ValueError: in the block, where the lease is taken from us.
    """
    leaser = Leaser(store, own_name(), LEASE_S, STALL_S, _end)
    fence = Fence(store)
    until = time.monotonic() + wait_s
    is_told = False
    while True:
        is_over = time.monotonic() >= until
        with leaser.leased(project_id, takes_over=takes_over and is_over) as lease:
            if lease is not None:
                try:
                    with fence.around(lease):
                        yield Visit(store.guarded(fence.guard), fence.watch)
                except LeaseLost as lost:
                    raise ValueError(
                        "another command, or a worker, has taken the project over meanwhile; run "
                        "this again"
                    ) from lost
                return
        if is_over and not takes_over:
            yield None
            return
        if not is_told:
            is_told = True
            state = store.projects.by_id(project_id).progress.get("state", "idle")
            on_wait("preparing it" if state == "idle" else str(state))
        time.sleep(_LOOK_S)
