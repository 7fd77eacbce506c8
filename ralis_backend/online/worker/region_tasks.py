"""The regions project's tasks -> our rows: which region of which image each of them shows.

Anyone may write into a task. What no column holds makes no row; a region that its image cannot
have has a row that waits for nobody until the image can.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ralis_backend.core.text import reason_of, shortened, storable
from ralis_backend.online.store import version_number
from ralis_backend.online.store.tables import CropTask, Image, Project
from ralis_backend.online.tool import ToolTask, is_id

if TYPE_CHECKING:
    from ralis_backend.core.regions import Region
    from ralis_backend.online.store import Store

logger = logging.getLogger(__name__)

LARGEST_NUMBER = 2**30
"""Of a row, a side or a rank; the sum of two fits a column of the database."""
LONGEST_REASON = 1000
LONGEST_STRATEGY = 64
LARGEST_SCALE = 8
MAX_PICTURE_SIDE = 4096
"""Of an enlarged region, in pixels."""
MAX_UNSEEN_PIXELS = 2048 * 2048
"""Of a region, while the size of its image is not known."""


class MisplacedRegion(ValueError):
    """An image cannot have the region that a task is about, as far as its size is known."""


class RegionTasks:
    """The tasks of one project's regions project.

    Args:
        store: where the rows lie.
        project: the pool that the regions are of.
    """

    def __init__(self, store: Store, project: Project) -> None:
        self._store, self._project = store, project

    def adopt(self, tasks: Sequence[ToolTask], tool_uid: str) -> None:
        """Match the regions project's tasks with our rows.

        A task that was made just before a kill gets its id; one that is unknown here (a lost
        data folder) becomes known from its data; a task id belongs to one task at a time, and what
        was annotated in the one that had it before is withdrawn. Of a task without a time nobody
        knows which it is: what is known of its id stays.

        Args:
            tasks: as the tool has them.
            tool_uid: of the regions project.
        """
        tasks = [task for task in tasks if task.created_at is not None]
        rows = self._store.queue.of_tasks(self._project.id, [task.id for task in tasks])
        known = {(row.task_id, row.task_created_at): row for row in rows}
        listed = {(task.id, task.created_at): task for task in tasks}
        replaced = [row for key, row in known.items() if key not in listed]
        gone = [row for row in replaced if row.state == "open"]
        if done := [row.id for row in replaced if row.state == "done"]:
            self._store.queue.withdraw(tool_uid, done)
        back = [row for key, row in known.items() if key in listed and row.state == "deleted"]
        changes: dict[int, Mapping[str, object]] = {row.id: {"state": "deleted"} for row in gone}
        changes |= {row.id: {"state": "open"} for row in self._placed(back)}
        unknown = [task for key, task in listed.items() if key not in known]
        new = self._adopt_unknown(unknown, changes) if unknown else []
        if changes:
            self._store.queue.change(changes)
        if new:
            self._store.queue.add(new)

    def _placed(self, rows: Sequence[CropTask]) -> list[CropTask]:
        """Those whose images can have their regions."""
        if not rows:
            return []
        sizes = self._store.images.sizes([row.image_id for row in rows])
        return [row for row in rows if misfit(row, sizes.get(row.image_id)) is None]

    def _adopt_unknown(
        self, tasks: Sequence[ToolTask], changes: dict[int, Mapping[str, object]]
    ) -> list[CropTask]:
        """Rows for tasks that have none; a planned row's change is added to `changes`."""
        sources = {source for task in tasks if (source := _source_task(task)) is not None}
        images = self._store.images.of_tasks(self._project.id, sources)
        planned = {_place_key(row): row for row in self._store.queue.planned(self._project.id)}
        new: list[CropTask] = []
        refused: list[str] = []
        for task in tasks:
            try:
                adopted = _crop_task_of(self._project, task, images)
            except ValueError as error:
                refused.append(reason_of(error))
                continue
            if adopted is None:
                continue
            row = planned.pop(_place_key(adopted), None)
            if row is None:
                new.append(adopted)
            else:
                changes[row.id] = {"task_id": task.id, "task_created_at": task.created_at}
        if refused:
            logger.warning(
                "project %s: %d tasks of its regions project are left alone, for example %s",
                self._project.tool_id,
                len(refused),
                refused[0],
            )
        return new


