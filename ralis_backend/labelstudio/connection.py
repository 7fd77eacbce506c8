"""A pool project connected to this backend, and taken off it again, once and beside a worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import NotFound
from ralis_backend.labelstudio.payloads.predictions import is_ours
from ralis_backend.labelstudio.payloads.tasks import project_uid
from ralis_backend.labelstudio.regions_project import (
    UNLESS,
    is_regions_project,
    num_annotations,
    pool_of,
)
from ralis_backend.labelstudio.setup import ProjectSetup
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.background import Kept
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolProject
from ralis_backend.online.worker.visit import Visit, visiting

logger = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long `connect` waits for a worker to end its step."""

TAKE_OVER_AFTER_S = 2.0
"""`disconnect` does not wait for a training that nobody wants any more."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """How a project is to be connected.

    mode: `crops` or `in-place`.
    start_from: whose predictions are the first masks; None: as before, empty: nobody's.
    extra_params: that the connection gets besides those it has.
    default_background: of projects that choose none.
    background: of this project, see `online/background`.
    """

    mode: str
    start_from: str | None = None
    extra_params: Mapping[str, Any] = field(default_factory=dict)
    default_background: str | None = None
    background: str | Kept | None = Kept.CHOICE


@dataclass(frozen=True)
class Connected:
    """What became of a connection.

    project: as it is stored.
    regions_id: Label Studio's id of the regions project; None in in-place mode, or while a worker
        has still to make it.
    is_complete: whether all is in order now; else the worker brings it in order.
    notes: what people should know of, as sentences.
    """

    project: Project
    regions_id: int | None
    is_complete: bool
    notes: tuple[str, ...] = ()


class Connector:
    """Connects and disconnects projects.

    Args:
        store: what is known.
        client, tool, setup: of one Label Studio.
        tell: takes sentences for whoever waits.
        wait_s: how long a worker may take to end its step.
    """

    def __init__(
        self,
        store: Store,
        client: LabelStudioClient,
        tool: LabelStudioTool,
        setup: ProjectSetup,
        tell: Tell = lambda text: None,
        wait_s: float = WAIT_S,
    ) -> None:
        self._store = store
        self._client = client
        self._tool = tool
        self._setup = setup
        self._tell = tell
        self._wait_s = wait_s

    def pool(self, project_id: int) -> ToolProject:
        """A project of Label Studio that can be connected.

        Raises:
            ValueError: if there is none, naming those there are, or if it holds regions.
        """
        try:
            found = self._client.project(project_id)
        except NotFound:
            raise ValueError(
                f"Label Studio has no project {project_id} that this token may see; it has: "
                f"{self._names()}"
            ) from None
        pool = self._pool_of(found)
        if pool is not None:
            unless = f" (or, if it is no such project, {UNLESS})" if pool[0] == "N" else ""
            raise ValueError(
                f"project {project_id} ({found.get('title')}) holds the regions of {pool[1]}, "
                f"and was made by the backend; run `ralis connect --project {pool[0]}`{unless}"
            )
        return self._tool.project(project_id)

    def check_version(self, pool: ToolProject, version: str) -> None:
        """Refuse a model version that the project has no predictions of.

        Raises:
            ValueError: naming those there are.
        """
        found = self._client.model_versions(pool.id)
        others = {name: count for name, count in found.items() if count and not is_ours(name)}
        if version not in others:
            there = ", ".join(f"{name} ({count})" for name, count in others.items()) or "none"
            raise ValueError(
                f"project {pool.id} has no predictions of the model version {version!r} by "
                f"others; it has: {there}"
            )

    def connect(self, pool: ToolProject, wishes: Wishes) -> Connected:
        """Make this backend the project's ML backend, with all that belongs to it."""
        row = self._store.projects.register(
            pool.uid,
            pool.id,
            pool.label_config,
            pool.classes,
            pool.title,
            wishes.default_background,
            wishes.background,
        )
        start_from = wishes.start_from
        if start_from is not None and (row.start_from or "") != start_from:
            values: dict[str, object] = {"start_from": start_from or None}
            if row.current_version == 0:
                values["is_publishing_requested"] = True  # its masks are other ones now
            self._store.projects.change(row.id, **values)
        with visiting(
            self._store, row.id, wait_s=self._wait_s, on_wait=lambda doing: self._wait(pool, doing)
        ) as visit:
            if visit is None:
                self._setup.connect_backend(pool, wishes.extra_params)
                self._store.projects.change(row.id, is_prepared=False)
                row = self._store.projects.by_id(row.id)
                return Connected(row, row.regions_tool_id, is_complete=False)
            return self._connected(visit, row.id, pool, wishes)

    def disconnect(self, row: Project, *, deletes_regions: bool) -> list[str]:
        """Take webhooks and ML backend off a project; labels, tasks and versions stay.

        Args:
            row: the project.
            deletes_regions: whether the regions project is deleted, if all in it has been read.

        Returns:
            What was done, as sentences.

        Raises:
            ValueError: if the regions project holds what has not been read; nothing is changed.
        """
        if deletes_regions:
            self._require_all_read(row)
        self._store.projects.change(row.id, is_deleted=True, num_losses=0)
        with visiting(self._store, row.id, wait_s=TAKE_OVER_AFTER_S, takes_over=True) as visit:
            if visit is None:
                raise ValueError(f"project {row.tool_id} is being changed by another command")
            return self._disconnected(visit, row, deletes_regions=deletes_regions)

    def _connected(self, visit: Visit, row_id: int, pool: ToolProject, wishes: Wishes) -> Connected:
        setup = self._setup.through(self._client.watched(visit.watch))
        row = visit.store.projects.by_id(row_id)  # as it is under the lease
        regions_id = setup.connect(
            pool, wishes.mode, wishes.extra_params, row.regions_tool_id, row.regions_uid
        )
        notes: tuple[str, ...] = ()
        if regions_id is not None:
            notes = tuple(setup.tidy_doubles(pool, regions_id))
            uid = self._tool.project(regions_id).uid
            if row.regions_uid in (None, uid):  # another one is the worker's to take note of
                visit.store.projects.change(row_id, regions_tool_id=regions_id, regions_uid=uid)
        row = visit.store.projects.change(row_id, is_sync_requested=True)
        return Connected(row, regions_id, is_complete=True, notes=notes)

    def _disconnected(self, visit: Visit, row: Project, *, deletes_regions: bool) -> list[str]:
        client = self._client.watched(visit.watch)
        setup = self._setup.through(client)
        done = [self._taken_off(setup, row)]
        # Label Studio sets a backend up whenever it lists it, which made the project known again.
        values: dict[str, object] = {
            "is_deleted": True,
            "progress": {"state": "idle"},
            "last_error": None,
        }
        if row.regions_tool_id is not None:
            if deletes_regions:
                self._require_all_read(row)  # what came meanwhile
                client.delete_project(row.regions_tool_id)
                done.append(f"project {row.regions_tool_id}, its regions, was deleted")
                values |= {"regions_tool_id": None, "regions_uid": None, "published_version": None}
                open_rows = visit.store.queue.open(row.id)
                visit.store.queue.change({it.id: {"state": "deleted"} for it in open_rows})
            else:
                done.append(f"project {row.regions_tool_id}, its regions, stays in Label Studio")
        visit.store.projects.change(row.id, **values)
        return done

    def _taken_off(self, setup: ProjectSetup, row: Project) -> str:
        try:
            address = setup.address(row.tool_id)
        except NotFound:
            return f"project {row.tool_id} is gone in Label Studio"
        if address is None:
            return (
                "Label Studio does not say which ML backend is this one: set RALIS_BACKEND_URL to "
                "its address and repeat, or remove it there under Settings > Model"
            )
        num_backends, num_hooks = setup.disconnect(row.tool_id, row.regions_tool_id, address)
        return (
            f"{num_backends} connection(s) of the ML backend {address} and {num_hooks} webhook(s) "
            "were removed"
        )

    def _require_all_read(self, row: Project) -> None:
        """Refuse while the regions project holds what people did and nobody has read."""
        if row.regions_tool_id is None or row.regions_uid is None:
            return
        try:
            found = self._client.project(row.regions_tool_id)
        except NotFound:
            return
        if pool_of(found) != row.uid:
            raise ValueError(
                f"project {row.regions_tool_id} does not say that it holds the regions of project "
                f"{row.tool_id}: delete it in Label Studio yourself if nothing in it is needed"
            )
        unread = num_annotations(found) - self._store.annotations.count(row.regions_uid)
        changed = self._store.readings.changed(
            row.regions_uid, self._tool.tasks(row.regions_tool_id)
        )
        not_counted = [
            it
            for it in self._store.annotations.left_out(row.id)
            if it.tool_uid == row.regions_uid and not it.is_read
        ]
        drafts = list(self._client.tasks(row.regions_tool_id, _HAS_DRAFT))
        what = [
            text
            for text, is_there in (
                (f"{max(unread, len(changed))} tasks whose annotations", bool(unread or changed)),
                (f"{len(not_counted)} annotations that", bool(not_counted)),
                (f"{len(drafts)} unfinished drafts that", bool(drafts)),
            )
            if is_there
        ]
        if what:
            raise ValueError(
                f"project {row.regions_tool_id} holds {' and '.join(what)} were not read; let the "
                f"worker read them (`ralis status --project {row.tool_id}`), or leave the project"
            )

    def _wait(self, pool: ToolProject, doing: str) -> None:
        self._tell(
            f"a worker or another command is at work on project {pool.id} ({doing}); waiting for "
            f"at most {self._wait_s:.0f} s"
        )

    def _pool_of(self, found: dict[str, object]) -> tuple[str, str] | None:
        """The number and the name of the pool whose regions a project holds; None if of none."""
        known = self._store.projects.find(project_uid(found))
        uid = pool_of(found)
        if known is not None and known.regions_tool_id == found.get("id"):
            return str(known.tool_id), f"project {known.tool_id} ({known.title})"
        if uid is None:
            return ("N", "another project") if is_regions_project(found) else None
        number = uid.partition(".")[0]
        return number, f"project {number}"

    def _names(self) -> str:
        names = [
            f"{it['id']} ({it['title']})"
            for it in self._client.projects()
            if not is_regions_project(it)
        ]
        more = f", and {len(names) - 20} more" if len(names) > 20 else ""
        return (", ".join(names[:20]) + more) or "none"


_HAS_DRAFT = ("draft_exists", "Boolean", "equal", True)
