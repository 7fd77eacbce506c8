"""A stored annotation -> its labelled regions and answers, in the store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from ralis_backend.core.regions import Region, grid
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.pictures import Pictures, task_of
from ralis_backend.online.store import StoreError, annotation_from_json, unpack
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import Tool, ToolAnnotation, ToolProject, ToolUnavailable
from ralis_backend.online.worker.config import WorkerConfig

if TYPE_CHECKING:
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Annotation

logger = logging.getLogger(__name__)

NOT_ITS_FAULT = (ToolUnavailable, StoreError)
"""What says nothing of the image or annotation that was being read: the step is tried again."""


class LabelReader:
    """Reads the labels of one project's annotations; each may be read at any time again.

    Args:
        store: where annotations lie and labels go.
        tool: knows what results mean, and gives images.
        config: how regions are cut, and what unpainted pixels are.
        project: whose annotations these are.
        pool: the project as the tool has it.
    """

    def __init__(
        self, store: Store, tool: Tool, config: WorkerConfig, project: Project, pool: ToolProject
    ) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._project = project
        self._pool = pool

    def read(self, row: Annotation) -> None:
        """Annotation -> labelled regions and answers; a failure is noted with the annotation.

        What failed has to be read still, and costs its neighbours nothing.

        Raises:
            ToolUnavailable: if the tool itself does not answer; one image's host alone is a
                failure of that annotation.
            OSError: if a mask cannot be written.
        """
        annotation = annotation_from_json(unpack(row.payload))
        try:
            if row.image_id is None:
                raise ValueError(
                    f"annotation {annotation.id} belongs to task {annotation.task_id}, "
                    "which is not known here"
                )
            with self._store.attempts.trying(*_attempt_at(row)):
                labels = self._labels(row, row.image_id, annotation)
                answers = self._tool.answers(annotation)
        except StoreError:
            raise
        except Exception as error:
            logger.warning("project %s: %s", self._project.uid, error)
            self._store.annotations.fail(row, str(error))
            if isinstance(error, ToolUnavailable):
                self._tool.project(self._project.tool_id)
            return
        self._store.labels.put(row, labels, answers)

    def _labels(self, row: Annotation, image_id: int, annotation: ToolAnnotation) -> list[NewLabel]:
        names = self._project.class_names
        background = self._config.background_label
        if row.crop_task_id is not None:
            region = self._store.queue.get(row.crop_task_id).region
            if annotation.is_skipped:
                return [NewLabel(region, None)]
            size = (region.height, region.width)
            mask = self._tool.mask(annotation, self._pool, names, size, background)
            return [NewLabel(region, mask)]
        size = self._image_size(image_id)
        regions = self._annotated_regions(row, image_id, annotation, size)
        if annotation.is_skipped:
            return [NewLabel(region, None) for region in regions]
        mask = self._tool.mask(annotation, self._pool, names, size, background)
        return [NewLabel(region, np.ascontiguousarray(mask[region.slices])) for region in regions]

    def _annotated_regions(
        self, row: Annotation, image_id: int, annotation: ToolAnnotation, size: tuple[int, int]
    ) -> list[Region]:
        """What a whole-image annotation labels.

        The rectangles it carries; else the regions that were suggested with the prediction it
        started from, which the row remembers when the tool has dropped it; else the whole image,
        region by region.
        """
        regions = self._tool.annotated_regions(annotation, self._pool, size)
        if not regions and row.suggested_version is not None:
            handed_out = self._store.queue.handed_out(image_id, row.suggested_version)
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
        with self._store.attempts.trying(*attempt_on(image)):
            pictures = Pictures(self._store, self._project, self._tool.image)
            height, width = pictures.pixels(task_of(image)).shape[:2]
        self._store.images.seen(image.id, (height, width))
        return height, width


def attempt_on(image: Image) -> tuple[int, str, int, str]:
    """What `Attempts.trying` counts an image under."""
    return image.project_id, "image", image.id, f"the image of task {image.task_id}"


def _attempt_at(row: Annotation) -> tuple[int, str, int, str]:
    return row.project_id, "annotation", row.id, f"annotation {row.annotation_id}"
