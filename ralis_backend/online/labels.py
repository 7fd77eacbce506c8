"""Labelled regions as values: what the store keeps, and what is asked of several of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from ralis_backend.core.regions import VOID, Region

CLOSING_SHARE = 0.5
"""Of a region that nobody was asked for more than this has to be painted to count as labelled."""


@dataclass(frozen=True)
class RegionLabel:
    """A labelled region with where it came from.

    `pixels` counts labelled pixels per class; `round`, `strategy` and `version` are None for
    labels that were not suggested (whole-image annotations). `is_starred`: a reviewer has marked
    its annotation as the right one. `wish_id`: of the wish that it was mined for. `is_disputed`:
    its region was called not worth labelling by who painted in it. `oldest_id`: of the first label
    of its region by the same annotation, which has been painted on since; of the first label of
    any region by it where this one is only read in another way; its own where there was none.
    `share_beside`: see `NewLabel`. `was_asked`: of one that is not closing, that it hides a skip of
    what was asked for, so that nobody has to be asked for its region any more.
    """

    id: int
    oldest_id: int
    annotation_row_id: int
    image_id: int
    region: Region
    is_skipped: bool
    mask_key: str | None
    pixels: tuple[int, ...]
    annotator: str
    created_at: datetime
    updated_at: datetime
    lead_time_s: float | None
    round: int | None
    strategy: str | None
    version: int | None
    is_starred: bool = False
    wish_id: int | None = None
    is_disputed: bool = False
    share_beside: float | None = None
    was_asked: bool = False

    @property
    def is_closing(self) -> bool:
        """Whether its region counts as labelled, and nobody has to be asked for it any more."""
        return self.share_beside is None or self.share_beside > CLOSING_SHARE


@dataclass(frozen=True)
class NewLabel:
    """A region read from an annotation; `mask` is (height, width) uint8, None for a skip.

    is_disputed: it was called not worth labelling, and painted in all the same.
    drawn_digest: tells whether somebody painted in it since: `Painted.digest`; None: unknown.
    share_beside: which share of the region somebody painted who was asked for others, in (0, 1],
        of what was not asked for; None: this one was asked for, or is of a whole image.

    Raises:
        ValueError: if the mask is not of the region's size.
    """

    region: Region
    mask: np.ndarray | None
    is_disputed: bool = False
    drawn_digest: str | None = None
    share_beside: float | None = None

    def __post_init__(self) -> None:
        """Check the mask's size: one that does not fit could be stored, and never be used."""
        size = (self.region.height, self.region.width)
        if self.mask is not None and self.mask.shape != size:
            raise ValueError(
                f"the mask of {self.region} has {self.mask.shape} pixels, expected {size} (height, "
                "width); the region must lie in the image"
            )


def painted_labels(
    patches: Iterable[tuple[Region, np.ndarray]], *, were_asked_for: bool
) -> list[NewLabel]:
    """What an annotation labels: the regions in which anything counts.

    Unpainted pixels of a project with a background label are background, so there every region
    counts. Without one, a region that was left as it was is no label: one that was asked for is
    done all the same, as a skipped one is; any other stays for somebody to label.

    Args:
        patches: each region, and its mask, (height, width) uint8, VOID where nothing counts.
        were_asked_for: whether these regions were shown to be labelled, or are the cells of an
            image that somebody annotated as a whole.
    """
    labels = []
    for region, patch in patches:
        if (patch != VOID).any():
            labels.append(NewLabel(region, np.ascontiguousarray(patch)))
        elif were_asked_for:
            labels.append(NewLabel(region, None))
    return labels


