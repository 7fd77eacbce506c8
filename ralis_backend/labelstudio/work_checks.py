"""Is the work going on: the worker, each project's last error, queue, regions, what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ralis_backend.labelstudio.check import Check, tried
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.regions_project import (
    UNLESS,
    is_regions_project,
    num_annotations,
    num_tasks,
    pool_of,
)
from ralis_backend.online.status import (
    ProjectStatus,
    project_status,
    queue_text,
    seconds_since_worker,
)
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project

MOST_NAMED = 3


def worker_check(store: Store) -> Check:
    """Whether a worker lives."""
    age = seconds_since_worker(store)
    fix = "start `ralis serve`, or `ralis worker` beside `ralis web`, with this data folder"
    if age is None:
        return Check("worker", False, "none was seen for a minute: nothing is read or trained", fix)
    return Check("worker", True, f"it was seen {age:.0f} s ago")


def error_checks(store: Store) -> Iterator[Check]:
    """The projects whose last step failed."""
    for project in store.projects.all():
        is_failing = project.num_failures or store.attempts.failures(project.id)
        if project.last_error and is_failing:
            yield _last_error(project_status(store, project))


def work_checks(store: Store, client: LabelStudioClient, project_id: int) -> Iterator[Check]:
    """One project's work; nothing but a hint where it is not connected with this data folder."""
    row = _row(store, project_id)
    connect = f"run `ralis connect --project {project_id}`"
    if row is None or row.is_deleted:
        yield Check(
            "connected", False, f"project {project_id} is not, with this data folder", connect
        )
        return
    status = project_status(store, row)
    yield _last_error(status)
    yield tried(
        "queue", lambda: _queue(status), "see the last error; `ralis status` shows the rest"
    )
    if row.regions_tool_id is not None:
        yield tried("regions project", lambda: _regions(client, row), connect)
        yield tried(
            "one regions project",
            lambda: _doubles(client, row),
            "delete those that nobody needs in Label Studio; the backend deletes empty ones itself",
        )
    yield _left_out("annotations not read", status.unread, "repair or delete them")
    yield _left_out("annotations read in part", status.partly_read, "paint what is missing again")
    yield _left_out(
        "set aside", status.set_aside, f"`ralis train --project {status.id}` retries it"
    )
    yield _left_out("images", status.bad_images, "repair the files, or delete their tasks")


def regions_check(store: Store | None, client: LabelStudioClient, project_id: int) -> str:
    """That a project is no regions project.

    Raises:
        ValueError: if it is one, naming its pool.
    """
    found = client.project(project_id)
    uid = pool_of(found)
    row = None if store is None or uid is None else store.projects.find(uid)
    if not is_regions_project(found):
        return f"{found.get('title')}"
    number = row.tool_id if row else (uid or "N").partition(".")[0]
    raise ValueError(
        f"project {project_id} ({found.get('title')}) holds the regions of project {number}, made "
        f"by the backend; name that one: `ralis doctor --project {number}`"
        + (f" (or, if it is no such project, {UNLESS})" if uid is None else "")
    )


def _row(store: Store, project_id: int) -> Project | None:
    found = [it for it in store.projects.every() if it.tool_id == project_id]
    return min(found, key=lambda it: (it.is_deleted, -it.id), default=None)


def _last_error(status: ProjectStatus) -> Check:
    if not status.last_error or status.last_error == "; ".join(status.set_aside):
        return Check("last error", True, f"none in project {status.id}")
    return Check(
        "last error",
        False,
        f"project {status.id}: {status.last_error}",
        "do what the message says; the worker tries again by itself",
    )


def _queue(status: ProjectStatus) -> str:
    if status.published is None:
        raise ValueError(f"nothing is published yet; the worker's state: {status.doing['state']}")
    if status.regions_id is not None and not status.num_waiting:
        raise ValueError(
            f"no region waits for annotators; the worker's state: {status.doing['state']}"
        )
    return queue_text(status)


def _regions(client: LabelStudioClient, row: Project) -> str:
    if row.regions_tool_id is None:
        return "none"
    found = client.project(row.regions_tool_id)
    if not is_regions_project(found):
        raise ValueError(f"project {row.regions_tool_id} is not one of ours any more")
    return (
        f"project {row.regions_tool_id}: {num_tasks(found)} tasks, "
        f"{num_annotations(found)} annotations"
    )


def _doubles(client: LabelStudioClient, row: Project) -> str:
    others = [
        f"project {it['id']} with {num_tasks(it)} tasks and {num_annotations(it)} annotations"
        for it in client.projects()
        if pool_of(it) in (row.uid, row.regions_uid) and it["id"] != row.regions_tool_id
    ]
    if others:
        raise ValueError(f"there are others beside it, which are not read: {', '.join(others)}")
    return "no others"


def _left_out(name: str, items: Sequence[str], fix: str) -> Check:
    if not items:
        return Check(name, True, "none")
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return Check(name, False, "; ".join(items[:MOST_NAMED]) + more, fix)
