"""Planned images and labels -> what training and evaluation read, one at a time.

What cannot be read fails alone: it is noted with its image, or read again from its annotation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ralis_backend.core.learning.crops import LabelledImage, Unreadable
from ralis_backend.core.text import reason_of
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.pictures import NOT_ITS_FAULT, Pictures
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolTask
from ralis_backend.online.worker.training_plan import ImageLabels

logger = logging.getLogger(__name__)

_MOST_TOLD = 20


class ImageSource(Protocol):
    """Whoever has the image files."""

    def image(self, task: ToolTask) -> bytes:
        """The file of one task."""
        ...


class LabelledImages:
    """The labelled images of one project during one step.

    Attributes:
        masks: of their labels.
    """

    def __init__(self, store: Store, tool: ImageSource, project: Project) -> None:
        self._store, self._tool, self._project = store, tool, project
        self.masks = LabelMasks(store, project)
        self._pictures = Pictures(store, project, tool.image)
        self._bad_images: dict[int, str] = {}  # by row id

    def of(self, parts: Sequence[ImageLabels]) -> list[LabelledImage]:
        """Images with the labels that count; neither pixels nor masks are read yet."""
        return [self._image(part) for part in parts]

    def through(self, store: Store) -> LabelledImages:
        """The same, with what was found so far, read through another store: a visit's moves on."""
        other = LabelledImages(store, self._tool, self._project)
        other.masks, other._bad_images = self.masks, self._bad_images
        return other

    def readable(self, parts: Sequence[ImageLabels]) -> list[ImageLabels]:
        """Those of which an image and a label were not found unreadable so far."""
        return [part for part in parts if self._readable(part)]

    def num_regions(self, parts: Sequence[ImageLabels]) -> int:
        """Regions of these that count as labelled and were not found unreadable so far."""
        return sum(label.is_closing for part in parts for label in self._readable(part))

    def class_pixels(self, parts: Sequence[ImageLabels]) -> dict[str, int]:
        """Painted pixels of each class in what was not found unreadable so far, by name."""
        pixels = dict.fromkeys(self._project.class_names, 0)
        for part in self.readable(parts):
            for label in self.masks.readable(part.labels):
                for name, count in zip(pixels, self.masks.pixels(label), strict=False):
                    pixels[name] += count
        return pixels

    def left_out(self) -> list[str]:
        """What was found unreadable so far, and why; as much as people read."""
        labels = [f"label {number}: {why}" for number, why in self.masks.lost.items()]
        return [*self._bad_images.values(), *labels][:_MOST_TOLD]

    def _readable(self, part: ImageLabels) -> list[RegionLabel]:
        return [] if part.image.id in self._bad_images else self.masks.readable(part.labels)

    def _image(self, part: ImageLabels) -> LabelledImage:
        return LabelledImage(
            lambda: self._pixels(part),
            self.masks.of(part.size, part.labels),
            tuple(label.region for label in part.labels),
            tuple(self.masks.pixels(label) for label in part.labels),
            tuple(1 if it.share_beside is None else it.share_beside for it in part.labels),
        )

    def _pixels(self, part: ImageLabels) -> np.ndarray:
        if part.image.id in self._bad_images:
            raise Unreadable(self._bad_images[part.image.id])
        try:
            return self._pictures.read(part.image, part.size)
        except NOT_ITS_FAULT:
            raise
        except Exception as error:
            # One bad image must not stop the others; the operator finds why with the image.
            message = f"task {part.image.task_id}: {reason_of(error)}"
            logger.warning("project %s, %s", self._project.tool_id, message)
            self._bad_images[part.image.id] = message
            raise Unreadable(message) from error
