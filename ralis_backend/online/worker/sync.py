"""The labelling tool -> the store: images, annotations, labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ralis_backend.core.images import decode_image
from ralis_backend.core.regions import Region, grid
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import annotation_from_json, now, unpack, version_number
from ralis_backend.online.store.tables import CropTask, Image, Project
from ralis_backend.online.tool import (
    Tool,
    ToolAnnotation,
    ToolNotFound,
    ToolProject,
    ToolTask,
    ToolUnavailable,
)
from ralis_backend.online.worker.config import WorkerConfig

if TYPE_CHECKING:
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Annotation, Event

logger = logging.getLogger(__name__)

ANNOTATED = {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED"}
DELETED = {"ANNOTATIONS_DELETED", "ANNOTATION_DELETED"}


class Sync:
    """Reads one project from the tool; every method may be repeated at any time."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config

    def project(self, project: Project) -> ToolProject:
        """The pool project as the tool has it; `ToolNotFound` if it was deleted."""
        found = self._tool.project(project.tool_id)
        if found.uid != project.uid:
            raise ToolNotFound(
                f"project {project.tool_id} is another one now (created {found.uid}, known here "
                f"as {project.uid}); connect the backend to it again"
            )
        return found

    def full(self, project: Project) -> Project:
        """Bring settings in order and read all tasks and annotations: repairs lost webhooks."""
        pool = self.project(project)
        project = self._store.projects.register(
            pool.uid, pool.id, pool.label_config, pool.classes, pool.title
        )
        regions_id = self._tool.prepare(pool, self._config.mode, project.regions_tool_id)
        regions_uid = self._tool.project(regions_id).uid if regions_id is not None else None
        if regions_uid != project.regions_uid:
            self._forget_crop_tasks(project)
        project = self._store.projects.change(
            project.id,
            regions_tool_id=regions_id,
            regions_uid=regions_uid,
            is_prepared=True,
            is_sync_requested=False,
        )
        self._store.images.reconcile(project.id, list(self._tool.tasks(pool.id)))
        self._read_annotations(project, pool, pool.uid, pool.id)
        if regions_id is not None and regions_uid is not None:
            tasks = self._adopt_crop_tasks(project, regions_id)
            self._read_annotations(project, pool, regions_uid, regions_id, tasks)
        for annotation in self._store.annotations.failed(project.id):
            self._read_labels(project, pool, annotation)
        return self._store.projects.change(project.id, synced_at=now())

    def events(self, project: Project) -> bool:
        """Read the webhooks that have come; True if there were any."""
        events = self._store.events.unread(project)
        if not events:
            return False
        pool = self.project(project)
        for event in events:
            try:
                self._read_event(project, pool, event)
            except ToolUnavailable:
                raise
            except Exception as error:
                # A hint that cannot be read is repaired by a full reading.
                logger.warning("project %s: event %s: %s", project.uid, event.action, error)
                self._store.projects.change(project.id, is_sync_requested=True)
            self._store.events.drop(event.id)
        return True

    def _read_event(self, project: Project, pool: ToolProject, event: Event) -> None:
        payload = unpack(event.payload)
        if event.action in ANNOTATED:
            for entry in _entries(payload, "annotation"):
                annotation = self._tool.parse_annotation(entry)
                self._store_annotation(project, pool, event.tool_uid, annotation)
        elif event.action in DELETED:
            ids = [int(entry["id"]) for entry in _entries(payload, "annotation")]
            self._store.annotations.withdraw(event.tool_uid, ids)
        else:  # tasks created or deleted, settings saved
            self._store.projects.change(project.id, is_sync_requested=True)

    def _read_annotations(
        self,
        project: Project,
        pool: ToolProject,
        tool_uid: str,
        tool_id: int,
        tasks: Sequence[ToolTask] | None = None,
    ) -> None:
        started = now()
        for annotation in self._tool.annotations(tool_id):
            self._store_annotation(project, pool, tool_uid, annotation)
        if tasks is None:
            task_ids = [image.task_id for image in self._store.images.of(project.id)]
        else:
            task_ids = [task.id for task in tasks]
        self._store.annotations.withdraw_unseen(tool_uid, started, task_ids)

    def _store_annotation(
        self, project: Project, pool: ToolProject, tool_uid: str, annotation: ToolAnnotation
    ) -> None:
        image, crop_task = self._place(project, tool_uid, annotation)
        row = self._store.annotations.put(project, tool_uid, annotation, image, crop_task)
        if row is not None:
            self._read_labels(project, pool, row)

    def _place(
        self, project: Project, tool_uid: str, annotation: ToolAnnotation
    ) -> tuple[Image | None, CropTask | None]:
        """The image of an annotation, and the crop task if it is one of the regions project."""
        created_at = annotation.task_created_at
        if tool_uid == project.uid:
            return self._store.images.find(project.id, annotation.task_id, created_at), None
        crop_task = self._store.queue.find(project.id, annotation.task_id, created_at)
        if crop_task is None:
            return None, None
        return self._store.images.get(crop_task.image_id), crop_task

    def _read_labels(self, project: Project, pool: ToolProject, row: Annotation) -> None:
        """Annotation -> labelled regions and answers; a failure is noted with the annotation."""
        annotation = annotation_from_json(unpack(row.payload))
        try:
            if row.image_id is None:
                raise ValueError(
                    f"annotation {annotation.id} belongs to task {annotation.task_id}, "
                    "which is not known here"
                )
            labels = self._labels(project, pool, row, row.image_id, annotation)
            answers = self._tool.answers(annotation)
        except ToolUnavailable:
            raise
        except Exception as error:
            # One unreadable annotation must not stop the others; it stays stored.
            logger.warning("project %s: %s", project.uid, error)
            self._store.annotations.fail(row, str(error))
            return
        self._store.labels.put(row, labels, answers)

    def _labels(
        self,
        project: Project,
        pool: ToolProject,
        row: Annotation,
        image_id: int,
        annotation: ToolAnnotation,
    ) -> list[NewLabel]:
        names = project.class_names
        background = self._config.background_label
        if row.crop_task_id is not None:
            region = self._store.queue.get(row.crop_task_id).region
            if annotation.is_skipped:
                return [NewLabel(region, None)]
            size = (region.height, region.width)
            mask = self._tool.mask(annotation, pool, names, size, background)
            return [NewLabel(region, mask)]
        size = self._image_size(image_id)
        regions = self._annotated_regions(pool, image_id, annotation, size)
        if annotation.is_skipped:
            return [NewLabel(region, None) for region in regions]
        mask = self._tool.mask(annotation, pool, names, size, background)
        return [NewLabel(region, np.ascontiguousarray(mask[region.slices])) for region in regions]

    def _annotated_regions(
        self,
        pool: ToolProject,
        image_id: int,
        annotation: ToolAnnotation,
        size: tuple[int, int],
    ) -> list[Region]:
        """What a whole-image annotation labels.

        The rectangles it carries; else the regions that were suggested with the prediction it
        started from; else the whole image, region by region.
        """
        regions = self._tool.annotated_regions(annotation, pool, size)
        number = version_number(annotation.suggested_version)
        if not regions and number is not None:
            handed_out = self._store.queue.handed_out(image_id, number)
            if handed_out is not None:
                regions = [
                    Region(entry["row"], entry["col"], entry["height"], entry["width"])
                    for entry in handed_out.regions
                ]
        return regions or grid(size, self._config.ranking.region_size)

    def _image_size(self, image_id: int) -> tuple[int, int]:
        """(height, width) of an annotated image, read from its file the first time."""
        image = self._store.images.get(image_id)
        if image.size is not None:
            return image.size
        content = self._tool.image(tool_task(image))
        height, width = decode_image(content).shape[:2]
        self._store.images.change(image.id, height=height, width=width, error=None)
        return height, width

    def _adopt_crop_tasks(self, project: Project, regions_id: int) -> list[ToolTask]:
        """Match the regions project's tasks with our rows.

        A task that was made just before a kill gets its id; one that is unknown here (a lost
        data folder) becomes known from its data; one that is gone is marked so.
        """
        tasks = list(self._tool.tasks(regions_id))
        rows = self._store.queue.all(project.id)
        known = {(row.task_id, row.task_created_at): row for row in rows}
        planned = {_place_key(row): row for row in rows if row.task_id is None}
        images = {image.task_id: image for image in self._store.images.of(project.id)}
        changes: dict[int, Mapping[str, Any]] = {}
        unknown: list[CropTask] = []
        for task in tasks:
            row = known.pop((task.id, task.created_at), None)
            if row is not None:
                if row.state == "deleted":
                    changes[row.id] = {"state": "open"}
                continue
            adopted = _crop_task_of(project, task, images)
            if adopted is None:
                continue
            row = planned.pop(_place_key(adopted), None)
            if row is None:
                unknown.append(adopted)
            else:
                changes[row.id] = {"task_id": task.id, "task_created_at": task.created_at}
        for row in known.values():
            if row.task_id is not None and row.state == "open":
                changes[row.id] = {"state": "deleted"}
        self._store.queue.change(changes)
        self._store.queue.add(unknown)
        return tasks

    def _forget_crop_tasks(self, project: Project) -> None:
        """The regions project is another one: its open tasks are gone, its labels are kept."""
        rows = self._store.queue.open(project.id)
        self._store.queue.change({row.id: {"state": "deleted"} for row in rows})
        self._store.projects.change(project.id, published_version=None)


