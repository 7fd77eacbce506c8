from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from itertools import product

import cv2
import numpy as np
import pytest
from PIL import Image

from ralis_backend.core import tiff
from ralis_backend.core.images import decode_image
from ralis_backend.core.stored_images import ImageError, file_facts, read_stored
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


def _pages(count: int, shared: int) -> bytes:
    """So many pages of 64 x 64 pixels, each with a tag that holds the same bytes of the file."""
    size = 2 + 3 * 12 + 4
    tags = [(256, 4, 1, 64), (257, 4, 1, 64), (700, 1, shared, 8 + count * size)]
    entries = struct.pack("<H", 3) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    nexts = [*range(8 + size, 8 + count * size, size), 0]
    directories = b"".join(entries + struct.pack("<I", place) for place in nexts)
    return b"II*\0" + struct.pack("<I", 8) + directories + bytes(shared)


def test_many_pages_take_no_more_memory_than_the_file():
    content = _pages(300, 300_000)
    tracemalloc.start()
    with pytest.raises(ImageError, match="300 pages"):
        decode_image(content)
    with pytest.raises(ImageError, match=r"^the TIFF file has 300 pages"):
        file_facts(content)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(content)
    tracemalloc.stop()


def test_directories_that_overlap_are_refused():
    entries = b"".join(struct.pack("<HHII", 256, 4, 1, 64) for _ in range(400))
    pages = b"".join(struct.pack("<HI", 0, 0) for _ in range(2))
    content = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 400) + entries
    content += struct.pack("<I", 10) + pages  # the second one begins within the first
    with pytest.raises(ValueError, match="overlap"):
        tiff.read_header(content)


