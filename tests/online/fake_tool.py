"""A labelling tool in memory: one pool project, one regions project, exact bookkeeping.

Only for tests above `core` that need failures and orders of events which a real server cannot be
asked for; `tests/e2e` runs the same worker against a real Label Studio.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
from PIL import Image as Picture

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.client import NotFound
from ralis_backend.labelstudio.payloads.events import read_hint
from ralis_backend.online.tool import (
    ClassLabel,
    Crop,
    CropPrediction,
    FoundRegions,
    Hint,
    ImageSuggestion,
    Painted,
    Refusals,
    TaskAnnotations,
    Tool,
    ToolAnnotation,
    ToolError,
    ToolProject,
    ToolTask,
    Watch,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = (ClassLabel("dark", "#000000"), ClassLabel("bright", "#FFFFFF"))


def picture(seed: int, size: tuple[int, int] = (64, 96)) -> tuple[bytes, np.ndarray]:
    """A noisy image whose bright half is class 1, as PNG bytes and (H, W) mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    mask[:, rng.integers(20, 76) :] = 1
    pixels = rng.integers(0, 60, (*size, 3)) + 180 * mask[..., None]
    buffer = io.BytesIO()
    Picture.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue(), mask


CHANGES = {
    "prepare",
    "tidy_doubles",
    "create_crop_tasks",
    "publish_crop_predictions",
    "publish_image_predictions",
    "delete_unopened_tasks",
    "describe",
}
"""Calls that change something in the tool."""


class Watched:
    """A tool of whose calls somebody is told."""

    def __init__(self, tool: FakeTool, watch: Watch) -> None:
        self._tool = tool
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._tool, name)

        def told(*values: Any, **options: Any) -> Any:
            self._watch(is_change=name in CHANGES)
            return call(*values, **options)

        return told


