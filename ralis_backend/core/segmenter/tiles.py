"""Large images, cut into overlapping tiles and put together again part by part.

A part leaves as soon as no further tile overlaps it: what waits for the next tiles is as wide as
the overlap, however large the image is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch

TILE_OVERLAP = 128

Maps = Mapping[str, torch.Tensor]
"""(M, h, w) by name, each in cells of its own stride."""
Look = Callable[[slice, slice], Maps]
"""Rows and columns of an image -> maps of this part."""


def look_in_tiles(
    look: Look, size: tuple[int, int], max_pixels: int, stride: int
) -> Iterator[tuple[slice, slice, Maps]]:
    """Parts that cover an image without overlapping, row by row: rows, columns and their maps.

    Where tiles overlap their maps are blended. Parts begin at multiples of the stride.

    Args:
        look: at one tile, which may reach beyond the image.
        size: (height, width), multiples of the stride.
        max_pixels: of a tile, about.
        stride: starts and sides of tiles are multiples of it.
    """
    tall, wide = _tiles(size, max_pixels, stride)
    blends: dict[str, _Blend] = {}
    for row, rows in enumerate(tall.slices):
        for col, cols in enumerate(wide.slices):
            part = {}
            for name, values in look(rows, cols).items():
                if name not in blends:
                    step = tall.tile // values.shape[1]
                    blends[name] = _Blend(tall.in_cells(step), wide.in_cells(step))
                part[name] = blends[name].add(row, col, values)
            yield slice(*tall.final(row)), slice(*wide.final(col)), part


@dataclass(frozen=True)
class _Axis:
    """Tiles along one side of an image: where they begin, how long they and the side are."""

    starts: tuple[int, ...]
    tile: int
    length: int
    overlap: int

    @property
    def slices(self) -> list[slice]:
        return [slice(start, start + self.tile) for start in self.starts]

    def in_cells(self, step: int) -> _Axis:
        """The same in cells of a map."""
        starts = tuple(start // step for start in self.starts)
        return _Axis(starts, self.tile // step, self.length // step, self.overlap // step)

    def final(self, index: int) -> tuple[int, int]:
        """Start and stop of what no later tile overlaps."""
        return tuple(pairwise((*self.starts, self.length)))[index]

    def ramp(self, device: torch.device) -> torch.Tensor:
        """(tile,) weights that fall towards a tile's ends, never to zero."""
        position = torch.arange(self.tile, device=device, dtype=torch.float32)
        to_edge = torch.minimum(position, self.tile - 1 - position) + 1
        return to_edge.clamp(max=max(1, self.overlap))

    def total(self, device: torch.device) -> torch.Tensor:
        """(length,) sums of all tiles' weights."""
        total = torch.zeros(self.length, device=device)
        for each in self.slices:
            total[each] += self.ramp(device)
        return total


@dataclass
class _Blend:
    """One map: what was seen of the cells that later tiles overlap.

    left: (M, tile, w) from the tiles before in the same row of tiles.
    above, below: (M, h, width) from the rows of tiles before, and from this one for the next.
    """

    tall: _Axis
    wide: _Axis
    left: torch.Tensor | None = None
    above: torch.Tensor | None = None
    below: torch.Tensor | None = None
    totals: tuple[torch.Tensor, torch.Tensor] = field(init=False)

    def add(self, row: int, col: int, values: torch.Tensor) -> torch.Tensor:
        """(M, h, w) of one tile -> the cells that are final with it."""
        device = values.device
        if row == col == 0:
            self.totals = self.tall.total(device), self.wide.total(device)
        seen = values * (self.tall.ramp(device)[:, None] * self.wide.ramp(device))
        (top, bottom), (start, stop) = self.tall.final(row), self.wide.final(col)
        if col:
            self._add_left(seen)
        else:
            self.above, self.below = self.below, None
        whole, height = seen[:, :, : stop - start], bottom - top
        self.left = seen[:, :, stop - start :].clone()
        if self.above is not None:
            whole[:, : self.above.shape[1]] += self.above[:, :, start:stop]
        self._keep_below(whole[:, height:], start, stop)
        weights = self.totals[0][top:bottom, None] * self.totals[1][start:stop]
        return whole[:, :height].div_(weights)

    def _add_left(self, seen: torch.Tensor) -> None:
        if self.left is not None:
            seen[:, :, : self.left.shape[2]] += self.left

    def _keep_below(self, rest: torch.Tensor, start: int, stop: int) -> None:
        if not rest.shape[1]:
            return
        if self.below is None:
            self.below = rest.new_zeros((*rest.shape[:2], self.wide.length))
        self.below[:, :, start:stop] = rest


def _tiles(size: tuple[int, int], max_pixels: int, stride: int) -> tuple[_Axis, _Axis]:
    """Overlapping tiles that cover `size`; all starts and sides are multiples of `stride`."""
    side = max(2 * TILE_OVERLAP, int(max_pixels**0.5)) // stride * stride
    height = min(size[0], max(side, max_pixels // min(size[1], side) // stride * stride))
    width = min(size[1], max(side, max_pixels // height // stride * stride))
    tall = _tile_starts(size[0], height, stride), height, size[0]
    wide = _tile_starts(size[1], width, stride), width, size[1]
    return _Axis(*tall, TILE_OVERLAP), _Axis(*wide, TILE_OVERLAP)


def _tile_starts(length: int, tile: int, stride: int) -> tuple[int, ...]:
    if tile >= length:
        return (0,)
    count = -(-(length - TILE_OVERLAP) // (tile - TILE_OVERLAP))
    last = length - tile
    starts = (last * index // (count - 1) // stride * stride for index in range(count))
    return tuple(dict.fromkeys(starts))
