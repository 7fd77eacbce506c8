"""The tool's tasks and annotations -> the store, as far as they changed since the last reading.

What the tool says now replaces what is stored, however it is dated. Times decide only what is
asked for first; what they hid is found by the tool's counts, and by a whole list now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ralis_backend.online.store import annotation_from_json, now, parts, unpack, version_number
from ralis_backend.online.store.tables import CropTask, Image, Project
from ralis_backend.online.tool import Tool, ToolAnnotation, ToolTask
from ralis_backend.online.worker.label_reader import LabelReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from ralis_backend.core.regions import Region
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Annotation, Source

logger = logging.getLogger(__name__)

PAGE = 500
"""Tasks that are looked up at once."""
WHOLE_EVERY = 48
"""Every so many readings all tasks are listed, in case the tool's clock hid a change."""
COMPARED_SHARE = 24
"""Of the annotated tasks, one in so many is read by such a reading whether changed or not."""
NUM_DOUBTS = 3
"""A list that lacks tasks which the tool counts is believed when it came so often in a row."""
OVERLAP = timedelta(seconds=60)
"""Changes are listed from so long before the newest one seen: some were still being written."""


@dataclass(frozen=True)
class ToolSource:
    """One of the tool's projects that is read: the pool, or the regions project."""

    uid: str
    id: int


