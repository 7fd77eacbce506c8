"""What a play has come to, without ids and times: two plays that agree have lost nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.weights import load
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import CropTask, Project, Version
from tests.faults.play import AnnotatedTool, Play

Snapshot = Mapping[str, Any]
"""Values by section; `files` alone may differ where a process was killed."""


def snapshot(play: Play) -> Snapshot:
    """Everything that a disturbance must not change."""
    store = play.store
    assert store is not None
    project = store.projects.get("1.100")
    return {
        "project": _project(store, project),
        "images": _images(store, project),
        "labels": _labels(store, project),
        "answers": _answers(store, project),
        "queue": _queue(store, project, play.tool),
        "tool": _tool(play.tool),
        "versions": _versions(store, project),
        "rankings": _rankings(store, project),
        "unread": (store.events.has_unread(project), _unread(store, project)),
    }


def differences(expected: Snapshot, found: Snapshot) -> list[str]:
    """The sections that differ, with the first entry in which they do."""
    return [
        f"{section}: {_first_difference(expected[section], found[section])}"
        for section in expected
        if expected[section] != found[section]
    ]


def broken_promises(play: Play) -> list[str]:
    """What must hold whatever has happened, against the tool's own books.

    `lost`: an annotation whose label is missing or wrong; `invented`: a label without one;
    `doubled`: two tasks of one region; `skipped`: an image that is never trained on or shown;
    `stopped`: a project that nobody works on any more.
    """
    store = play.store
    assert store is not None
    project = store.projects.get("1.100")
    labels = Counter((*key, mask) for key, mask in _label_masks(store, project))
    truth = Counter(_expected_labels(play))
    found = [f"lost: label of {_short(label)}" for label in truth - labels]
    found += [f"invented: label of {_short(label)}" for label in labels - truth]
    found += [*doubled(play), *_skipped(store, project)]
    if project.is_deleted:
        found.append("stopped: the project is marked as deleted")
    if project.last_error is not None or project.num_failures:
        found.append(f"stopped: {project.last_error}")
    if project.current_version != project.published_version:
        found.append(f"stopped: v{project.current_version} is not published")
    return found


def doubled(play: Play) -> list[str]:
    """Regions of which annotators have several tasks: they would label them twice."""
    places = Counter(play.tool.place(task_id) for task_id in play.tool.region_tasks)
    return [f"doubled: task of {place}" for place, count in places.items() if count > 1]


def _skipped(store: Store, project: Project) -> list[str]:
    return [
        f"skipped: image {image.task_id} has no size"
        for image in store.images.of(project.id)
        if image.size is None and image.error is None
    ]


def left_out(play: Play) -> list[str]:
    """Images that are said to be bad, and are not."""
    assert play.store is not None
    project = play.store.projects.get("1.100")
    images = play.store.images.of(project.id)
    return [f"left out: image {each.task_id}: {each.error}" for each in images if each.error]


def leftovers(folder: Path) -> list[str]:
    """Files that a write has left under a name that nobody reads."""
    spool = folder / "blobs" / "spool"
    partial = [path for path in folder.rglob(".writing*") if path.exists()]
    return [str(path.relative_to(folder)) for path in [*partial, *spool.glob("*")]]


def _project(store: Store, project: Project) -> dict[str, Any]:
    names = (
        "is_deleted", "is_prepared", "is_sync_requested", "is_training_requested",
        "current_version", "published_version", "round", "last_error", "num_failures",
        "lease_owner", "regions_uid", "class_names", "retry_at",
    )  # fmt: skip
    return {
        **{name: getattr(project, name) for name in names},
        "state": project.progress.get("state"),
        "new labels": store.labels.count(project.id, project.trained_label_id),
        "is queue current": project.published_label_id == store.labels.newest_id(project.id),
    }


def _images(store: Store, project: Project) -> list[Any]:
    return [
        (image.task_id, image.ref, image.size, image.is_validation, image.error)
        for image in store.images.of(project.id)
    ]


def _task_of(store: Store, project: Project) -> dict[int, int]:
    return {image.id: image.task_id for image in store.images.of(project.id)}


def _label_masks(store: Store, project: Project) -> list[tuple[tuple[Any, ...], str]]:
    """Each label that counts: image, region, whether skipped; and its mask's digest."""
    task_of = _task_of(store, project)
    return [
        (
            (task_of[label.image_id], label.region, label.is_skipped),
            _digest(store.labels.mask(label).tobytes()),
        )
        for label in store.labels.every(project.id)
    ]


def _labels(store: Store, project: Project) -> list[Any]:
    details = [
        (label.pixels, label.annotator, label.lead_time_s, label.round, label.strategy,
         label.version)
        for label in store.labels.every(project.id)
    ]  # fmt: skip
    return list(zip(_label_masks(store, project), details, strict=True))


def _answers(store: Store, project: Project) -> list[Any]:
    task_of = _task_of(store, project)
    return [
        (answer.kind, answer.value, task_of[answer.image_id], answer.region, answer.annotator)
        for answer in store.answers.of(project.id)
    ]


