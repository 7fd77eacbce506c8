from __future__ import annotations

import os

import numpy as np
from PIL import Image

from ralis_backend.core.regions import VOID
from ralis_backend.offline.benchmark.clicks import polygon_clicks, region_clicks
from ralis_backend.offline.datasets import Sample
from tests.tiny_dataset import REGION_SIZE


def test_a_region_of_one_class_costs_one_click():
    assert polygon_clicks(np.zeros((30, 40), np.uint8)) == 1


def test_a_box_costs_its_corners_and_two_names():
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15, 5:20] = 3
    assert polygon_clicks(mask) == 1 + (4 + 1)
    mask[20:28, 25:38] = 3  # another segment of the same class
    assert polygon_clicks(mask) == 1 + 2 * (4 + 1)


def test_void_and_noise_cost_nothing():
    mask = np.full((30, 40), VOID, np.uint8)
    assert polygon_clicks(mask) == 0
    mask[:] = 1
    mask[3, 3:6] = 2  # three pixels
    mask[10:20, 10:20] = VOID
    assert polygon_clicks(mask) == 1


def test_a_jagged_boundary_costs_more_than_a_straight_one():
    straight, jagged = np.zeros((2, 40, 60), np.uint8)
    straight[:20], jagged[:20] = 1, 1
    for col in range(0, 60, 12):
        jagged[14:26, col : col + 6] = 1
    assert polygon_clicks(jagged) > polygon_clicks(straight)


def test_regions_are_counted_in_order_and_once(tiny_dataset, tmp_path):
    samples = tiny_dataset.split("d_v")
    told: list[str] = []
    first = region_clicks(samples, REGION_SIZE, tmp_path, told.append)
    assert len(first) == 30
    assert len(told) == 5
    assert first[6] == polygon_clicks(samples[1].mask()[:32, :32])
    np.testing.assert_array_equal(region_clicks(samples, REGION_SIZE, tmp_path, told.append), first)
    assert len(told) == 5
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"half")
    np.testing.assert_array_equal(region_clicks(samples, REGION_SIZE, tmp_path), first)


def test_a_mask_that_keeps_its_time_is_counted_anew(tmp_path):
    path = tmp_path / "mask.png"
    sample = Sample("one", path, path)

    def clicks(mask: np.ndarray) -> list[int]:
        Image.fromarray(mask).save(path)
        os.utime(path, (0, 0))
        return region_clicks([sample], (30, 40), tmp_path).tolist()

    box = np.zeros((30, 40), np.uint8)
    box[5:15, 5:20] = 1
    assert [clicks(np.zeros_like(box)), clicks(box)] == [[1], [6]]
