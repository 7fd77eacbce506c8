from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ralis_backend.core import tiff
from ralis_backend.core.images import decode_image
from ralis_backend.core.stored_images import ImageError
from tests.core.tiff_files import write_tiff


def _values(dtype, bands, shape=(23, 17)):
    rng = np.random.default_rng(bands)
    if dtype.startswith("f"):
        return rng.normal(size=(*shape, bands)).astype(dtype)
    return rng.integers(0, 250, (*shape, bands)).astype(dtype) * (1 if dtype.endswith("1") else 100)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("tile", [None, 16])
def test_bands_come_back_as_they_were_written(dtype, bands, tile):
    values = _values(dtype, bands)
    chosen = [bands - 1, 0]
    differences = [(1, 1), (8, 1)] if dtype.startswith("f") else [(1, 1), (8, 1), (8, 2)]
    for planar in (False, True):
        for compression, predictor in differences:
            for order in "<>":
                content = write_tiff(
                    values,
                    planar=planar,
                    compression=compression,
                    predictor=predictor,
                    tile=tile,
                    order=order,
                )
                header = tiff.read_header(content)
                assert (header.height, header.width, header.bands) == (23, 17, bands)
                read = tiff.read_bands(content, header, chosen)
                np.testing.assert_array_equal(read, values[..., chosen])


@pytest.mark.parametrize("predictor", [1, 2, 3])
def test_floats_come_back_whatever_the_predictor_of_another_writer(predictor):
    values = _values("f4", 1)
    file = io.BytesIO()
    tags = {317: predictor}
    Image.fromarray(values[..., 0]).save(file, "TIFF", compression="tiff_lzw", tiffinfo=tags)
    header = tiff.read_header(file.getvalue())
    np.testing.assert_array_equal(tiff.read_bands(file.getvalue(), header, [0]), values)


def test_several_pages_are_refused_with_their_number_but_not_a_smaller_copy():
    pages = [Image.new("L", (8, 6), shade) for shade in (1, 2, 3)]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(tiff.TiffError, match="3 pages"):
        tiff.read_header(file.getvalue())
    smaller = Image.new("L", (4, 3))
    smaller.encoderinfo = {"tiffinfo": {254: 1}}
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=[smaller])
    assert tiff.read_header(file.getvalue()).width == 8


def test_a_header_that_promises_more_than_there_is_allocates_nothing_for_it():
    content = bytearray(write_tiff(np.zeros((4, 4, 5), np.uint16)))
    width_entry = content.index((256).to_bytes(2, "little"), 100) + 8
    content[width_entry : width_entry + 4] = (2**31).to_bytes(4, "little")
    header = tiff.read_header(bytes(content))
    with pytest.raises(tiff.TiffError, match="at most"):
        list(tiff._parts(bytes(content), header, None))


def test_pages_that_go_round_in_a_circle_end():
    content = bytearray(write_tiff(np.zeros((4, 4, 1), np.uint8)))
    at = int.from_bytes(content[4:8], "little")
    end = at + 2 + 12 * int.from_bytes(content[at : at + 2], "little")
    content[end : end + 4] = content[4:8]
    assert tiff.read_header(bytes(content)).width == 4


def test_a_tile_that_is_larger_than_any_image_may_be_is_refused_before_it_is_decoded():
    content = write_tiff(np.zeros((16, 16, 1), np.uint8), compression=8, tile=64)
    with pytest.raises(ImageError, match="64 x 64 pixels"):
        decode_image(content, max_pixels=1000)
    assert decode_image(content, max_pixels=4096).shape == (16, 16, 3)
