"""Webhooks of Label Studio: what is kept of them, and what they say has changed.

Only ids: Label Studio does not sign webhooks, sends them once and in any order, so that what they
claim is read back through its API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ralis_backend.online.tool import MAX_ID, Hint

MAX_EVENT = 64
"""Characters of an event's name."""
MOST_IDS = 1000
"""Of a webhook's annotations or tasks; one that names more is unclear, and everything is read."""
_KEPT = ("id", "created_at", "task", "project")
_ANNOTATED = {
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "ANNOTATION_DELETED",
}
_LARGEST_ID = 2**31 - 1
"""That a column of ids holds; Label Studio counts from 1."""
_LONGEST = 64
_NAMES = ("annotation", "annotations", "task", "tasks", "project")


def event_payload(data: Mapping[str, Any]) -> dict[str, Any]:
    """A webhook's annotations, tasks and project by their ids and creation times.

    Of more than `MOST_IDS` so many are kept that `read_hint` sees there were more.
    """
    return {name: _kept(data[name]) for name in _NAMES if name in data}


def read_hint(action: str, payload: Mapping[str, Any]) -> Hint:
    """What a webhook says has changed; also from payloads that were stored whole."""
    if any(isinstance(it, list) and len(it) > MOST_IDS for it in map(payload.get, _NAMES)):
        return Hint(is_about_settings=action == "PROJECT_UPDATED", is_unclear=True)
    if action in _ANNOTATED:
        return _of_annotations(payload)
    if action == "PROJECT_UPDATED":
        return Hint(is_about_settings=True)
    tasks = frozenset(_ids(_entries(payload, "task")))
    if action == "TASKS_CREATED" and tasks:
        return Hint(made=tasks)
    if action == "TASKS_DELETED" and tasks:
        return Hint(deleted=tasks)
    return Hint(is_unclear=True)


def _of_annotations(payload: Mapping[str, Any]) -> Hint:
    entries = _entries(payload, "annotation")
    annotations = frozenset(_ids(entries))
    named = [entry.get("task") for entry in entries if isinstance(entry, Mapping)]
    annotated = frozenset(_ids([*named, *_entries(payload, "task")]))
    return Hint(annotated, annotations, is_unclear=not annotations and not annotated)


def _entries(payload: Mapping[str, Any], name: str) -> list[Any]:
    """The annotation (or task) of an event, or its annotations."""
    many, one = payload.get(f"{name}s"), payload.get(name)
    return [*(many if isinstance(many, list) else []), *([] if one is None else [one])]


def _ids(entries: Iterable[Any]) -> Iterable[int]:
    """The ids in a list of ids, or of objects with ids; what is no id is left out."""
    for entry in entries:
        value = entry.get("id") if isinstance(entry, Mapping) else entry
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_ID:
            yield value


def _kept(value: Any) -> Any:
    if isinstance(value, list):
        return [_entry(entry) for entry in value[: MOST_IDS + 1]]
    return _entry(value)


def _entry(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _plain(value)
    return {name: _plain(value[name]) for name in _KEPT if name in value}


def _plain(value: Any) -> int | str | None:
    """An id or a time; what has an id is kept as that."""
    if isinstance(value, Mapping):
        value = value.get("id")
    if isinstance(value, str):
        return value[:_LONGEST]
    return value if isinstance(value, int) and abs(value) <= MAX_ID else None