def _at_one_place(width, height, piece, bands, bits) -> bytes:
    """A TIFF whose pieces (rows of strips, or height and width of tiles) are the same bytes."""
    rows, cols = piece if isinstance(piece, tuple) else (piece, width)
    count = -(-width // cols) * -(-height // rows)
    data = zlib.compress(bytes(rows * cols * bands * bits // 8))
    starts, lengths = (struct.pack("<I", value) * count for value in (8, len(data)))
    places, at = (324, 325) if isinstance(piece, tuple) else (273, 279), 8 + len(data)
    shape = {322: cols, 323: rows} if isinstance(piece, tuple) else {278: rows}
    tags = {256: width, 257: height, 258: bits, 259: 8, 262: 1, 277: bands, **shape}
    entries = [(tag, 4, 1, value) for tag, value in tags.items()]
    entries += [(places[0], 4, count, at), (places[1], 4, count, at + len(starts))]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = b"II*\0" + struct.pack("<I", at + len(starts) + len(lengths))
    return head + data + starts + lengths + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("width", "height", "piece", "bands", "bits"),
    [
        (24_000, 1, (60_000, 16), 1, 8),
        (24_000, 1, (60_000, 16), 1, 16),
        (1000, 1700, 1, 1000, 8),
    ],
)
def test_pieces_that_come_to_more_than_the_picture_are_not_decoded(
    width, height, piece, bands, bits, monkeypatch
):
    content = _at_one_place(width, height, piece, bands, bits)
    assert len(content) < 40_000
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(ImageError, match="bytes when decoded"):
        decode_image(content)


def test_pieces_may_share_their_bytes_where_that_is_little_work():
    assert decode_image(_at_one_place(70, 50, (16, 16), 1, 16)).shape == (50, 70, 3)
    assert decode_image(_at_one_place(70, 50, 1, 1, 8)).shape == (50, 70, 3)


def test_pieces_that_are_most_of_the_file_each_are_not_read():
    content = bytearray(_at_one_place(8, 20_000, 1, 1, 8)) + bytes(8000)
    at = content.rindex(struct.pack("<HHI", 279, 4, 20_000)) + 8
    lengths = struct.unpack_from("<I", content, at)[0]
    content[lengths : lengths + 80_000] = struct.pack("<I", 8000) * 20_000
    with pytest.raises(ImageError, match="20000 pieces of the TIFF file overlap"):
        decode_image(bytes(content))


def test_a_tag_with_more_values_than_any_picture_has_pieces_is_not_read():
    content = bytearray(write_tiff(np.zeros((4, 4, 1), np.uint8)))
    at = content.rindex(struct.pack("<HHI", 273, 4, 1)) + 4
    content[at : at + 4] = struct.pack("<I", 2_000_000)
    with pytest.raises(ImageError, match="more than 1000000 values"):
        decode_image(bytes(content))


def test_a_fax_is_refused_which_would_fill_the_log_where_it_is_damaged(capfd):
    file = io.BytesIO()
    noise = np.random.default_rng(0).random((200, 300)) < 0.5
    Image.fromarray(noise).save(file, "TIFF", compression="group4")
    content = bytearray(file.getvalue())
    start = Image.open(file).tag_v2[273][0]
    content[start + 10 : start + 500] = b"\xff" * 490
    with pytest.raises(ImageError, match=r"compressed as a fax \(4\), which is not read"):
        decode_image(bytes(content))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_bigtiff_is_read_in_either_byte_order(order):
    values = _values("u1", 3)
    mask = {254: [4], 330: [0]}
    content = write_tiff(values, order=order, big=True, compression=8)
    np.testing.assert_array_equal(decode_image(content), values)
    deep = _values("u2", 4)
    content = write_tiff(deep, order=order, big=True, tile=16)
    np.testing.assert_array_equal(read_stored(content, 1000).values, deep[..., :3])
    header = tiff.read_header(write_tiff(values, order=order, big=True, more=mask))
    assert (header.height, header.width) == (23, 17)
    page = next(tiff._pages(write_tiff(values, order=order, big=True, more=mask)))
    assert page.subfile == 4


def test_a_bigtiff_that_pillow_does_not_know_is_shown_on_white_or_refused():
    values = np.full((3, 2, 4), 0, np.uint8)
    values[:, 0, 3] = 255
    shown = decode_image(write_tiff(values, order=">", big=True, extra=(2,)))
    assert shown[0, :, 0].tolist() == [0, 255]
    with pytest.raises(ImageError, match="4 bands of 8 bits, in a form that is not read"):
        decode_image(write_tiff(values, order=">", big=True, more={262: [6]}))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("compression", [1, 8])
def test_pieces_that_a_sparse_file_leaves_out_are_zero(dtype, tile, compression):
    values = _values(dtype, 3)
    content = write_tiff(values, tile=tile, compression=compression, left_out=(1,))
    expected = values.copy()
    expected[(slice(0, 16), slice(16, 17)) if tile else slice(5, 10)] = 0
    np.testing.assert_array_equal(read_stored(content, 1000).values, expected)


def test_a_sparse_file_of_another_form_is_refused_and_so_is_a_piece_within_the_header():
    with pytest.raises(ImageError, match="in a form that is not read"):
        decode_image(write_tiff(_values("u1", 3), left_out=(0,), more={262: [6]}))
    lies = {273: [0], 279: [17 * 23], 278: [23]}
    with pytest.raises(ImageError, match="lies within its header"):
        decode_image(write_tiff(_values("u1", 1), more=lies))


@pytest.mark.parametrize(
    ("bands", "photometric", "extra"),
    [
        *[(1, photometric, ()) for photometric in (0, 1)],
        *product((2, 3, 4), (0, 1), ((), (0,), (1,), (2,))),
        *[(3, 2, ()), (4, 2, ()), (4, 2, (0,)), (4, 2, (1,)), (4, 2, (2,))],
    ],
)
def test_8_bits_are_shown_as_they_are_meant_however_they_are_stored(bands, photometric, extra):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (7, 9, bands), np.uint8)
    has_alpha = extra in ((1,), (2,))
    num_colours = 1 if bands - has_alpha < 3 else 3
    if extra == (1,):
        values[..., :-1] = np.minimum(values[..., :-1], values[..., -1:])
    colours = values[..., :num_colours].astype(float)
    share = values[..., -1:] / 255 if has_alpha else np.ones((7, 9, 1))
    shown = 255 * share - colours if extra == (1,) and photometric == 0 else colours
    shown = 255 - colours if photometric == 0 and extra != (1,) else shown
    shown = (shown if extra == (1,) else shown * share) + 255 * (1 - share)
    for planar in (False, True):
        for compression in (1, 8):
            content = write_tiff(
                values,
                planar=planar,
                compression=compression,
                extra=extra,
                more={262: [photometric]},
            )
            np.testing.assert_allclose(
                decode_image(content), np.broadcast_to(shown, (7, 9, 3)), rtol=0, atol=3
            )


@pytest.mark.parametrize(
    ("bands", "tags", "expected"),
    [
        (2, {259: [7]}, "2 bands of 8 bits, compressed as 7, in a form"),
        (1, {258: [1], 262: [0]}, "1 bands of 1 bits, in a form"),
    ],
)
def test_planes_that_pillow_shows_as_something_else_are_refused(bands, tags, expected):
    with pytest.raises(ImageError, match=expected):
        decode_image(write_tiff(_values("u1", bands), planar=True, extra=(2,), more=tags))


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_bits_that_are_stored_from_the_lowest_on_are_turned(bands):
    values = _values("u1", bands)
    turned = np.packbits(np.unpackbits(values[..., None], axis=-1)[..., ::-1], axis=-1)[..., 0]
    read = read_stored(write_tiff(turned, more={266: [2]}), 1000).values
    np.testing.assert_array_equal(read[..., 0], values[..., 0])


def test_pieces_that_are_decoded_one_by_one_are_not_too_many(monkeypatch):
    monkeypatch.setattr(tiff, "_MOST_ALONE", 2)
    strips = write_tiff(_values("u2", 3), left_out=(1,))
    assert read_stored(strips, 1000).values.shape == (23, 17, 3)
    for sparse in (
        write_tiff(_values("u2", 3), left_out=(1, 3)),
        write_tiff(_values("u2", 3), tile=16, left_out=(1,)),
    ):
        with pytest.raises(ImageError, match=r"into [45] pieces, 3 of which lie alone and at most"):
            read_stored(sparse, 1000)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({259: [34887]}, "2 bands of 8 bits, compressed as LERC,"),
        ({259: [50001]}, "compressed as WebP"),
        ({258: [64, 64]}, "2 bands of 64 bits, in a form"),
    ],
)
def test_a_form_that_pillow_does_not_know_is_named_with_what_to_do(tags, expected):
    with pytest.raises(ImageError, match=f"{expected}.*LZW or deflate: write it so"):
        decode_image(write_tiff(_values("u1", 2), more=tags))


def test_floats_as_opencv_writes_them_are_named_logluv():
    done, content = cv2.imencode(".tif", np.ones((4, 5, 3), np.float32))
    assert done
    with pytest.raises(ImageError, match="LogLuv, which OpenCV writes"):
        decode_image(content.tobytes())
