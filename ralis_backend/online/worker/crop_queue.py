"""A plan of the queue -> region tasks in the labelling tool, with their pictures and predictions.

Each part can be repeated: what is planned is stored first, and tasks that exist are not made again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ralis_backend.core.images import (
    context_picture,
    crop_picture,
    crop_scale,
)
from ralis_backend.online.pictures import Pictures
from ralis_backend.online.random_slice import SLICE, SLICE_REASON
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import CropTask, Image, Project, Version
from ralis_backend.online.tool import Crop, CropPrediction, ImageUnreachable, Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.predicted_masks import PredictedMasks
from ralis_backend.online.worker.publication import Publication
from ralis_backend.online.worker.queue_plan import (
    NewTask,
    Plan,
    QueueRules,
    QueueState,
    place_of,
    plan_queue,
)
from ralis_backend.online.worker.sync import NOT_ITS_FAULT

logger = logging.getLogger(__name__)

CROPS_PER_CALL = 100
"""Bounds the memory that the pictures of one call to the tool take."""
MOST_IN_VAIN_S = 60.0
"""After so long without one picture the next try goes on: nothing else can be done meanwhile."""


class CropQueue:
    """The queue of region tasks of each project."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config

    def publish(self, publication: Publication, regions_id: int, masks: PredictedMasks) -> int:
        """Make, replace, pre-fill; the number of the round at the head.

        New tasks come first: while they cannot be made annotators keep those that they have.

        Args:
            publication: what is published.
            regions_id: the tool's id of the regions project.
            masks: that the version predicts.

        Raises:
            ImageUnreachable: if no picture of a new task can be had.
            Exception: of an image that cannot be read, after many of such; as for these, each try
                gets further than the one before.
        """
        project, version = publication.project, publication.version
        plan = self._made(publication, regions_id)
        self._take_out(plan.taken_out, regions_id)
        self._predict(publication, regions_id, plan, masks)
        logger.info(
            "project %s: queue of %s holds %d regions, %d of them new",
            project.tool_id,
            version.name,
            len(plan.kept) + len(plan.added),
            len(plan.added),
        )
        return plan.round

    def _made(self, publication: Publication, regions_id: int) -> Plan:
        """The plan, with its new tasks in the tool; what leaves the queue is still there.

        Where pictures cannot be read, others are planned in their place; what was noted with their
        images stays, so that another try begins behind them.

        Raises:
            ImageUnreachable: if no picture can be had, and not because the images are damaged.
            Exception: of an image, if for `MOST_IN_VAIN_S` none could be read.
        """
        num_made = 0
        had_one_at = time.monotonic()
        unreachable: list[ImageUnreachable] = []
        while True:
            plan = self._with_twins_kept(publication, regions_id)
            self._store_plan(publication, plan)
            made, missed = self._make_planned(publication, regions_id)
            num_made += made
            unreachable += [error for error in missed if isinstance(error, ImageUnreachable)]
            if not missed:
                if unreachable and not num_made:
                    raise unreachable[0]
                return plan
            if made:
                had_one_at = time.monotonic()
            elif time.monotonic() - had_one_at > MOST_IN_VAIN_S:
                raise missed[-1]
            images = self._store.images.of(publication.project.id)
            publication = replace(publication, images={image.id: image for image in images})

    def _with_twins_kept(self, publication: Publication, regions_id: int) -> Plan:
        """The plan, in which old tasks that the tool could not tell from its new ones stay.

        They are of the same region, round and version, for another reason: they say that from now
        on, as one that is claimed does.
        """
        plan = self._plan(publication, regions_id)
        number = publication.version.number
        new = {(task.place, task.round, number): task for task in plan.added}
        twins: list[tuple[CropTask, NewTask]] = []
        for row in plan.taken_out:
            key = (place_of(row), row.round, row.version)
            if row.task_id is not None and key in new:
                twins.append((row, new.pop(key)))
        self._store.queue.change({row.id: _chosen_as(task) for row, task in twins})
        kept = [row for row, _ in twins]
        kept_ids = {row.id for row in kept}
        return replace(
            plan,
            taken_out=[row for row in plan.taken_out if row.id not in kept_ids],
            kept=[*plan.kept, *kept],
            added=list(new.values()),
        )

    def _plan(self, publication: Publication, regions_id: int) -> Plan:
        """What has been begun stays, and is planned for; only the tool knows of that."""
        state = self._state(publication)
        rules = self._rules(publication.project)
        plan = plan_queue(state, rules, publication.reason)
        by_task = {row.task_id: row.id for row in plan.taken_out if row.task_id is not None}
        begun = self._tool.begun_tasks(regions_id, list(by_task)) if by_task else []
        if not begun:
            return plan
        state = replace(state, begun={by_task[task_id] for task_id in begun})
        return plan_queue(state, rules, publication.reason)

    def _store_plan(self, publication: Publication, plan: Plan) -> None:
        project, version = publication.project, publication.version
        drawn = {"strategy": SLICE, "reason": SLICE_REASON, "wish_id": None}
        unmade = [row for row in plan.taken_out if row.task_id is None]
        self._store.queue.change({row.id: {"state": "deleted"} for row in unmade})
        self._store.queue.change({row.id: drawn for row in plan.drawn})
        self._store.queue.change({row.id: _mined(publication, row) for row in plan.claimed})
        self._store.queue.add([_row(project, version, task) for task in plan.added])

    def _take_out(self, leaving: Sequence[CropTask], regions_id: int) -> None:
        """Delete what leaves the queue, but for what somebody has just begun."""
        rows = {row.task_id: row.id for row in leaving if row.task_id is not None}
        gone = self._tool.delete_unopened_tasks(regions_id, list(rows)) if rows else []
        self._store.queue.change({rows[task_id]: {"state": "deleted"} for task_id in gone})

    def _state(self, publication: Publication) -> QueueState:
        project, version = publication.project, publication.version
        places, scores = publication.places()
        if not places:
            logger.info("project %s: no region is open that can be shown", project.tool_id)
        tasks = [row for row in self._store.queue.all(project.id) if row.state != "deleted"]
        return QueueState(
            places=places,
            scores=scores,
            strategy=version.strategy or "",
            tasks=tasks,
            num_annotators=publication.num_annotators,
            round=project.round,
            is_new_version=publication.is_new,
            is_new_round=publication.is_new_round(
                self._config.ranking.regions_per_round,
                (row for row in tasks if row.state == "open"),
            ),
            gone={row.id for row in tasks if row.image_id not in publication.images},
            out_of_reach={row.id for row in tasks if row.image_id not in publication.image_sizes},
            mining=publication.mining(),
        )

    def _rules(self, project: Project) -> QueueRules:
        ranking = self._config.ranking
        return QueueRules(
            ranking.regions_per_round, self._config.random_share, (ranking.seed, project.id)
        )

    def _make_planned(
        self, publication: Publication, regions_id: int
    ) -> tuple[int, list[Exception]]:
        """Make the tasks of planned rows, a bounded number of pictures at a time.

        Returns:
            How many were made, and why others were not: their images cannot be read.
        """
        project = publication.project
        num_made = 0
        missed: list[Exception] = []
        planned = [row for row in self._store.queue.open(project.id) if row.task_id is None]
        last_ranks = _last_ranks(self._store.queue.all(project.id)) if planned else {}
        for start in range(0, len(planned), CROPS_PER_CALL):
            rows = planned[start : start + CROPS_PER_CALL]
            made = list(self._crops(project, rows, publication.images, missed))
            num_made += len(made)
            crops = [replace(crop, num_in_round=last_ranks[crop.round]) for _, crop in made]
            tasks = self._tool.create_crop_tasks(publication.pool, regions_id, crops)
            self._store.queue.change(
                {
                    row.id: {"task_id": task.id, "task_created_at": task.created_at}
                    for (row, _), task in zip(made, tasks, strict=True)
                }
            )
        return num_made, missed

    def _crops(
        self,
        project: Project,
        rows: Sequence[CropTask],
        images: Mapping[int, Image],
        missed: list[Exception],
    ) -> Iterator[tuple[CropTask, Crop]]:
        """The pictures of each row, every image read once; why not joins `missed`."""
        by_image: dict[int, list[CropTask]] = {}
        for row in rows:
            by_image.setdefault(row.image_id, []).append(row)
        for image_id, of_image in by_image.items():
            image = images.get(image_id)
            pixels = None if image is None else self._pixels(project, image, missed)
            for row in of_image:
                if image is None or pixels is None or not row.region.is_inside(pixels.shape[:2]):
                    self._store.queue.change({row.id: {"state": "deleted"}})
                else:
                    yield row, _crop(image, pixels, row)

    def _pixels(self, project: Project, image: Image, missed: list[Exception]) -> np.ndarray | None:
        try:
            return Pictures(self._store, project, self._tool.image).read(image, image.size)
        except NOT_ITS_FAULT:
            raise
        except Exception as error:
            # It was readable when it was ranked; the other images go on.
            logger.warning("project %s, task %s: %s", project.tool_id, image.task_id, error)
            missed.append(error)
            return None

    def _predict(
        self, publication: Publication, regions_id: int, plan: Plan, masks: PredictedMasks
    ) -> None:
        """Store every open task's mask and place in the queue under this version."""
        project, version = publication.project, publication.version
        made = [row for row in self._store.queue.open(project.id) if row.task_id is not None]
        rows = plan.in_order(made)
        usefulness = {row.id: 1 - index / len(rows) for index, row in enumerate(rows)}
        rank = {row.id: number for number, row in enumerate(rows, start=1)}
        predictions = (
            CropPrediction(
                task_id=row.task_id,
                region=row.region,
                scale=row.scale,
                mask=patch,
                usefulness=usefulness[row.id],
                rank=rank[row.id],
                reason=row.reason,
            )
            for row, patch in _patches(publication, rows, masks)
            if row.task_id is not None
        )
        self._tool.publish_crop_predictions(
            regions_id, version.name, project.class_names, predictions
        )
        # Only now: until annotators have the new order, the old head is what they have open.
        self._store.queue.change({row: {"usefulness": value} for row, value in usefulness.items()})


