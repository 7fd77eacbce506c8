from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.config import UnlabelledConfig
from ralis_backend.core.learning.strong_views import StrongViews

UNCHANGED = UnlabelledConfig(colour=0.0, grey=0.0, blur=0.0, cutmix=0.0)


def views(rng_seed=0, **changes):
    return StrongViews(replace(UNCHANGED, **changes), np.random.default_rng(rng_seed))


def crops_and_targets(count=3, height=40, width=56):
    """Crops of noise; the target of a pixel tells which crop it is of."""
    pixels = np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)
    targets = torch.arange(count).reshape(-1, 1, 1).expand(count, height, width).contiguous()
    return pixels, targets


def test_nothing_switched_on_changes_nothing():
    pixels, targets = crops_and_targets()
    strong, mixed = views().of(pixels, targets)
    np.testing.assert_array_equal(strong, pixels)
    torch.testing.assert_close(mixed, targets)


def test_pixels_and_targets_of_a_box_come_from_the_same_place_of_another_crop():
    pixels, targets = crops_and_targets()
    before = pixels.copy()
    strong, mixed = views(cutmix=1.0).of(pixels, targets)
    for index in range(3):
        is_mixed = (mixed[index] != index).numpy()
        (other,) = np.unique(mixed[index].numpy()[is_mixed])
        rows, cols = np.flatnonzero(is_mixed.any(1)), np.flatnonzero(is_mixed.any(0))
        assert is_mixed[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].all()  # one box
        assert 0.01 < is_mixed.mean() < 0.45
        np.testing.assert_array_equal(strong[index][is_mixed], before[other][is_mixed])
        np.testing.assert_array_equal(strong[index][~is_mixed], before[index][~is_mixed])
    np.testing.assert_array_equal(pixels, before)


def test_boxes_come_as_often_as_their_chance_says():
    pixels, targets = crops_and_targets(count=2, height=16, width=16)
    some = views(cutmix=0.25)
    mixed = [(some.of(pixels, targets)[1] != targets).flatten(1).any(1) for _ in range(200)]
    assert float(torch.stack(mixed).float().mean()) == pytest.approx(0.25, abs=0.06)


def test_one_crop_alone_is_mixed_with_nothing():
    pixels, targets = crops_and_targets(count=1)
    strong, mixed = views(cutmix=1.0).of(pixels, targets)
    np.testing.assert_array_equal(strong, pixels)
    torch.testing.assert_close(mixed, targets)


def test_grey_has_three_equal_channels_and_blur_less_contrast_between_neighbours():
    pixels, targets = crops_and_targets()
    grey, _ = views(grey=1.0).of(pixels, targets)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    blurred, _ = views(blur=1.0).of(pixels, targets)
    roughness = [np.abs(np.diff(it.astype(int), axis=2)).mean() for it in (pixels, blurred)]
    assert roughness[1] < 0.9 * roughness[0]


def test_colours_are_drawn_for_each_crop_and_again_from_the_same_seed():
    pixels, targets = crops_and_targets()
    pixels[:] = pixels[0]
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(views(colour=0.5).of(pixels, targets)[0])
    np.testing.assert_array_equal(*results)
    assert len({each.tobytes() for each in results[0]}) == 3