def misfit(row: CropTask, image_size: tuple[int, int] | None) -> str | None:
    """Why an image cannot have the region of a row; None if it can as far as is known.

    Args:
        row: a task of the regions project.
        image_size: (height, width) in pixels; None: not known yet.
    """
    region = row.region
    where = (
        f"its task says row {region.row}, col {region.col}, height {region.height}, width "
        f"{region.width}, scale {row.scale}"
    )
    if min(region.row, region.col) < 0 or min(region.height, region.width) < 1:
        return f"{where}: expected a region of at least 1 x 1 pixel from row and col 0 on"
    if image_size is not None and not region.is_inside(image_size):
        return (
            f"{where}: that is outside its image of {image_size[0]} x {image_size[1]} pixels "
            "(height x width); restore the image file, or delete the task"
        )
    if image_size is None and region.height * region.width > MAX_UNSEEN_PIXELS:
        return (
            f"{where}: at most {MAX_UNSEEN_PIXELS} pixels are believed before its image has been "
            "read; it is tried again then"
        )
    largest = max(1, min(LARGEST_SCALE, MAX_PICTURE_SIDE // max(region.height, region.width)))
    if not 1 <= row.scale <= largest:
        return f"{where}: expected a scale from 1 to {largest}"
    return None


def _crop_task_of(project: Project, task: ToolTask, images: Mapping[int, Image]) -> CropTask | None:
    """A row from what a task's data says; None if the task shows none of these images.

    Raises:
        ValueError: if the data holds what no row can, or the image is not the one that it names.
    """
    source = _source_task(task)
    image = None if source is None else images.get(source)
    if image is None:
        return None
    _refuse_other_source(task, image)
    row = CropTask(
        project_id=project.id,
        image_id=image.id,
        row=_number(task, "row"),
        col=_number(task, "col"),
        height=_number(task, "height"),
        width=_number(task, "width"),
        scale=_number(task, "scale", 1),
        round=_number(task, "round"),
        rank=_number(task, "rank"),
        reason=_text(task, "reason", LONGEST_REASON),
        strategy=_text(task, "strategy", LONGEST_STRATEGY),
        version=version_number(_text(task, "version", LONGEST_STRATEGY)) or 0,
        usefulness=0.0,
        task_id=task.id,
        task_created_at=task.created_at,
    )
    row.state = "open" if misfit(row, image.size) is None else "deleted"
    return row


def _source_task(task: ToolTask) -> int | None:
    """The pool's task that a task says it shows; None if it says nothing of the kind."""
    number = _whole(task.data.get("source_task"))
    return number if is_id(number) else None


def _refuse_other_source(task: ToolTask, image: Image) -> None:
    """`ValueError` if the pool's task that a task shows had the number that another one has now.

    Tasks of earlier releases do not say when it was made: they are believed.
    """
    said = task.data.get("source_created_at")
    if said is None:
        return
    try:
        apart = abs(datetime.fromisoformat(said) - image.task_created_at)
    except (TypeError, ValueError, OverflowError):
        apart = timedelta.max
    if apart >= timedelta(seconds=1):
        raise ValueError(
            f"task {task.id}, which shows task {image.task_id} of {shortened(repr(said), 50)}; the "
            f"task of the pool that has this number now is of {image.task_created_at.isoformat()} "
            "and another image: delete the region's task"
        )


def _number(task: ToolTask, name: str, default: int | None = None) -> int:
    number = _whole(task.data.get(name, default))
    if number is None or abs(number) > LARGEST_NUMBER:
        raise ValueError(
            f"task {task.id}, whose {name} is no whole number between -{LARGEST_NUMBER} and "
            f"{LARGEST_NUMBER}"
        )
    return number


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _text(task: ToolTask, name: str, most: int) -> str:
    value = task.data.get(name)
    return storable(value[:most]) if isinstance(value, str) else ""


def _place_key(row: CropTask) -> tuple[int, Region, int]:
    return (row.image_id, row.region, row.round)
