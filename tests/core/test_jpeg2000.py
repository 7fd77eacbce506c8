from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from ralis_backend.core import jpeg2000
from ralis_backend.core.images import decode_image
from ralis_backend.core.stored_images import ImageError


def in_tiles(width: int, height: int, side: int, bands: int = 3) -> bytes:
    """A codestream that ends where its first tile would begin."""
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, side, side, 0, 0, bands)
    size += b"\x07\x01\x01" * bands
    coding = struct.pack(">BBHBBBBBB", 0, 0, 1, 0, 0, 4, 4, 0, 1)
    parts = [(0x51, size), (0x52, coding), (0x5C, b"\x40\x40"), (0x90, b"\0\0\0\0\0\x0e\0\1")]
    segments = b"".join(struct.pack(">BBH", 0xFF, kind, 2 + len(it)) + it for kind, it in parts)
    return b"\xff\x4f" + segments + b"\xff\x93\xff\xd9"


def test_a_picture_in_tiles_of_one_pixel_is_refused():
    with pytest.raises(ImageError, match="65535 tiles of 1 x 1 pixels in 3 bands"):
        decode_image(in_tiles(255, 257, 1))


def test_tiles_of_a_usual_size_are_read():
    jpeg2000.check_tiles(in_tiles(10_000, 10_000, 128))
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG2000", tile_size=(16, 16))
    assert decode_image(file.getvalue()).shape == (40, 56, 3)


def test_the_size_is_found_inside_a_file_of_boxes_and_a_damaged_one_is_left_to_the_decoder():
    boxed = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100) + in_tiles(255, 257, 1)
    with pytest.raises(jpeg2000.Jpeg2000Error):
        jpeg2000.check_tiles(boxed)
    unknown = b"\xff\x30\0\x18\xff\x51" + bytes(20)
    hidden = in_tiles(255, 257, 1).replace(b"\xff\x4f", b"\xff\x4f" + unknown)
    with pytest.raises(jpeg2000.Jpeg2000Error):
        jpeg2000.check_tiles(hidden)
    jpeg2000.check_tiles(in_tiles(255, 257, 0))
    jpeg2000.check_tiles(in_tiles(255, 257, 1)[:30])
