"""What annotators have submitted -> the store, from another process than the worker.

For whoever looks at the labels once, such as an export. The project's lease decides who reads.
"""

from __future__ import annotations

import logging
import time

from ralis_backend.online.owner import own_name
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import Tool, ToolError, ToolUnavailable
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.lease import Fence, Leaser
from ralis_backend.online.worker.people import People
from ralis_backend.online.worker.sync import Sync

logger = logging.getLogger(__name__)

_PAUSE_S = 1.0


def catch_up(
    store: Store, tool: Tool, config: WorkerConfig, project: Project, wait_s: float = 20.0
) -> str:
    """Read what is new, or wait until the worker has.

    Args:
        store: what is known.
        tool: where it is read.
        config: how labels are read.
        project: whose annotations are read.
        wait_s: for how long a busy worker is waited for.

    Returns:
        What is missing all the same, and what to do; empty where nothing is.
    """
    reader = _Reader(store, tool, config)
    deadline = time.monotonic() + wait_s
    is_asked_for = False
    try:
        while not reader.read(project):
            missing = reader.num_missing(project)
            if not missing:
                return ""
            if not is_asked_for:  # what a worker does while nothing is due ends for it
                store.projects.change(project.id, is_sync_requested=True)
                is_asked_for = True
            if time.monotonic() >= deadline:
                return (
                    f"{_annotations(missing)} in Label Studio {_are(missing)} not read yet: the "
                    "worker is busy with the project; run this again when it has finished"
                )
            time.sleep(_PAUSE_S)
        return _unread_text(store, project)
    except ToolUnavailable as error:
        return (
            f"what was submitted since the last reading is missing ({_unread(store, project)}): "
            f"{error}"
        )
    except (ToolError, ValueError) as error:  # the project is gone, or its label config is no use
        return f"what was submitted since the last reading is missing: {error}"


class _Reader:
    """Reads under the lease of a project, as the worker does."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store, self._plain = store, Sync(store, tool, config)
        self._leaser = Leaser(store, own_name(), config.lease_s, config.stall_s, lambda: None)
        self._fence = Fence(store)
        held = store.guarded(self._fence.guard)
        self._sync = Sync(held, tool.watched(self._fence.watch), config)
        self._people = People(held)

    def read(self, project: Project) -> bool:
        """Read what is new; False where the worker holds the lease."""
        with self._leaser.leased(project.id) as lease:
            if lease is None:
                return False
            with self._fence.around(lease):
                self._sync.changes(project)
                self._people.count(project)
            return True

    def num_missing(self, project: Project) -> int:
        """Annotations that are not stored, or that wait to be read."""
        waiting = self._store.annotations.waiting_ids(project.id)
        return self._plain.num_missing(project) + len(waiting)


def _unread_text(store: Store, project: Project) -> str:
    """What is stored and has no labels, since it cannot be read."""
    unread = len(store.annotations.unread_ids(project.id))
    if not unread:
        return ""
    return (
        f"{_annotations(unread)} could not be read and {_are(unread)} missing; `ralis status` and "
        "the worker's log say why"
    )


def _unread(store: Store, project: Project) -> str:
    return "webhooks wait to be read" if store.events.has_unread(project) else "no webhook waits"


def _annotations(count: int) -> str:
    return f"{count} annotation{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