class ToolReader:
    """Reads one project at one time.

    Args:
        store: what is known.
        tool: where it is read.
        labels: reads the labels of annotations that are new or changed.
        project: the project, with its pool's uid.
    """

    def __init__(self, store: Store, tool: Tool, labels: LabelReader, project: Project) -> None:
        self._store = store
        self._tool = tool
        self._labels = labels
        self._project = project
        self._tried: set[int] = set()

    def read_changes(self, source: ToolSource) -> None:
        """Read what changed since the last time; everything if the counts do not agree then."""
        known = self._store.readings.source(self._project.id, source.uid)
        is_whole_due = self._project.num_readings % WHOLE_EVERY == 0
        if known.id is not None and not known.num_doubts and not is_whole_due:
            known = self._read_since(source, known)
            if self._extra(source, known) == (known.extra_tasks, known.extra_annotations):
                return
        self._read_whole(source, known)

    def read_tasks(self, source: ToolSource, task_ids: Sequence[int]) -> None:
        """Read the annotations of these tasks; tasks that the tool does not have are left alone."""
        if not task_ids:
            return
        for found in self._tool.annotations(source.id, task_ids):
            image, crop_task = self._place(source, found.task)
            rows = self._store.annotations.put_task(
                self._project, source.uid, found, image, crop_task
            )
            for row in rows:
                self._read_labels(row)

    def read_unread(self) -> None:
        """Try those annotations again whose labels could not be read before."""
        self._read_again(self._store.annotations.unread(self._project.id))

    def read_waiting(self) -> None:
        """Read the labels of those annotations whose turn had not come."""
        self._read_again(self._store.annotations.waiting(self._project.id))

    # What is listed

    def _read_since(self, source: ToolSource, known: Source) -> Source:
        since = known.changed_at
        listed = self._tool.tasks(source.id, since and since - OVERLAP)
        newest, _ = self._read_listed(source, listed)
        newest = max(filter(None, (newest, since)), default=None)
        return known if newest == since else self._store.readings.note(known, changed_at=newest)

    def _read_whole(self, source: ToolSource, known: Source) -> None:
        newest, seen = self._read_listed(source, self._tool.tasks(source.id), is_whole=True)
        num_doubts = self._doubts(source, known, seen)
        if num_doubts in (0, NUM_DOUBTS):
            self._mark_missing(source, seen)
        known = self._store.readings.note(
            known, changed_at=newest, num_doubts=num_doubts % NUM_DOUBTS
        )
        tasks, annotations = self._extra(source, known) or (0, 0)
        self._store.readings.note(known, extra_tasks=tasks, extra_annotations=annotations)

    def _read_listed(
        self, source: ToolSource, tasks: Iterable[ToolTask], is_whole: bool = False
    ) -> tuple[datetime | None, Set[int]]:
        """Read the tasks that changed; when one of all changed last, and their ids."""
        newest: datetime | None = None
        seen: set[int] = set()
        due: list[int] = []
        for page in parts(tasks, PAGE):
            due += self._due(source, page, is_whole)
            if len(due) >= PAGE:
                self.read_tasks(source, due)
                due = []
            newest = _newest(newest, page)
            seen.update(task.id for task in page)
        self.read_tasks(source, due)
        return newest, seen

    def _due(self, source: ToolSource, tasks: Sequence[ToolTask], is_whole: bool) -> list[int]:
        """Make listed tasks known; those whose annotations are to be read."""
        if self._is_pool(source):
            self._store.images.note(self._project.id, tasks)
        else:
            self._adopt(tasks)
        due = {task.id for task in self._store.readings.changed(source.uid, tasks)}
        if is_whole:
            turn = self._project.num_readings // WHOLE_EVERY % COMPARED_SHARE
            due |= {it.id for it in tasks if it.num_annotations and it.id % COMPARED_SHARE == turn}
        return sorted(due)

    def _doubts(self, source: ToolSource, known: Source, seen: Set[int]) -> int:
        """How many lists in a row, with this one, lacked tasks that the tool counts."""
        num_tasks = self._tool.project(source.id).num_tasks
        if num_tasks is not None and len(seen) >= num_tasks:
            return 0
        logger.warning(
            "project %s: project %d of the tool lists %d tasks and counts %s; those that are "
            "missing are taken for deleted when %d lists in a row say so",
            self._project.tool_id,
            source.id,
            len(seen),
            num_tasks,
            NUM_DOUBTS,
        )
        return known.num_doubts + 1

    def _extra(self, source: ToolSource, known: Source) -> tuple[int, int] | None:
        """Tasks and annotations that the tool counts beyond what is stored; None: not told.

        Annotators go on meanwhile: what is read again after the tool has counted explains the
        difference, unless there is more to it.
        """
        counted = self._tool.project(source.id)
        usual = (known.extra_tasks, known.extra_annotations)
        before = self._stored(source)
        if counted.num_tasks is None or counted.num_annotations is None:
            return None
        if (counted.num_tasks - before[0], counted.num_annotations - before[1]) == usual:
            return usual
        self._read_since(source, known)
        after = self._stored(source)
        return (
            _unexplained(counted.num_tasks, before[0], after[0], usual[0]),
            _unexplained(counted.num_annotations, before[1], after[1], usual[1]),
        )

    def _stored(self, source: ToolSource) -> tuple[int, int]:
        if self._is_pool(source):
            num_tasks = self._store.images.count(self._project.id)
        else:
            num_tasks = self._store.queue.count_made(self._project.id)
        return num_tasks, self._store.annotations.count(source.uid)

    def _is_pool(self, source: ToolSource) -> bool:
        return source.uid == self._project.uid

    def _mark_missing(self, source: ToolSource, task_ids: Set[int]) -> None:
        if self._is_pool(source):
            self._store.images.mark_missing(self._project.id, task_ids)
        else:
            self._store.queue.mark_missing(self._project.id, task_ids)

    # What is annotated

    def _place(self, source: ToolSource, task: ToolTask) -> tuple[Image | None, CropTask | None]:
        """The image of a task, and the crop task if it is one of the regions project."""
        if self._is_pool(source):
            return self._store.images.find(self._project.id, task.id, task.created_at), None
        crop_task = self._store.queue.find(self._project.id, task.id, task.created_at)
        if crop_task is None:
            self._adopt([task])
            crop_task = self._store.queue.find(self._project.id, task.id, task.created_at)
        if crop_task is None:
            return None, None
        return self._store.images.get(crop_task.image_id), crop_task

    def _placed(self, row: Annotation) -> Annotation:
        """An annotation of a task that was not known before, if it is now."""
        annotation = annotation_from_json(unpack(row.payload))
        task = _task_of(annotation)
        image, crop_task = self._place(ToolSource(row.tool_uid, 0), task) if task else (None, None)
        if image is None:
            return row
        project, tool_uid = self._project, row.tool_uid
        return self._store.annotations.put(project, tool_uid, annotation, image, crop_task) or row

    def _read_again(self, rows: Iterable[Annotation]) -> None:
        for row in rows:
            if row.id not in self._tried:
                self._read_labels(self._placed(row) if row.image_id is None else row)

    def _read_labels(self, row: Annotation) -> None:
        self._tried.add(row.id)
        self._labels.read(row)

    # Tasks of the regions project

    def _adopt(self, tasks: Sequence[ToolTask]) -> None:
        """Match the regions project's tasks with our rows.

        A task that was made just before a kill gets its id; one that is unknown here (a lost
        data folder) becomes known from its data; a task id belongs to one task at a time.
        """
        rows = self._store.queue.of_tasks(self._project.id, [task.id for task in tasks])
        known = {(row.task_id, row.task_created_at): row for row in rows}
        listed = {(task.id, task.created_at): task for task in tasks}
        changes: dict[int, Mapping[str, object]] = {}
        for key, row in known.items():
            if key in listed and row.state == "deleted":
                changes[row.id] = {"state": "open"}
            elif key not in listed and row.state == "open":
                changes[row.id] = {"state": "deleted"}
        unknown = [task for key, task in listed.items() if key not in known]
        new = self._adopt_unknown(unknown, changes) if unknown else []
        if changes:
            self._store.queue.change(changes)
        if new:
            self._store.queue.add(new)

    def _adopt_unknown(
        self, tasks: Sequence[ToolTask], changes: dict[int, Mapping[str, object]]
    ) -> list[CropTask]:
        """Rows for tasks that have none; a planned row's change is added to `changes`."""
        sources = {source for task in tasks if (source := _source_task(task)) is not None}
        images = self._store.images.of_tasks(self._project.id, sources)
        waiting = self._store.queue.planned(self._project.id)
        planned = {_place_key(row): row for row in waiting}
        new = []
        for task in tasks:
            adopted = _crop_task_of(self._project, task, images)
            if adopted is None:
                continue
            row = planned.pop(_place_key(adopted), None)
            if row is None:
                new.append(adopted)
            else:
                changes[row.id] = {"task_id": task.id, "task_created_at": task.created_at}
        return new


def _unexplained(counted: int, before: int, after: int, usual: int) -> int:
    """`usual` where what was stored before and after the tool counted lies on both sides of it."""
    low, high = sorted((before + usual, after + usual))
    return usual if low <= counted <= high else counted - after


def _newest(newest: datetime | None, tasks: Sequence[ToolTask]) -> datetime | None:
    """When something changed last; a time that is still to come would hide all until then."""
    latest = now()
    times = [task.changed_at for task in tasks if task.changed_at and task.changed_at <= latest]
    return max([*times, *([newest] if newest else [])], default=None)


def _task_of(annotation: ToolAnnotation) -> ToolTask | None:
    if annotation.task_created_at is None:
        return None
    return ToolTask(annotation.task_id, annotation.task_created_at, "")


def _source_task(task: ToolTask) -> int | None:
    """The pool's task that a task says it shows; None if it says nothing of the kind."""
    try:
        return int(task.data["source_task"])
    except (KeyError, TypeError, ValueError):
        return None


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