def _queue(store: Store, project: Project, tool: AnnotatedTool) -> list[Any]:
    task_of = _task_of(store, project)
    return [
        (
            task_of.get(row.image_id), row.region, row.state, row.round, row.rank, row.reason,
            row.strategy, row.version, round(row.usefulness, 6), _is_in(tool, row),
        )
        for row in store.queue.all(project.id)
        if row.state != "deleted"
    ]  # fmt: skip


def _is_in(tool: AnnotatedTool, row: CropTask) -> bool:
    return row.task_id in tool.region_tasks


def _tool(tool: AnnotatedTool) -> dict[str, Any]:
    tasks = {
        task_id: (tool.place(task_id), *[task.data[name] for name in ("round", "rank", "strategy")])
        for task_id, task in tool.region_tasks.items()
    }
    return {
        "tasks": sorted(tasks.values()),
        "version": tool.version,
        "predictions": sorted(
            (tool.place(task_id), each.rank, round(each.usefulness, 6), _mask_digest(each.mask))
            for task_id, each in tool.predictions.items()
            if task_id in tool.region_tasks
        ),
        "suggestions": sorted(
            (each.task_id, each.version, repr(each.regions), _mask_digest(each.mask))
            for each in tool.image_predictions
        ),
    }


def _versions(store: Store, project: Project) -> list[Any]:
    return [
        (
            version.number, version.parent, version.is_accepted, version.num_labels,
            version.strategy, _is_ranked(project, version), _metrics(version.metrics),
            _weights_digest(store, version.weights_key),
        )
        for version in store.versions.all(project.id)
    ]  # fmt: skip


def _is_ranked(project: Project, version: Version) -> bool:
    """Of the version in use: what an earlier one has ranked may be forgotten at any time."""
    return version.number == project.current_version and version.ranked_at is not None


def _metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What is not a time or a row's id."""
    left_out = ("seconds", "newest_label_id", "newest_region_id")
    return {name: value for name, value in metrics.items() if name not in left_out}


def _rankings(store: Store, project: Project) -> list[Any]:
    version = store.versions.find(project.id, project.current_version)
    if version is None:
        return []
    task_of = _task_of(store, project)
    return sorted(
        (task_of.get(image_id, 0), row.scores, list(row.reasons), _file_digest(store, row.mask_key))
        for image_id, row in store.rankings.scored(version.id).items()
    )


def _unread(store: Store, project: Project) -> list[str | None]:
    return [annotation.error for annotation in store.annotations.failed(project.id)]


def _expected_labels(play: Play) -> list[tuple[Any, ...]]:
    """The labels that the tool's annotations stand for, as the annotators meant them."""
    tool, expected = play.tool, []
    existing = {task.id for task in tool.pool_tasks}
    for annotation in tool.all_annotations[2].values():
        data = tool.region_tasks[annotation.task_id].data
        region = Region(data["row"], data["col"], data["height"], data["width"])
        whole = _painted(annotation, (region.height, region.width))
        if data["source_task"] in existing:
            place = (data["source_task"], region, annotation.is_skipped)
            expected.append((*place, _digest(whole.tobytes())))
    for annotation in tool.all_annotations[1].values():
        whole = _painted(annotation, (64, 96))
        for region in play.regions_of(annotation):
            patch = whole[region.slices].tobytes()
            expected.append((annotation.task_id, region, False, _digest(patch)))
    return expected


def _painted(annotation: Any, size: tuple[int, int]) -> np.ndarray:
    if annotation.is_skipped:
        return np.full(size, VOID, np.uint8)
    return np.array(annotation.results[0]["mask"], np.uint8)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _mask_digest(mask: Any) -> str:
    return "" if mask is None else _digest(mask.tobytes())


def _file_digest(store: Store, key: str | None) -> str:
    return "" if key is None else _digest(store.blobs.get(key))


def _weights_digest(store: Store, key: str | None) -> str:
    """Of the tensors: the order of a file's header is chance."""
    if key is None:
        return ""
    tensors, _ = load(store.blobs.path(key))
    parts = [name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors)]
    return _digest(b"".join(parts))


def _short(label: tuple[Any, ...]) -> str:
    image, region, is_skipped, _ = label
    return f"image {image} at {region.row}, {region.col}{' (skipped)' if is_skipped else ''}"


def _first_difference(expected: Any, found: Any) -> str:
    if isinstance(expected, dict):
        name = next(name for name in expected if expected[name] != found.get(name))
        return f"{name}: {_first_difference(expected[name], found.get(name))}"
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pair = next(pair for pair in zip(expected, found, strict=True) if pair[0] != pair[1])
        if isinstance(pair[0], tuple):
            pair = next(each for each in zip(*pair, strict=True) if each[0] != each[1])
        return f"{str(pair[0])[:120]} became {str(pair[1])[:120]}"
    if isinstance(expected, list) and isinstance(found, list):
        return f"{len(expected)} entries became {len(found)}"
    return f"{str(expected)[:80]} became {str(found)[:80]}"
