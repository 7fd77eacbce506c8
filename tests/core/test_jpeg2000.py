from __future__ import annotations

import io
import signal
import struct

import numpy as np
import pytest
from PIL import Image

from ralis_backend.core import jpeg2000
from ralis_backend.core.images import decode_image
from ralis_backend.core.stored_images import ImageError, read_stored


def in_tiles(
    width: int, height: int, side: int, bands: int = 3, precincts: bytes = b"", layers: int = 1
) -> bytes:
    """A codestream that ends where its first tile would begin."""
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, side, side, 0, 0, bands)
    size += b"\x07\x01\x01" * bands
    levels = max(0, len(precincts) - 1)
    coding = struct.pack(">BBHBBBBBB", bool(precincts), 0, layers, 0, levels, 4, 4, 0, 1)
    coding += precincts
    quantisation = b"\x40" * (3 * levels + 2)
    parts = [(0x51, size), (0x52, coding), (0x5C, quantisation), (0x90, b"\0\0\0\0\0\x0e\0\1")]
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


def test_a_small_file_of_tiny_precincts_is_refused_where_it_needs_more_than_its_size_allows(
    monkeypatch,
):
    monkeypatch.setattr(jpeg2000, "_MEMORY", 55_000_000)
    with pytest.raises(ImageError, match=r"more than 55 MB to decode.*convert it to PNG or TIFF"):
        decode_image(in_tiles(128, 128, 128, precincts=b"\x11" * 6))


def test_a_decoder_that_takes_too_long_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(jpeg2000, "_WAIT_S", 0)
    monkeypatch.setattr(jpeg2000, "_CPU_S", 0)
    with pytest.raises(jpeg2000.Jpeg2000Error, match="takes more than 0 s"):
        jpeg2000.decode(b"", 0)
    monkeypatch.undo()
    program = tmp_path / "program.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)")
    monkeypatch.setattr(jpeg2000, "_PROGRAM", program)
    with pytest.raises(jpeg2000.Jpeg2000Error, match="takes more than 10 s"):
        jpeg2000.decode(b"", 0)


def test_a_signal_that_stops_all_processes_does_not_make_a_good_file_a_bad_one(
    monkeypatch, tmp_path
):
    program = tmp_path / "program.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('read')")
    monkeypatch.setattr(jpeg2000, "_PROGRAM", program)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert jpeg2000.decode(b"", 0) == b"read\n"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_without_an_interpreter_the_error_says_so(monkeypatch):
    monkeypatch.setattr(jpeg2000.sys, "executable", "/nowhere/python")
    with pytest.raises(jpeg2000.Jpeg2000Error, match=r"no process can be started.*/nowhere/python"):
        jpeg2000.decode(b"", 0)


def test_a_palette_and_16_bits_come_back():
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 0], [1, 1]], np.uint8)).save(file, "JPEG2000")
    content = file.getvalue()
    boxes = struct.pack(">I4sHB3B6B", 20, b"pclr", 2, 3, 7, 7, 7, 10, 20, 30, 40, 50, 60)
    boxes += struct.pack(">I4s12B", 20, b"cmap", *(0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 2))
    at = content.index(b"jp2c") - 4
    head = content.index(b"jp2h") - 4
    length = struct.pack(">I", at - head + len(boxes))
    colour = content[head + 4 : at].replace(struct.pack(">I", 17), struct.pack(">I", 16))
    shown = decode_image(content[:head] + length + colour + boxes + content[at:])
    assert shown[:, :, 0].tolist() == [[10, 40], [40, 10], [40, 40]]

    deep = np.array([[0, 4095, 300]], np.uint16)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "JPEG2000")
    np.testing.assert_array_equal(read_stored(file.getvalue(), 100).values, deep)
