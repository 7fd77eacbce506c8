"""Large images, cut into overlapping tiles and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch

TILE_OVERLAP = 128

Look = Callable[[slice, slice], Mapping[str, torch.Tensor]]
"""Rows and columns of an image -> maps of this part, (M, h, w), in cells of their own strides."""


def look_in_tiles(
    look: Look, size: tuple[int, int], max_pixels: int, stride: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Maps of the whole image, blended where tiles overlap.

    Args:
        look: at one tile, which may reach beyond the image.
        size: (height, width), multiples of the stride.
        max_pixels: of a tile, about.
        stride: starts and sides of tiles are multiples of it.
        device: of the maps.
    """
    sums: dict[str, torch.Tensor] = {}
    totals: dict[str, torch.Tensor] = {}
    for rows, cols in _tiles(size, max_pixels, stride):
        for name, values in look(rows, cols).items():
            step = (rows.stop - rows.start) // values.shape[1]
            if name not in sums:
                shape = (size[0] // step, size[1] // step)
                sums[name] = torch.zeros((len(values), *shape), device=device)
                totals[name] = torch.zeros(shape, device=device)
            weight = _blend_weight(values.shape[1:], TILE_OVERLAP // step, device)
            place = (
                slice(rows.start // step, rows.start // step + values.shape[1]),
                slice(cols.start // step, cols.start // step + values.shape[2]),
            )
            sums[name][:, place[0], place[1]] += values * weight
            totals[name][place] += weight
    return {name: total / totals[name] for name, total in sums.items()}


def _tiles(size: tuple[int, int], max_pixels: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Overlapping tiles that cover `size`; all starts and sides are multiples of `stride`."""
    side = max(2 * TILE_OVERLAP, int(max_pixels**0.5)) // stride * stride
    height = min(size[0], max(side, max_pixels // min(size[1], side) // stride * stride))
    width = min(size[1], max(side, max_pixels // height // stride * stride))
    for row in _tile_starts(size[0], height, stride):
        for col in _tile_starts(size[1], width, stride):
            yield slice(row, row + height), slice(col, col + width)


def _tile_starts(length: int, tile: int, stride: int) -> list[int]:
    if tile >= length:
        return [0]
    count = -(-(length - TILE_OVERLAP) // (tile - TILE_OVERLAP))
    last = length - tile
    return [last * index // (count - 1) // stride * stride for index in range(count)]


def _blend_weight(
    size: torch.Size | tuple[int, ...], overlap: int, device: torch.device
) -> torch.Tensor:
    """(h, w) weights that fall towards a tile's edges, never to zero."""
    ramps = []
    for length in size:
        position = torch.arange(length, device=device, dtype=torch.float32)
        to_edge = torch.minimum(position, length - 1 - position) + 1
        ramps.append(to_edge.clamp(max=max(1, overlap)))
    return ramps[0][:, None] * ramps[1][None, :]
