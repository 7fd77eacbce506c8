from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.regions import Region, grid, is_labelled


def test_grid_of_a_multiple_goes_row_by_row():
    assert grid((4, 6), (2, 3)) == [
        Region(0, 0, 2, 3), Region(0, 3, 2, 3), Region(2, 0, 2, 3), Region(2, 3, 2, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(360, 480), (129, 257), (1, 1), (127, 500), (128, 128)])
def test_every_pixel_is_in_a_region_and_every_region_inside(size):
    regions = grid(size, (128, 128))
    covered = np.zeros(size, bool)
    for region in regions:
        assert region.is_inside(size)
        covered[region.slices] = True
    assert covered.all()
    assert len({(region.height, region.width) for region in regions}) == 1
    assert len(set(regions)) == len(regions)


def test_last_row_and_column_are_shifted_inside():
    assert grid((5, 5), (3, 4)) == [
        Region(0, 0, 3, 4), Region(0, 1, 3, 4), Region(2, 0, 3, 4), Region(2, 1, 3, 4)
    ]  # fmt: skip


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1 x 1"):
        grid((0, 4), (2, 2))


def test_is_inside_knows_all_four_edges():
    assert Region(0, 0, 2, 3).is_inside((2, 3))
    for region in (Region(-1, 0, 2, 3), Region(0, -1, 2, 3), Region(1, 0, 2, 3)):
        assert not region.is_inside((2, 3))
    assert not Region(0, 1, 2, 3).is_inside((2, 3))
    assert not Region(0, 0, 0, 3).is_inside((2, 3))


def test_a_region_is_labelled_when_all_its_pixels_are():
    marked = np.zeros((4, 5), bool)
    marked[1:3, 2:4] = True
    assert is_labelled(marked, Region(1, 2, 2, 2))
    assert not is_labelled(marked, Region(1, 2, 2, 3))


@pytest.mark.parametrize(
    ("region", "inside"),
    [
        (Region(1, 2, 3, 3), Region(1, 2, 3, 3)),
        (Region(-1, 3, 3, 4), Region(0, 3, 2, 2)),
        (Region(2, -1, 9, 9), Region(2, 0, 2, 5)),
        (Region(4, 0, 2, 2), Region(4, 0, 0, 2)),
    ],
)
def test_a_region_is_cut_to_what_an_image_has_of_it(region: Region, inside: Region):
    assert region.clipped((4, 5)) == inside
    assert inside.is_inside((4, 5)) == bool(inside.height)
