from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.core.segmenter import tiles
from ralis_backend.core.segmenter.tiles import look_in_tiles


@pytest.mark.parametrize(
    ("size", "stride", "max_pixels"),
    [((704, 448), 32, 120_000), ((416, 416), 32, 65_536), ((256, 3008), 32, 200_000),
     ((3008, 256), 16, 90_000), ((320, 320), 64, 65_536), ((288, 288), 32, 10**6)],
)  # fmt: skip
def test_parts_are_the_mean_of_overlapping_tiles_weighted_towards_their_middle(
    size, stride, max_pixels
):
    rng = torch.Generator().manual_seed(0)
    sums, totals = torch.zeros(2, *size), torch.zeros(size)
    cells = torch.zeros(1, size[0] // 16, size[1] // 16)
    cell_totals = torch.zeros_like(cells[0])

    def look(rows, cols):  # noisy: each tile sees something else of the same pixel
        height, width = rows.stop - rows.start, cols.stop - cols.start
        fine = torch.rand(2, height, width, generator=rng)
        coarse = torch.rand(1, height // 16, width // 16, generator=rng)
        weight = _weight((height, width), 128)
        sums[:, rows, cols] += fine * weight
        totals[rows, cols] += weight
        at = tuple(slice(it.start // 16, it.stop // 16) for it in (rows, cols))
        weight = _weight(coarse.shape[1:], 8)
        cells[(slice(None), *at)] += coarse * weight
        cell_totals[at] += weight
        return {"fine": fine, "coarse": coarse}

    blended = torch.full((2, *size), torch.nan)
    blended_cells = torch.full(cells.shape, torch.nan)
    for rows, cols, part in look_in_tiles(look, size, max_pixels, stride):
        assert torch.isnan(blended[:, rows, cols]).all()  # parts do not overlap
        blended[:, rows, cols] = part["fine"]
        at = tuple(slice(it.start // 16, it.stop // 16) for it in (rows, cols))
        blended_cells[(slice(None), *at)] = part["coarse"]
    torch.testing.assert_close(blended, sums / totals)
    torch.testing.assert_close(blended_cells, cells / cell_totals)


def _weight(size, overlap):
    ramps = [
        np.minimum(np.minimum(np.arange(length), np.arange(length)[::-1]) + 1, overlap)
        for length in size
    ]
    return torch.from_numpy(np.outer(*ramps)).float()


def test_what_waits_for_further_tiles_is_as_wide_as_the_overlap():
    waiting = []

    class Watched(tiles._Blend):
        def add(self, row, col, values):
            part = super().add(row, col, values)
            kept = (self.left, self.above, self.below)
            waiting.append(sum(each.numel() for each in kept if each is not None))
            return part

    original, tiles._Blend = tiles._Blend, Watched
    try:
        for _ in look_in_tiles(
            lambda rows, cols: {
                "p": torch.ones(1, rows.stop - rows.start, cols.stop - cols.start)
            },
            (4096, 4096), 640_000, 32,
        ):  # fmt: skip
            pass
    finally:
        tiles._Blend = original
    assert max(waiting) < 3 * 4096 * 256 < 4096 * 4096 / 5