def tool_task(image: Image) -> ToolTask:
    """The task behind an image."""
    return ToolTask(
        image.task_id, image.task_created_at, image.ref, project_id=image.tool_project_id
    )


def attempt_on(image: Image) -> tuple[int, str, int, str]:
    """What `Attempts.trying` counts an image under."""
    return image.project_id, "image", image.id, f"the image of task {image.task_id}"


def _entries(payload: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The annotation of an event, or its annotations."""
    many = payload.get(f"{name}s")
    if many:
        return list(many)
    one = payload.get(name)
    return [] if one is None else [one]


def _place_key(row: CropTask) -> tuple[int, Region, int]:
    return (row.image_id, row.region, row.round)


_NUMBERS = ("row", "col", "height", "width", "scale", "round", "rank")
_MOST = 2**31 - 1
"""What a column of the database holds; anyone may write into a task."""


def _crop_task_of(project: Project, task: ToolTask, images: Mapping[int, Image]) -> CropTask | None:
    """A row from what a task's data says; None if the task is not one of ours."""
    data = task.data
    try:
        image = images.get(int(data["source_task"]))
        if image is None:
            return None
        if any(abs(int(data.get(name, 0))) > _MOST for name in _NUMBERS):
            return None
        return CropTask(
            project_id=project.id,
            image_id=image.id,
            row=int(data["row"]),
            col=int(data["col"]),
            height=int(data["height"]),
            width=int(data["width"]),
            scale=int(data.get("scale", 1)),
            round=int(data["round"]),
            rank=int(data["rank"]),
            reason=str(data.get("reason", "")),
            strategy=str(data.get("strategy", "")),
            version=version_number(str(data.get("version", "v0"))) or 0,
            usefulness=0.0,
            task_id=task.id,
            task_created_at=task.created_at,
            state="open",
        )
    except (KeyError, TypeError, ValueError):
        return None