class FakeTool:
    """Implements `online.tool.Tool`; results are `[{"mask": nested list}, {"odd": why}]`.

    On whole images also `{"box": region, "refused": True}`, and `{"drawn": type}` without a mask.
    """

    def __init__(self, num_images: int = 6) -> None:
        self.pool = ToolProject("1.100", 1, "pool", "<View/>", CLASSES)
        self.files = {index: picture(index) for index in range(1, num_images + 1)}
        self.pool_tasks = [ToolTask(i, START, f"/data/{i}.png") for i in self.files]
        self.regions_uid = "2.200"
        self.region_tasks: dict[int, ToolTask] = {}
        self.all_annotations: dict[int, dict[int, ToolAnnotation]] = {1: {}, 2: {}}
        self.predictions: dict[int, CropPrediction] = {}
        self.image_predictions: list[ImageSuggestion] = []
        self.version: str | None = None
        self.descriptions: dict[int, str] = {}
        self.begun: set[int] = set()
        self.clock = START
        self.fail_next: Exception | None = None
        self.fail_in: dict[str, Exception] = {}  # by the name of a call, once
        self.is_gone = False
        self.others: dict[tuple[str, int], np.ndarray | Exception] = {}  # predictions of others
        self.doubles: list[str] = []  # what is said of second regions projects
        self.calls: list[str] = []
        self.num_read = 0  # tasks whose annotations were given

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        if name in self.fail_in:
            raise self.fail_in.pop(name)

    def watched(self, watch: Watch) -> Tool:
        return cast(Tool, Watched(self, watch))

    def tick(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock

    def project(self, project_id: int) -> ToolProject:
        self._call("project")
        if self.is_gone:
            raise NotFound(f"project {project_id} does not exist")
        counts = {
            "num_tasks": len(self._tasks(project_id)),
            "num_annotations": len(self.all_annotations[project_id]),
        }
        if project_id == 1:
            return replace(self.pool, **counts)
        return replace(self.pool, uid=self.regions_uid, id=2, title="regions", **counts)

    def prepare(
        self,
        project: ToolProject,
        mode: str,
        regions_project_id: int | None,
        regions_uid: str | None = None,
    ) -> int | None:
        self._call("prepare")
        return 2 if mode == "crops" else None

    def tidy_doubles(self, project: ToolProject, regions_project_id: int) -> list[str]:
        self._call("tidy_doubles")
        return list(self.doubles)

    def tasks(self, project_id: int, changed_since: datetime | None = None) -> list[ToolTask]:
        self._call("tasks")
        tasks = [self._described(project_id, task) for task in self._tasks(project_id)]
        since = changed_since or START
        return [task for task in tasks if task.changed_at is None or task.changed_at >= since]

    def annotations(self, project_id: int, task_ids: Sequence[int]) -> Iterator[TaskAnnotations]:
        self._call("annotations")
        for task in self._tasks(project_id):
            if task.id in task_ids:
                described = self._described(project_id, task)
                self.num_read += 1
                yield TaskAnnotations(described, self._annotations_of(project_id, task))

    def hint(self, action: str, payload: Mapping[str, Any]) -> Hint:
        return read_hint(action, payload)

    def _tasks(self, project_id: int) -> list[ToolTask]:
        return list(self.pool_tasks if project_id == 1 else self.region_tasks.values())

    def _annotations_of(self, project_id: int, task: ToolTask) -> list[ToolAnnotation]:
        every = self.all_annotations[project_id].values()
        return [annotation for annotation in every if annotation.task_id == task.id]

    def _described(self, project_id: int, task: ToolTask) -> ToolTask:
        """A task as the tool lists it: dated by the newest change of its annotations."""
        found = self._annotations_of(project_id, task)
        changed_at = max([task.created_at, *(it.updated_at for it in found)])
        said = repr([task.created_at, [(it.id, it.updated_at) for it in found]])
        state = hashlib.sha256(said.encode()).hexdigest()
        return replace(task, num_annotations=len(found), changed_at=changed_at, state=state)

    def mask(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        class_names: Sequence[str],
        size: tuple[int, int],
        background: str | None,
    ) -> Painted:
        if annotation.results and "unknown" in annotation.results[0]:
            raise ValueError(f"annotation {annotation.id}: unknown label")
        odd = tuple(it["odd"] for it in annotation.results if "odd" in it)
        ground = VOID if background is None else list(class_names).index(background)
        painted = [it["mask"] for it in annotation.results if "mask" in it]
        if not painted:
            nothing = np.full(size, VOID, np.uint8)
            return Painted(
                np.full(size, ground, np.uint8), nothing != VOID, nothing, class_names, odd
            )
        mask = np.array(painted[0], np.uint8)
        assert mask.shape == size
        filled = np.where(mask == VOID, np.uint8(ground), mask)
        return Painted(filled, mask != VOID, mask, class_names, odd)

    def answers(self, annotation: ToolAnnotation, *, is_asked: bool = False) -> dict[str, Any]:
        return {
            name: it[name] for name in ("useful", "rest") for it in annotation.results if name in it
        }

    def annotated_regions(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        image_size: tuple[int, int],
        handed_out: Sequence[Region],
    ) -> FoundRegions:
        boxes = [Region(*result["box"]) for result in annotation.results if "box" in result]
        clipped = (region.clipped(image_size) for region in handed_out)
        inside = dict.fromkeys(region for region in clipped if region.is_inside(image_size))
        odd = tuple(it["odd box"] for it in annotation.results if "odd box" in it)
        drawn = tuple(it["drawn"] for it in annotation.results if "drawn" in it)
        return FoundRegions(tuple(boxes or inside), odd, drawn, are_boxes=bool(boxes))

    def refusals(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        size: tuple[int, int],
        regions: Sequence[Region],
    ) -> Refusals:
        refused = {Region(*it["box"]) for it in annotation.results if it.get("refused")}
        return Refusals(frozenset(refused.intersection(regions)))

    def others_mask(
        self,
        pool: ToolProject,
        model_version: str,
        task_id: int,
        class_names: Sequence[str],
        size: tuple[int, int],
    ) -> np.ndarray | None:
        self._call("others_mask")
        found = self.others.get((model_version, task_id))
        if isinstance(found, Exception):
            raise found
        return found

    def image(self, task: ToolTask) -> bytes:
        self._call("image")
        if task.id not in self.files:
            raise ValueError(f"task {task.id} has no image")
        return self.files[task.id][0]

    def create_crop_tasks(
        self, pool: ToolProject, regions_project_id: int, crops: Sequence[Crop]
    ) -> list[ToolTask]:
        self._call("create_crop_tasks")
        there = {_crop_key(task.data): task for task in self.region_tasks.values()}
        made = []
        for crop in crops:
            task_id = 1000 + len(self.calls) * 1000 + len(self.region_tasks)
            data = {
                "source_task": crop.source_task,
                "source_created_at": str(crop.source_created_at),
                "row": crop.region.row,
                "col": crop.region.col,
                "height": crop.region.height,
                "width": crop.region.width,
                "round": crop.round,
                "rank": crop.rank,
                "reason": crop.reason,
                "strategy": crop.strategy,
                "version": crop.version,
            }
            task = there.get(_crop_key(data))
            if task is None:
                task = ToolTask(task_id, self.tick(), "/data/crop.png", data)
                self.region_tasks[task_id] = task
            made.append(task)
        return made

    def publish_crop_predictions(
        self,
        regions_project_id: int,
        version: str,
        class_names: Sequence[str],
        predictions: Sequence[CropPrediction],
    ) -> None:
        self._call("publish_crop_predictions")
        found = {prediction.task_id: prediction for prediction in predictions}
        if gone := found.keys() - self.region_tasks.keys():
            raise ToolError(f"tasks {sorted(gone)} are not in the project")
        self.version = version
        self.predictions = found

    def publish_image_predictions(
        self,
        pool: ToolProject,
        version: str,
        class_names: Sequence[str],
        suggestions: Sequence[ImageSuggestion],
    ) -> None:
        self._call("publish_image_predictions")
        self.version = version
        self.image_predictions = list(suggestions)

    def describe(self, project_id: int, line: str) -> None:
        self._call("describe")
        self.descriptions[project_id] = line

    def begun_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        self._call("begun_tasks")
        return [task_id for task_id in task_ids if task_id in self.begun & self.region_tasks.keys()]

    def delete_unopened_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        self._call("delete_unopened_tasks")
        gone = [task_id for task_id in task_ids if task_id not in self.begun]
        for task_id in gone:
            self.region_tasks.pop(task_id, None)
        return gone

    # What annotators do

    def queue(self) -> list[int]:
        """Unlabelled region tasks, in the order in which annotators meet them."""
        done = {annotation.task_id for annotation in self.all_annotations[2].values()}
        open_ids = [task_id for task_id in self.region_tasks if task_id not in done]
        return sorted(open_ids, key=lambda task_id: -self.predictions[task_id].usefulness)

    def truth(self, task_id: int) -> np.ndarray:
        """The true mask of a region task."""
        data = self.region_tasks[task_id].data
        region = Region(data["row"], data["col"], data["height"], data["width"])
        return self.files[data["source_task"]][1][region.slices]

    def annotate(
        self,
        task_id: int,
        results: Sequence[Mapping[str, Any]] | None = None,
        *,
        project_id: int = 2,
        is_skipped: bool = False,
        annotator: str = "ann",
        annotation_id: int | None = None,
        is_starred: bool = False,
        is_machine: bool = False,
        lead_time_s: float | None = 12.5,
    ) -> dict[str, Any]:
        """Submit (or update) an annotation; the event that Label Studio would send."""
        tasks = self.pool_tasks if project_id == 1 else list(self.region_tasks.values())
        task = next(task for task in tasks if task.id == task_id)
        if results is None:
            results = [{"mask": self.truth(task_id).tolist()}]
        known = self.all_annotations[project_id]
        number = annotation_id or 1 + max(
            (number for of_project in self.all_annotations.values() for number in of_project),
            default=0,
        )
        created_at = known[number].created_at if number in known else self.tick()
        known[number] = ToolAnnotation(
            number, task.id, task.created_at, annotator, created_at, self.tick(), lead_time_s,
            is_skipped, list(results), self.version, is_starred, is_machine,
        )  # fmt: skip
        return {"annotation": {"id": number, "task": task.id, "project": project_id}}


def _crop_key(data: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells the tasks of crops apart, as Label Studio's adapter does."""
    names = ("source_task", "row", "col", "height", "width", "round", "version")
    return tuple(data[name] for name in names)
