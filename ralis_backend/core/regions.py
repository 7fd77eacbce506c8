"""Regions: the rectangles of an image that an annotator is asked to label, one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VOID = 255
"""Mask value of a pixel without a label: ignored by losses and metrics."""


@dataclass(frozen=True, order=True, slots=True)
class Region:
    """A rectangle of one image, in pixels; `row` and `col` are its top-left corner."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Indices of the region in an array whose first axes are (H, W)."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.col, self.col + self.width),
        )

    @property
    def center_in_regions(self) -> tuple[float, float]:
        """Row and column of the centre, in heights and widths of the region."""
        return self.row / self.height + 0.5, self.col / self.width + 0.5

    def clipped(self, image_size: tuple[int, int]) -> Region:
        """What of it lies in an image of `(height, width)` pixels; without a pixel if nothing."""
        top, left = max(0, self.row), max(0, self.col)
        bottom = min(image_size[0], self.row + self.height)
        right = min(image_size[1], self.col + self.width)
        return Region(top, left, max(0, bottom - top), max(0, right - left))

    def is_inside(self, image_size: tuple[int, int]) -> bool:
        """Whether the region lies in an image of `(height, width)` pixels."""
        height, width = image_size
        return (
            self.row >= 0
            and self.col >= 0
            and self.height > 0
            and self.width > 0
            and self.row + self.height <= height
            and self.col + self.width <= width
        )


def grid(image_size: tuple[int, int], region_size: tuple[int, int]) -> list[Region]:
    """The regions that cover an image, row by row, all of one size.

    Where the image is no multiple of the region, the last row and column are shifted inside and
    overlap their neighbours, so that every pixel is reachable. An image smaller than a region
    is covered by regions cut to its size.

    Args:
        image_size: (height, width) of the image in pixels.
        region_size: (height, width) of a region in pixels.

    Raises:
        ValueError: if a size is not positive.
    """
    if min(*image_size, *region_size) < 1:
        raise ValueError(
            f"image size {image_size} and region size {region_size} must be at least 1 x 1 pixels"
        )
    height = min(region_size[0], image_size[0])
    width = min(region_size[1], image_size[1])
    return [
        Region(row, col, height, width)
        for row in _starts(image_size[0], height)
        for col in _starts(image_size[1], width)
    ]


def grid_size(image_size: tuple[int, int], region_size: tuple[int, int]) -> int:
    """How many regions `grid` has."""
    tall, wide = (min(each, side) for each, side in zip(region_size, image_size, strict=True))
    return len(_starts(image_size[0], tall)) * len(_starts(image_size[1], wide))


def _starts(length: int, step: int) -> list[int]:
    starts = list(range(0, length - step + 1, step))
    if starts[-1] + step < length:
        starts.append(length - step)
    return starts


def is_labelled(mask: np.ndarray, region: Region) -> bool:
    """Whether every pixel of `region` is marked in `mask`, (H, W) bool."""
    return bool(mask[region.slices].all())
