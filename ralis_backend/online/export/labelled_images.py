"""The labelled images of a project, one at a time: name, file, mask and regions."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ralis_backend.core.images import decode_image, encode_png
from ralis_backend.core.learning.crops import Unreadable
from ralis_backend.core.palette import Rgb, distinct_color, rgb
from ralis_backend.core.regions import Region
from ralis_backend.core.stored_images import file_facts
from ralis_backend.online.export.names import unique_names
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.pictures import Pictures, task_of
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import ToolTask, ToolUnavailable

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
"""What is trained on, and what is held out."""
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png"}


@dataclass(frozen=True)
class ExportedClass:
    """A class: its name and its colour (red, green, blue).

    `is_background`: unpainted pixels of labelled regions are of it, and nobody looks for it.
    """

    name: str
    color: Rgb
    is_background: bool = False


@dataclass(frozen=True)
class ExportedImage:
    """One image: its split (`train` or `val`), name, file and (H, W) uint8 mask."""

    split: str
    name: str
    suffix: str
    content: bytes
    mask: np.ndarray
    regions: tuple[Region, ...]

    @property
    def file_name(self) -> str:
        """Name and suffix of the image's file."""
        return f"{self.name}{self.suffix}"


class LabelledImages:
    """The images of a project with at least one painted region, read when iterated.

    Attributes:
        keys: split and name, by image id.
        images: as the store knows them, by id.
        left_out: why an image could not be read, by its id.
    """

    def __init__(self, store: Store, project: Project, images: Callable[[ToolTask], bytes]) -> None:
        self.labels = [label for label in store.labels.of(project.id) if not label.is_skipped]
        self.classes = tuple(
            ExportedClass(entry["name"], color, bool(entry.get("background")))
            for entry, color in zip(project.classes, colors_of(project), strict=True)
        )
        self._project, self._fetch = project, images
        self._pictures = Pictures(store, project, images)
        self._masks = LabelMasks(store, project, has_removed_classes=True)
        self.left_out: dict[int, str] = {}
        self._by_image: dict[int, list[RegionLabel]] = defaultdict(list)
        for label in self.labels:
            self._by_image[label.image_id].append(label)
        names = unique_names(store.images.ever(project.id))
        self._rows = [row for row in store.images.of(project.id) if row.id in self._by_image]
        self._names = {row.id: names[row.id] for row in self._rows}
        self.keys = {row.id: f"{split_of(row)}/{names[row.id]}" for row in self._rows}
        self.images = {row.id: row for row in self._rows}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ExportedImage]:
        """Each image that can be read; what cannot is in `left_out`, with the reason.

        Raises:
            ValueError: if none can.
            ToolUnavailable: if the tool does not answer.
        """
        for row in self._rows:
            try:
                exported = self._read(row)
            except ToolUnavailable:
                raise
            except Exception as error:
                # One bad image must not cost the others their export.
                self.left_out[row.id] = f"task {row.task_id}: {error}"
                logger.warning("project %s, %s", self._project.tool_id, self.left_out[row.id])
                continue
            yield exported
        if len(self.left_out) == len(self._rows):
            reason = next(iter(self.left_out.values()), "there are none")
            raise ValueError(f"none of {len(self._rows)} labelled images can be read: {reason}")

    @property
    def lost_labels(self) -> Mapping[int, str]:
        """Why the mask of a label could not be read, by the label's id."""
        return self._masks.lost

    def patch(self, label: RegionLabel) -> np.ndarray | None:
        """The (height, width) uint8 mask of a label; None where it cannot be read."""
        try:
            return self._masks.patch(label)
        except Unreadable:
            return None

    def _read(self, row: Image) -> ExportedImage:
        content = self._fetch(task_of(row))
        content, suffix, size = as_plain_image(content, self._pictures.decode)
        if row.size not in (None, size):
            raise ValueError(
                f"the image is {size[0]} x {size[1]} pixels (height x width) now, its labels were "
                f"made at {row.height} x {row.width}; restore the image file, or delete the task"
            )
        labels = self._by_image[row.id]
        mask = self._masks.whole(size, labels)
        return ExportedImage(
            split=split_of(row),
            name=self._names[row.id],
            suffix=suffix,
            content=content,
            mask=mask,
            regions=tuple(
                dict.fromkeys(
                    label.region
                    for label in self._masks.readable(labels)
                    if label.region.is_inside(size)
                )
            ),
        )


def looked_for(classes: Sequence[ExportedClass]) -> list[int]:
    """The indices of all classes but the background."""
    return [index for index, label in enumerate(classes) if not label.is_background]


def split_of(row: Image) -> str:
    """`val` for an image that is held out of training, else `train`."""
    return "val" if row.is_validation else "train"


def colors_of(project: Project) -> list[Rgb]:
    """One colour per class; a class without a `#RRGGBB` colour gets one of ours."""
    colors = []
    for index, entry in enumerate(project.classes):
        try:
            colors.append(rgb(entry["color"]))
        except (ValueError, TypeError):  # the labelling tool also takes CSS colour names
            colors.append(distinct_color(index))
    return colors


def as_plain_image(
    content: bytes, decode: Callable[[bytes], np.ndarray] = decode_image
) -> tuple[bytes, str, tuple[int, int]]:
    """An image file that every reader shows alike: its bytes, suffix and (height, width).

    The original bytes where they are an upright 8-bit RGB JPEG or PNG, else a PNG of what was
    labelled, as `decode` shows it.
    """
    image = decode(content)
    size = (image.shape[0], image.shape[1])
    facts = file_facts(content)
    if facts.is_plain and facts.format in _SUFFIXES:
        return content, _SUFFIXES[facts.format], size
    return encode_png(image), ".png", size
