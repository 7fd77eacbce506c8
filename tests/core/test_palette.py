import io

import numpy as np
import pytest
from PIL import Image

from ralis_backend.core.images import mask_from_png
from ralis_backend.core.palette import distinct_color, hexadecimal, palette_png, rgb
from ralis_backend.core.regions import VOID


def test_a_mask_survives_the_palette_png_bit_by_bit():
    mask = np.random.default_rng(0).integers(0, 256, (37, 53)).astype(np.uint8)
    colors = [distinct_color(index) for index in range(12)]
    np.testing.assert_array_equal(mask_from_png(palette_png(mask, colors)), mask)


def test_a_viewer_shows_the_class_colours_and_void_black():
    mask = np.array([[0, 1], [VOID, 0]], np.uint8)
    with Image.open(io.BytesIO(palette_png(mask, [(255, 0, 0), (0, 0, 255)]))) as image:
        shown = np.array(image.convert("RGB"))
    assert shown.tolist() == [[[255, 0, 0], [0, 0, 255]], [[0, 0, 0], [255, 0, 0]]]


def test_colours_go_to_hexadecimal_and_back():
    assert hexadecimal((128, 64, 255)) == "#8040FF"
    assert rgb("#8040ff") == (128, 64, 255)
    with pytest.raises(ValueError, match="#RRGGBB"):
        rgb("teal")


def test_forty_classes_get_forty_colours():
    assert len({distinct_color(index) for index in range(40)}) == 40
