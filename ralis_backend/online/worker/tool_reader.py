"""The tool's tasks and annotations -> the store, as far as they changed since the last reading.

What the tool says now replaces what is stored, however it is dated. Times decide only what is
asked for first; what they hid is found by the tool's counts, and by a whole list now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ralis_backend.online.store import annotation_from_json, now, parts, unpack
from ralis_backend.online.store.tables import CropTask, Image, Project
from ralis_backend.online.tool import TaskAnnotations, Tool, ToolAnnotation, ToolProject, ToolTask
from ralis_backend.online.worker.label_reader import LabelReader
from ralis_backend.online.worker.region_tasks import RegionTasks
from ralis_backend.online.worker.standing import Standing
from ralis_backend.online.worker.task_answers import TaskAnswers, ToolSource

if TYPE_CHECKING:
    from collections.abc import Set

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
DOUBT_EVERY_S = 120.0
"""Of such lists that come sooner after one another only the first is counted."""
OVERLAP = timedelta(seconds=60)
"""Changes are listed from so long before the newest one seen: some were still being written."""


class ToolReader:
    """Reads one project at one time.

    Args:
        store: what is known.
        tool: where it is read.
        labels: reads the labels of annotations that are new or changed.
        project: the project, with its pool's uid.
        pool: the project as the tool has it.
        standing: since when doubts about lists have stood as they are.
    """

    def __init__(
        self,
        store: Store,
        tool: Tool,
        labels: LabelReader,
        project: Project,
        pool: ToolProject,
        standing: Standing,
    ) -> None:
        self._standing = standing
        self._store = store
        self._tool = tool
        self._labels = labels
        self._project = project
        self._pool = pool
        self._region_tasks = RegionTasks(store, project)
        self._answers = TaskAnswers(store, tool, project, self._read_task)
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
        if task_ids:
            self._answers.read(source, task_ids)

    def read_aside(self, source: ToolSource) -> None:
        """Try tasks again that the tool could not tell of."""
        self._answers.read_aside(source)

    def forget_aside(self, source: ToolSource) -> None:
        """These are asked for no more: the regions project is another one."""
        self._answers.forget_aside(source)

    def read_unread(self) -> None:
        """Try those annotations again whose labels could not be read before.

        And those whose regions turn out to lie outside their images, whose sizes are known now.
        """
        if misplaced := self._store.queue.misplaced(self._project.id):
            self._store.annotations.reread(misplaced)
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
        num_tasks = self._tool.project(source.id).num_tasks
        is_complete = num_tasks is not None and len(seen) >= num_tasks
        num_doubts = 0 if is_complete else self._doubts(source, known, len(seen), num_tasks)
        if num_doubts in (0, NUM_DOUBTS):
            self._mark_missing(source, seen)
        known = self._store.readings.note(
            known, changed_at=newest, num_doubts=num_doubts % NUM_DOUBTS
        )
        tasks, annotations = self._extra(source, known) or (0, 0)
        if not is_complete:  # what the list lacks is not usual: it is listed until it is there
            tasks = min(tasks, known.extra_tasks)
            annotations = min(annotations, known.extra_annotations)
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
            self._region_tasks.adopt(tasks, source.uid)
        due = {task.id for task in self._store.readings.changed(source.uid, tasks)}
        if is_whole:
            turn = self._project.num_readings // WHOLE_EVERY % COMPARED_SHARE
            due |= {it.id for it in tasks if it.num_annotations and it.id % COMPARED_SHARE == turn}
        return sorted(due)

    def _doubts(
        self, source: ToolSource, known: Source, num_listed: int, num_counted: int | None
    ) -> int:
        """How many lists in a row, minutes apart, lacked tasks that the tool counts, with this."""
        logger.warning(
            "project %s: project %d of the tool lists %d tasks and counts %s; those that are "
            "missing are taken for deleted when %d lists in a row say so, %.0f s apart",
            self._project.tool_id,
            source.id,
            num_listed,
            num_counted,
            NUM_DOUBTS,
            DOUBT_EVERY_S,
        )
        stood_s = self._standing.seconds(source.uid, known.num_doubts)
        if known.num_doubts and stood_s < DOUBT_EVERY_S:
            return known.num_doubts
        self._standing.seconds(source.uid, known.num_doubts + 1)
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
            self._store.queue.mark_missing(self._project.id, source.uid, task_ids)

    # What is annotated

    def _read_task(self, source: ToolSource, found: TaskAnnotations) -> None:
        image, crop_task = self._place(source, found.task)
        rows = self._store.annotations.put_task(
            self._project, source.uid, found, image, crop_task, shows_boxes=self._pool.shows_boxes
        )
        for row in rows:
            self._read_labels(row)

    def _place(self, source: ToolSource, task: ToolTask) -> tuple[Image | None, CropTask | None]:
        """The image of a task, and the crop task if it is one of the regions project."""
        image, crop_task = self._known_place(source.uid, task)
        if image is None and not self._is_pool(source):
            self._region_tasks.adopt([task], source.uid)
            image, crop_task = self._known_place(source.uid, task)
        return image, crop_task

    def _known_place(self, tool_uid: str, task: ToolTask) -> tuple[Image | None, CropTask | None]:
        """As `_place`, of what is known already."""
        if tool_uid == self._project.uid:
            return self._store.images.find(self._project.id, task.id, task.created_at), None
        crop_task = self._store.queue.find(self._project.id, task.id, task.created_at)
        if crop_task is None:
            return None, None
        return self._store.images.get(crop_task.image_id), crop_task

    def _placed(self, row: Annotation) -> Annotation:
        """An annotation of a task that was not known before, if it is now.

        What it says of its task is as old as itself: it makes no task known.
        """
        annotation = annotation_from_json(unpack(row.payload))
        task = _task_of(annotation)
        image, crop_task = self._known_place(row.tool_uid, task) if task else (None, None)
        if image is None:
            return row
        placed = self._store.annotations.put(
            self._project,
            row.tool_uid,
            annotation,
            image,
            crop_task,
            shows_boxes=self._pool.shows_boxes,
        )
        return placed or row

    def _read_again(self, rows: Iterable[Annotation]) -> None:
        for row in rows:
            if row.id not in self._tried:
                self._read_labels(self._placed(row) if row.image_id is None else row)

    def _read_labels(self, row: Annotation) -> None:
        self._tried.add(row.id)
        self._labels.read(row)


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