def newest(
    labels: Sequence[RegionLabel], removed_classes: Collection[int] = ()
) -> list[RegionLabel]:
    """What counts of each region: the starred label, of several or none the newest.

    A painted one is hidden by a later skip only where a reviewer starred that; one of which every
    pixel is of a removed class hides no more than a skip, nor does one that is disputed. What is
    painted beside the regions that were asked for hides those alone that would hide no paint,
    unless it is starred and most of its region. Where it is less, it neither hides paint nor is
    hidden by it: both count, and one lies over the other, as where regions overlap.

    Args:
        labels: as they were painted, oldest first.
        removed_classes: that the project has no more.

    Returns:
        Of a region one label, or several; what comes later lies over what comes before.
    """
    ordered = sorted(labels, key=lambda it: _precedence(it, removed_classes))
    of_region: dict[tuple[int, Region], list[RegionLabel]] = defaultdict(list)
    for label in ordered:
        counted = of_region[label.image_id, label.region]
        if label.is_skipped:
            counted[:] = [label]
        elif label.is_closing:
            counted[:] = [*(it for it in counted if not it.is_closing), label]
        elif counted and counted[-1].is_skipped:
            counted[:] = [replace(label, was_asked=True)]
        else:
            counted.append(label)
    chosen = {label.id: label for counted in of_region.values() for label in counted}
    return [chosen[label.id] for label in ordered if label.id in chosen]


def _precedence(label: RegionLabel, removed_classes: Collection[int]) -> tuple[int, bool, int]:
    """Larger for what hides the other; what is painted beside stands between those asked for."""
    rank = _rank(label, removed_classes)
    asked = 2 if label.is_starred or rank == 2 else 0
    is_as_asked = label.share_beside is None or (label.is_starred and label.is_closing)
    return asked if is_as_asked else 1, label.is_starred, rank


def _rank(label: RegionLabel, removed_classes: Collection[int]) -> int:
    """2 for a painted label, 1 where it is disputed or nothing of it is left, 0 for a skip."""
    if label.is_skipped or label.is_disputed:
        return 0 if label.is_skipped else 1
    return 2 if says_something_of(label, removed_classes) else 1


def says_something_of(label: RegionLabel, removed_classes: Collection[int]) -> bool:
    """Whether a pixel of it is of a class that the project still has."""
    pixels = enumerate(label.pixels)
    return any(count for index, count in pixels if index not in removed_classes)


def labels_by_image(labels: Sequence[RegionLabel]) -> dict[int, list[RegionLabel]]:
    """The labels of each image id."""
    by_image: dict[int, list[RegionLabel]] = defaultdict(list)
    for label in labels:
        by_image[label.image_id].append(label)
    return by_image


def covered(image_size: tuple[int, int], labels: Sequence[RegionLabel]) -> np.ndarray:
    """The pixels of an image that have been labelled or skipped, (H, W) bool."""
    mask = np.zeros(image_size, bool)
    for label in labels:
        if label.is_closing or label.was_asked:
            mask[label.region.slices] = True
    return mask


def says_something(mask: np.ndarray) -> bool:
    """Whether any pixel of a (height, width) uint8 mask has a class."""
    return bool((mask != VOID).any())


def without_classes(mask: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The mask with the pixels of these classes as VOID."""
    is_hidden = np.zeros(VOID + 1, bool)
    is_hidden[list(classes)] = True
    hidden: np.ndarray = np.where(is_hidden[mask], np.uint8(VOID), mask)
    return hidden


def labelled_pixels(
    labels: Sequence[RegionLabel], num_classes: int, removed_classes: Collection[int] = ()
) -> np.ndarray:
    """(L, C + 1) int64 labelled pixels of each class in each labelled region, void last.

    Args:
        labels: of the project; skips are left out.
        num_classes: C, removed ones included.
        removed_classes: their pixels are void, as segmenters learn them, and regions that show
            nothing else are left out.
    """
    painted = [label for label in labels if says_something_of(label, removed_classes)]
    pixels = np.zeros((len(painted), num_classes + 1), np.int64)
    for row, label in zip(pixels, painted, strict=True):
        row[: len(label.pixels)] += label.pixels
        row[list(removed_classes)] = 0
        row[-1] = label.region.height * label.region.width - row[:-1].sum()
    return pixels
