"""The ranking -> what annotators meet next in the labelling tool.

In crops mode the queue holds two rounds of region tasks at most. A new version replaces those
that it finds less useful, except tasks that somebody may be working on. A share of the tasks, the
random slice, is drawn from all unlabelled regions alike, and stays: what versions are measured on.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ralis_backend.core.acquisition import select
from ralis_backend.core.images import (
    context_picture,
    crop_picture,
    crop_scale,
    decode_image,
    mask_from_png,
)
from ralis_backend.core.regions import Region, grid, is_labelled
from ralis_backend.online.labels import RegionLabel, covered, labels_by_image
from ralis_backend.online.random_slice import SLICE, SLICE_REASON
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import CropTask, Image, Project, Ranking, Version
from ralis_backend.online.suggesting import suggest_image
from ralis_backend.online.tool import Crop, CropPrediction, Tool, ToolProject, ToolUnavailable
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.sync import Sync, tool_task

logger = logging.getLogger(__name__)

CROPS_PER_CALL = 100
"""Bounds the memory that the pictures of one call to the tool take."""

_Place = tuple[int, Region]
T = TypeVar("T")


@dataclass(frozen=True)
class _Choice:
    """A region of the pool that the queue should hold."""

    image: Image
    region: Region
    reason: str
    strategy: str

    @property
    def place(self) -> _Place:
        """Where it lies."""
        return self.image.id, self.region


class Publisher:
    """Brings one project's queue in line with the version in use."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig, sync: Sync) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._sync = sync

    def publish(self, project: Project, version: Version) -> None:
        """Fill the queue and store the predictions; safe to repeat after a kill."""
        started = time.monotonic()
        pool = self._sync.project(project)
        labels = labels_by_image(self._store.labels.of(project.id))
        newest = self._store.labels.newest_id(project.id)
        rankings = self._store.rankings.of(version.id)
        images = {image.id: image for image in self._store.images.of(project.id)}
        if project.regions_tool_id is None:
            self._publish_images(pool, project, version, images, rankings, labels)
            number = project.round
        else:
            number = self._publish_crops(
                pool, project, project.regions_tool_id, version, images, rankings, labels
            )
        self._store.projects.change(
            project.id,
            published_version=version.number,
            published_label_id=newest,
            round=number,
        )
        seconds = round(time.monotonic() - started, 2)
        self._store.versions.change(
            version.id,
            metrics={"seconds": {**self._seconds(project, version), "publish": seconds}},
        )
        self._drop_old_rankings(project)

    def _seconds(self, project: Project, version: Version) -> Mapping[str, float]:
        stored = self._store.versions.find(project.id, version.number)
        seconds: Mapping[str, float] = (stored or version).metrics.get("seconds", {})
        return seconds

    def _drop_old_rankings(self, project: Project) -> None:
        for version in self._store.versions.all(project.id):
            if version.number != project.current_version and version.ranked_at is not None:
                self._store.rankings.drop(version.id)

    # Whole images

    def _publish_images(
        self,
        pool: ToolProject,
        project: Project,
        version: Version,
        images: Mapping[int, Image],
        rankings: Mapping[int, Ranking],
        labels: Mapping[int, Sequence[RegionLabel]],
    ) -> None:
        suggestions = [
            suggest_image(
                self._store,
                version,
                image,
                rankings[image.id],
                labels.get(image.id, []),
                self._config.ranking.region_size,
                self._config.suggestions_per_image,
            )
            for image in images.values()
            if image.id in rankings
        ]
        self._tool.publish_image_predictions(pool, version.name, project.class_names, suggestions)
        logger.info(
            "project %s: published %s for %d images", project.uid, version.name, len(suggestions)
        )

    # Regions as tasks

    def _publish_crops(
        self,
        pool: ToolProject,
        project: Project,
        regions_id: int,
        version: Version,
        images: Mapping[int, Image],
        rankings: Mapping[int, Ranking],
        labels: Mapping[int, Sequence[RegionLabel]],
    ) -> int:
        """Replace, make, pre-fill; the number of the round at the head of the queue."""
        per_round = self._config.ranking.regions_per_round
        places, scores = self._open_places(version, images, rankings, labels)
        choices = self._choose(project, places, scores, 2 * per_round)
        number = project.round + 1
        is_new_version = project.published_version != version.number
        queue = self._store.queue.open(project.id)
        if is_new_version:
            keep = {it.place for it in choices}
            keep |= _slice(queue) & {it.place for it in places}
            queue = self._clear(project, regions_id, queue, keep)
        room = max(0, 2 * per_round - len(queue))
        drawn = self._draw_slice(project, places, queue, room)
        taken = {(row.image_id, row.region) for row in queue} | {it.place for it in drawn}
        best = [it for it in choices if it.place not in taken][: room - len(drawn)]
        fresh = spread(best, drawn)
        first_round = number if is_new_version else number + 1
        self._store.queue.add(
            [
                self._row(project, version, choice, first_round + position // per_round, position)
                for position, choice in enumerate(fresh)
            ]
        )
        order = {it.place: position for position, it in enumerate(choices)}
        self._make_planned(pool, project, regions_id, images)
        self._predict(project, regions_id, version, rankings, order)
        logger.info(
            "project %s: queue of %s holds %d regions, %d of them new",
            project.uid,
            version.name,
            len(queue) + len(fresh),
            len(fresh),
        )
        return number if fresh or is_new_version else project.round

    def _open_places(
        self,
        version: Version,
        images: Mapping[int, Image],
        rankings: Mapping[int, Ranking],
        labels: Mapping[int, Sequence[RegionLabel]],
    ) -> tuple[list[_Choice], list[float]]:
        """Every region of the pool that is not wholly labelled, and its score."""
        places: list[_Choice] = []
        scores: list[float] = []
        for image_id, ranking in rankings.items():
            image = images.get(image_id)
            if image is None or image.size is None or image.error is not None:
                continue
            is_covered = covered(image.size, labels.get(image_id, []))
            regions = grid(image.size, self._config.ranking.region_size)
            for region, score, reason in zip(
                regions, np.frombuffer(ranking.scores, "<f4"), ranking.reasons, strict=True
            ):
                if not is_labelled(is_covered, region):
                    places.append(_Choice(image, region, reason, version.strategy or ""))
                    scores.append(float(score))
        return places, scores

    def _choose(
        self, project: Project, places: Sequence[_Choice], scores: Sequence[float], count: int
    ) -> list[_Choice]:
        """The `count` best of these regions, spread over their images."""
        if not places:
            logger.info("project %s: every region is labelled", project.uid)
            return []
        image_ids = np.array([place.image.id for place in places])
        return [places[index] for index in select(np.array(scores), image_ids, count)]

    def _draw_slice(
        self, project: Project, places: Sequence[_Choice], queue: Sequence[CropTask], room: int
    ) -> list[_Choice]:
        """New regions of the random slice, which is kept at its share of all that is handed out.

        Drawn from all unlabelled regions outside the slice alike. A draw that waits in the queue
        already, chosen for its score, counts from now on as drawn, and takes no room.
        """
        share = self._config.random_share
        handed_out = [row for row in self._store.queue.all(project.id) if row.state != "deleted"]
        in_slice = _slice(handed_out)
        wanted = math.floor(share * (len(handed_out) + room) + 1e-9) - len(in_slice)
        wanted = min(wanted, math.ceil(share * room))  # a raised share is not caught up at once
        outside = [place for place in places if place.place not in in_slice]
        if wanted <= 0 or not outside:
            return []
        rng = np.random.default_rng([self._config.ranking.seed, project.id, len(handed_out)])
        picked = rng.permutation(len(outside))[:wanted]
        drawn = [replace(outside[it], reason=SLICE_REASON, strategy=SLICE) for it in picked]
        waiting = {(row.image_id, row.region): row.id for row in queue}
        self._store.queue.change(
            {
                waiting[it.place]: {"strategy": SLICE, "reason": SLICE_REASON}
                for it in drawn
                if it.place in waiting
            }
        )
        return [it for it in drawn if it.place not in waiting]

    def _clear(
        self,
        project: Project,
        regions_id: int,
        queue: Sequence[CropTask],
        keep: Set[_Place],
    ) -> list[CropTask]:
        """Take tasks out of the queue that are not to be kept.

        The head of the queue stays: those are the tasks that annotators have open. What the tool
        says has been begun stays as well.
        """
        by_use = sorted(queue, key=lambda row: -row.usefulness)
        head = {row.id for row in by_use[: self._num_annotators(project) + 1]}
        obsolete = [
            row for row in queue if (row.image_id, row.region) not in keep and row.id not in head
        ]
        task_ids = [row.task_id for row in obsolete if row.task_id is not None]
        gone = set(self._tool.delete_unopened_tasks(regions_id, task_ids)) if task_ids else set()
        removed = [row for row in obsolete if row.task_id is None or row.task_id in gone]
        self._store.queue.change({row.id: {"state": "deleted"} for row in removed})
        removed_ids = {row.id for row in removed}
        return [row for row in queue if row.id not in removed_ids]

    def _num_annotators(self, project: Project) -> int:
        return len({label.annotator for label in self._store.labels.of(project.id)})

    def _row(
        self, project: Project, version: Version, choice: _Choice, number: int, position: int
    ) -> CropTask:
        region = choice.region
        return CropTask(
            project_id=project.id,
            image_id=choice.image.id,
            row=region.row,
            col=region.col,
            height=region.height,
            width=region.width,
            scale=crop_scale(region),
            round=number,
            rank=position % self._config.ranking.regions_per_round + 1,
            reason=choice.reason,
            strategy=choice.strategy,
            version=version.number,
            usefulness=0.0,
        )

    def _make_planned(
        self,
        pool: ToolProject,
        project: Project,
        regions_id: int,
        images: Mapping[int, Image],
    ) -> None:
        """Make the tasks of planned rows, a bounded number of pictures at a time."""
        planned = [row for row in self._store.queue.open(project.id) if row.task_id is None]
        for start in range(0, len(planned), CROPS_PER_CALL):
            rows = planned[start : start + CROPS_PER_CALL]
            made = list(self._crops(project, rows, images))
            tasks = self._tool.create_crop_tasks(pool, regions_id, [crop for _, crop in made])
            self._store.queue.change(
                {
                    row.id: {"task_id": task.id, "task_created_at": task.created_at}
                    for (row, _), task in zip(made, tasks, strict=True)
                }
            )

    def _crops(
        self, project: Project, rows: Sequence[CropTask], images: Mapping[int, Image]
    ) -> Iterator[tuple[CropTask, Crop]]:
        """The pictures of each row, every image read once."""
        by_image: dict[int, list[CropTask]] = {}
        for row in rows:
            by_image.setdefault(row.image_id, []).append(row)
        for image_id, of_image in by_image.items():
            image = images.get(image_id)
            pixels = None if image is None else self._pixels(project, image)
            if image is None or pixels is None:
                self._store.queue.change({row.id: {"state": "deleted"} for row in of_image})
                continue
            for row in of_image:
                yield row, _crop(image, pixels, row)

    def _pixels(self, project: Project, image: Image) -> np.ndarray | None:
        try:
            return decode_image(self._tool.image(tool_task(image)))
        except ToolUnavailable:
            raise
        except Exception as error:
            # It was readable when it was ranked; the other images go on.
            logger.warning("project %s, task %s: %s", project.uid, image.task_id, error)
            self._store.images.change(image.id, error=str(error))
            return None

    def _predict(
        self,
        project: Project,
        regions_id: int,
        version: Version,
        rankings: Mapping[int, Ranking],
        order: Mapping[_Place, int],
    ) -> None:
        """Store every open task's mask and place in the queue under this version."""
        rows = [row for row in self._store.queue.open(project.id) if row.task_id is not None]
        # `crop_tasks` gives the slice in the order of its rounds and draws
        others = [row for row in rows if row.strategy != SLICE]
        others.sort(key=lambda row: order.get((row.image_id, row.region), len(order)))
        rows = spread(others, [row for row in rows if row.strategy == SLICE])
        usefulness = {row.id: 1 - index / max(1, len(rows)) for index, row in enumerate(rows)}
        self._store.queue.change(
            {row_id: {"usefulness": value} for row_id, value in usefulness.items()}
        )
        masks = _MaskReader(self._store, rankings)
        predictions = [
            CropPrediction(
                task_id=row.task_id,
                region=row.region,
                scale=row.scale,
                mask=masks.region(row.image_id, row.region),
                usefulness=usefulness[row.id],
                rank=rank,
                reason=row.reason,
            )
            for rank, row in enumerate(rows, start=1)
            if row.task_id is not None
        ]
        self._tool.publish_crop_predictions(
            regions_id, version.name, project.class_names, predictions
        )


def spread(best: Sequence[T], drawn: Sequence[T]) -> list[T]:
    """`best` in their order, with `drawn` among them at equal distances."""
    total = len(best) + len(drawn)
    positions = {math.floor((turn + 0.5) * total / len(drawn)) for turn in range(len(drawn))}
    others, draws = iter(best), iter(drawn)
    return [next(draws if position in positions else others) for position in range(total)]


def _slice(rows: Sequence[CropTask]) -> set[_Place]:
    """The places of the random slice among these rows.

    A new version does not drop them: if it could drop what it finds useless, the slice would not
    be random any more.
    """
    return {(row.image_id, row.region) for row in rows if row.strategy == SLICE}


class _MaskReader:
    """Predicted masks of regions; each image's mask is decoded once."""

    def __init__(self, store: Store, rankings: Mapping[int, Ranking]) -> None:
        self._store = store
        self._rankings = rankings
        self._masks: dict[int, np.ndarray | None] = {}

    def region(self, image_id: int, region: Region) -> np.ndarray | None:
        if image_id not in self._masks:
            ranking = self._rankings.get(image_id)
            key = ranking.mask_key if ranking else None
            self._masks[image_id] = mask_from_png(self._store.blobs.get(key)) if key else None
        mask = self._masks[image_id]
        return None if mask is None else np.ascontiguousarray(mask[region.slices])


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
    )
