"""The labelled images of a project, one at a time: name, file, mask and regions."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ralis_backend.core.images import decode_image, encode_png
from ralis_backend.core.palette import Rgb, distinct_color, rgb
from ralis_backend.core.regions import Region
from ralis_backend.core.stored_images import file_facts
from ralis_backend.online.file_names import uploaded_name
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.pictures import Pictures, task_of
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import ToolTask, ToolUnavailable

logger = logging.getLogger(__name__)

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Devices to Windows, whatever the suffix."""
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png"}


@dataclass(frozen=True)
class ExportedClass:
    """A class: its name and its colour (red, green, blue)."""

    name: str
    color: Rgb


@dataclass(frozen=True)
class ExportedImage:
    """One image: its split (`train` or `val`), name, file and (H, W) uint8 mask."""

    split: str
    name: str
    suffix: str
    content: bytes
    mask: np.ndarray
    regions: tuple[Region, ...]


class LabelledImages:
    """The images of a project with at least one painted region, read when iterated.

    Attributes:
        keys: split and name, by image id.
        left_out: why an image could not be read, by its id.
    """

    def __init__(self, store: Store, project: Project, images: Callable[[ToolTask], bytes]) -> None:
        self.labels = [label for label in store.labels.of(project.id) if not label.is_skipped]
        self.classes = tuple(
            ExportedClass(entry["name"], color)
            for entry, color in zip(project.classes, colors_of(project), strict=True)
        )
        self._project, self._fetch = project, images
        self._pictures = Pictures(store, project, images)
        self._masks = LabelMasks(store, project, has_removed_classes=True)
        self.left_out: dict[int, str] = {}
        self._by_image: dict[int, list[RegionLabel]] = defaultdict(list)
        for label in self.labels:
            self._by_image[label.image_id].append(label)
        rows = store.images.of(project.id)
        names = file_names(rows)
        self._rows = [row for row in rows if row.id in self._by_image]
        self._names = {row.id: names[row.id] for row in self._rows}
        self.keys = {row.id: f"{split_of(row)}/{names[row.id]}" for row in self._rows}

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
                logger.warning("project %s, %s", self._project.uid, self.left_out[row.id])
                continue
            yield exported
        if len(self.left_out) == len(self._rows):
            reason = next(iter(self.left_out.values()), "there are none")
            raise ValueError(f"none of {len(self._rows)} labelled images can be read: {reason}")

    @property
    def lost_labels(self) -> Mapping[int, str]:
        """Why the mask of a label could not be read, by the label's id."""
        return self._masks.lost

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
                label.region
                for label in self._masks.readable(labels)
                if label.region.is_inside(size)
            ),
        )


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


def file_names(rows: list[Image]) -> dict[int, str]:
    """A safe, unique file name without suffix for each image, by row id.

    It is the name under which the image was uploaded; where several agree, the later ones get
    their task's id.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    for row in rows:
        name = base = _original_name(row.ref)
        if name.lower() in taken:
            name = base = f"{base}-{row.task_id}"
        number = 2
        while name.lower() in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name.lower())
        names[row.id] = name
    return names


def _original_name(ref: str) -> str:
    stem = uploaded_name(ref).rsplit(".", 1)[0]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:100]
    if _RESERVED.fullmatch(safe):
        return f"image-{safe}"
    return safe or "image"


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
