"""A stored annotation -> its labelled regions and answers, in the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ralis_backend.core.images import content_of, decode_image
from ralis_backend.core.regions import Region, grid
from ralis_backend.online.answers import REST
from ralis_backend.online.labels import NewLabel, says_something
from ralis_backend.online.store import StoreError, annotation_from_json, unpack
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import Tool, ToolAnnotation, ToolProject, ToolTask, ToolUnavailable
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
        config: how regions are cut.
        project: whose annotations these are; it says what unpainted pixels are.
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
                answers = {} if row.is_machine else self._tool.answers(annotation)
                unpainted = self._unpainted(answers)
                labels = self._labels(row, row.image_id, annotation, unpainted)
        except StoreError:
            raise
        except Exception as error:
            logger.warning("project %s: %s", self._project.uid, error)
            self._store.annotations.fail(row, str(error))
            if isinstance(error, ToolUnavailable):
                self._tool.project(self._project.tool_id)
            return
        self._store.labels.put(row, labels, answers)

    def _unpainted(self, answers: Mapping[str, Any]) -> str | None:
        """The class of this annotation's unpainted pixels: as the annotator said, or as usual."""
        rest = answers.get(REST.name)
        return rest if rest in self._project.class_names else self._project.background_name

    def _labels(
        self, row: Annotation, image_id: int, annotation: ToolAnnotation, unpainted: str | None
    ) -> list[NewLabel]:
        """What an annotation says of its regions.

        A region in which nothing says anything was seen and is no label: it does not come again.
        Of a whole image that nobody was asked about, such regions stay to be asked.
        """
        names = self._project.class_names
        if row.crop_task_id is not None:
            region = self._store.queue.get(row.crop_task_id).region
            if annotation.is_skipped:
                return [NewLabel(region, None)]
            size = (region.height, region.width)
            mask = self._tool.mask(annotation, self._pool, names, size, unpainted)
            return [self._said(annotation, region, mask)]
        size = self._image_size(image_id)
        regions = self._asked_regions(row, image_id, annotation, size)
        asked = regions or grid(size, self._config.ranking.region_size)
        if annotation.is_skipped:
            return [NewLabel(region, None) for region in asked]
        mask = self._tool.mask(annotation, self._pool, names, size, unpainted)
        labels = [
            self._said(annotation, region, np.ascontiguousarray(mask[region.slices]))
            for region in asked
        ]
        return labels if regions else [label for label in labels if label.mask is not None]

    def _said(self, annotation: ToolAnnotation, region: Region, mask: np.ndarray) -> NewLabel:
        if says_something(mask):
            return NewLabel(region, mask)
        logger.info(
            "project %s, annotation %s: nothing is painted in %s, and no background is set: it "
            "does not count as labelled",
            self._project.uid,
            annotation.id,
            region,
        )
        return NewLabel(region, None)

    def _asked_regions(
        self, row: Annotation, image_id: int, annotation: ToolAnnotation, size: tuple[int, int]
    ) -> list[Region]:
        """The regions of a whole image that an annotator was asked about; none: all of it.

        The rectangles it carries; else the regions that were suggested with the prediction it
        started from, which the row remembers when the tool has dropped it.
        """
        regions = self._tool.annotated_regions(annotation, self._pool, size)
        if not regions and row.suggested_version is not None:
            handed_out = self._store.queue.handed_out(image_id, row.suggested_version)
            if handed_out is not None:
                regions = [
                    Region(entry["row"], entry["col"], entry["height"], entry["width"])
                    for entry in handed_out.regions
                ]
        return regions

    def _image_size(self, image_id: int) -> tuple[int, int]:
        """(height, width) of an annotated image, read from its file the first time."""
        image = self._store.images.get(image_id)
        if image.size is not None:
            return image.size
        with self._store.attempts.trying(*attempt_on(image)):
            pixels = decode_image(self._tool.image(tool_task(image)))
        height, width = pixels.shape[:2]
        self._store.images.seen(image.id, (height, width), content_of(pixels))
        return height, width


def tool_task(image: Image) -> ToolTask:
    """The task behind an image."""
    return ToolTask(
        image.task_id, image.task_created_at, image.ref, project_id=image.tool_project_id
    )


def attempt_on(image: Image) -> tuple[int, str, int, str]:
    """What `Attempts.trying` counts an image under."""
    return image.project_id, "image", image.id, f"the image of task {image.task_id}"


def _attempt_at(row: Annotation) -> tuple[int, str, int, str]:
    return row.project_id, "annotation", row.id, f"annotation {row.annotation_id}"