def _patches(
    publication: Publication, rows: Sequence[CropTask], masks: PredictedMasks
) -> Iterator[tuple[CropTask, np.ndarray | None]]:
    """Each row and the predicted mask of its region, if there is one; by image, one in memory."""
    by_image: dict[int, list[CropTask]] = {}
    for row in rows:
        by_image.setdefault(row.image_id, []).append(row)
    for image_id, of_image in by_image.items():
        image = publication.images.get(image_id)
        mask = None if image is None else masks.of(image, publication.rankings.get(image_id))
        for row in of_image:
            if mask is not None and row.region.is_inside((mask.shape[0], mask.shape[1])):
                yield row, mask[row.region.slices].copy()  # not a view of the whole mask
            else:
                yield row, None


def _last_ranks(rows: Iterable[CropTask]) -> dict[int, int]:
    """The last rank of each round: how many regions it has."""
    last: dict[int, int] = {}
    for row in rows:
        last[row.round] = max(row.rank, last.get(row.round, 0))
    return last


def _mined(publication: Publication, row: CropTask) -> dict[str, object]:
    """What a task says from now on that was chosen for another reason, and is mined as well."""
    sought = publication.sought
    if sought is None:
        return {}
    reason = publication.mined_reason(place_of(row))
    return {"strategy": sought.strategy, "reason": reason, "wish_id": sought.wish_id}


def _chosen_as(task: NewTask) -> dict[str, object]:
    """What a task says that stays in place of a new one."""
    return {"strategy": task.strategy, "reason": task.reason, "wish_id": task.wish_id}


def _row(project: Project, version: Version, task: NewTask) -> CropTask:
    region = task.place.region
    return CropTask(
        project_id=project.id,
        image_id=task.place.image_id,
        row=region.row,
        col=region.col,
        height=region.height,
        width=region.width,
        scale=crop_scale(region),
        round=task.round,
        rank=task.rank,
        reason=task.reason,
        strategy=task.strategy,
        version=version.number,
        usefulness=0.0,
        wish_id=task.wish_id,
    )


def _crop(image: Image, pixels: np.ndarray, row: CropTask) -> Crop:
    return Crop(
        source_task=image.task_id,
        region=row.region,
        image=crop_picture(pixels, row.region, row.scale),
        context=context_picture(pixels, row.region),
        scale=row.scale,
        round=row.round,
        rank=row.rank,
        reason=row.reason,
        strategy=row.strategy,
        version=f"v{row.version}",
        source_created_at=image.task_created_at,
    )
