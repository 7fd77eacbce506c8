from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image

from ralis_backend.core import stored_images
from ralis_backend.core.images import (
    MAGENTA,
    ImageError,
    RangeUnknown,
    context_picture,
    crop_picture,
    crop_scale,
    decode_image,
    encode_jpeg,
    encode_png,
    mask_from_png,
    mask_to_png,
)
from ralis_backend.core.intensity import PixelRule
from ralis_backend.core.regions import Region
from ralis_backend.core.stored_images import file_facts, read_stored
from tests.core.tiff_files import write_tiff


def _file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _picture(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _png_header(height: int, width: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    return start + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"


def test_rgb_comes_back_as_written():
    np.testing.assert_array_equal(decode_image(encode_png(_picture())), _picture())


def test_jpeg_comes_back_nearly():
    smooth = np.tile(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], (1, 40, 3))
    decoded = decode_image(encode_jpeg(smooth)).astype(int)
    assert decoded.shape == smooth.shape
    assert np.abs(decoded - smooth).max() < 8


def test_grey_16_bit_keeps_the_high_byte():
    values = np.array([[0, 255, 256], [0x1234, 0xFF00, 0xFFFF]], np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = decode_image(_file(Image.fromarray(values), kind))
        np.testing.assert_array_equal(decoded[..., 0], values >> 8)
        assert decoded.shape == (2, 3, 3)


def test_transparency_is_shown_on_white():
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    decoded = decode_image(_file(Image.fromarray(rgba)))
    np.testing.assert_allclose(decoded[0], [[255, 0, 0], [255, 255, 255], [127, 127, 127]], atol=1)


def test_palette_grey_alpha_and_bilevel_become_rgb():
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert decode_image(_file(palette))[0, 0].tolist() == [10, 20, 30]
    assert decode_image(_file(palette, transparency=1))[0, 0].tolist() == [255, 255, 255]
    assert decode_image(_file(Image.new("LA", (3, 2), (9, 255))))[1, 2].tolist() == [9, 9, 9]
    assert decode_image(_file(Image.new("1", (3, 2), 1)))[0, 0].tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb():
    decoded = decode_image(_file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    np.testing.assert_allclose(decoded[4, 4], [255, 0, 0], atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    turn = Image.Transpose  # Pillow turns anticlockwise; 6 is shown turned clockwise by 90 degrees
    shown = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    stored = Image.fromarray(np.kron(_picture(2, 3), np.ones((16, 16, 1), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(_file(stored, exif=exif))
    expected = stored.transpose(shown[orientation]) if orientation > 1 else stored
    np.testing.assert_array_equal(decoded, np.asarray(expected))


def test_an_empty_file_is_named_empty():
    with pytest.raises(ImageError, match="0 bytes"):
        decode_image(b"")


def test_text_is_no_image():
    with pytest.raises(ImageError, match="no image of a known format"):
        decode_image(b"<html>not found</html>")


def test_a_format_that_runs_programs_is_no_image():
    with pytest.raises(ImageError, match="no image of a known format"):
        decode_image(_file(Image.new("RGB", (4, 4)), "EPS"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_a_truncated_file_is_refused_at_every_length(kind):
    content = _file(Image.fromarray(_picture(40, 50)), kind)
    for length in range(1, len(content) - 16, max(1, len(content) // 23)):
        with pytest.raises(ImageError):
            decode_image(content[:length])


def test_damaged_bytes_give_an_image_or_an_image_error():
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "TIFF", "GIF"):
        content = _file(Image.fromarray(_picture(20, 30)), kind)
        for _ in range(40):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 5):
                damaged[place] = rng.integers(256)
            try:
                decoded = decode_image(bytes(damaged), max_pixels=1_000_000)
            except ImageError:
                continue
            assert decoded.dtype == np.uint8
            assert decoded.shape[2] == 3


@pytest.mark.parametrize("size", [(15_000, 10_000), (60_000, 60_000)])
def test_a_pixel_bomb_is_refused_from_its_header(size):
    with pytest.raises(ImageError, match="pixels"):
        decode_image(_png_header(*size))


def test_the_pixel_limit_is_exact():
    content = encode_png(_picture(5, 7))
    assert decode_image(content, max_pixels=35).shape == (5, 7, 3)
    with pytest.raises(ImageError, match="7 x 5 pixels"):
        decode_image(content, max_pixels=34)


def test_floats_are_scaled_and_must_be_finite():
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert decode_image(_file(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    for bad in (np.nan, np.inf):
        values[0, 1] = bad
        with pytest.raises(ImageError, match="not finite"):
            decode_image(_file(Image.fromarray(values), "TIFF"))


def test_12_bits_in_16_are_readable(shared):
    content = (shared / "cases/images/grey12bit-in-16.png").read_bytes()
    decoded = decode_image(content)
    assert (decoded.min(), decoded.max()) == (0, 255)
    assert decoded.std() > 60
    np.testing.assert_array_equal(
        decode_image(content, rule=PixelRule(ranges={"integers": (0, 4095)})), decoded
    )
    with pytest.raises(RangeUnknown):
        decode_image(content, rule=PixelRule())


def test_the_first_three_of_four_bands_are_colours_and_the_fourth_no_transparency(shared):
    content = (shared / "cases/images/rgbnir8-4band.tif").read_bytes()
    np.testing.assert_allclose(decode_image(content).mean(axis=(0, 1)), [60, 90, 120])
    infrared = decode_image(content, rule=PixelRule((4, 1, 2)))
    np.testing.assert_allclose(infrared.mean(axis=(0, 1)), [127.03, 60, 90], atol=0.01)
    grey = decode_image(content, rule=PixelRule((3,)))
    np.testing.assert_allclose(grey.mean(axis=(0, 1)), [120, 120, 120])
    with pytest.raises(ImageError, match="4 bands; RALIS_BANDS asks for band 5"):
        decode_image(content, rule=PixelRule((5, 1, 2)))


@pytest.mark.parametrize("bands", [3, 4, 13])
@pytest.mark.parametrize("dtype", ["u2", "i2", "f4"])
def test_deep_pictures_of_many_bands_show_those_that_were_chosen(bands, dtype):
    values = np.zeros((6, 8, bands), dtype)
    values[..., :3] = [[[1000, 2000, 4095]]]
    values[0, 0] = 0
    rule = PixelRule((3, 2, 1), {"integers": (0, 4095), "floats": (0, 4095)})
    decoded = decode_image(write_tiff(values), rule=rule)
    shown = [255, 124, 62] if bands > 3 else [62, 124, 255]
    np.testing.assert_allclose(decoded[3, 3], shown, atol=1)
    assert decoded[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("extra", "is_white"), [((2,), True), ((0,), False), ((), False)])
def test_the_fourth_band_of_a_tiff_is_transparency_where_it_says_so(extra, is_white):
    values = np.zeros((4, 4, 4), np.uint8)
    values[..., :3] = 10
    decoded = decode_image(write_tiff(values, extra=extra))
    assert (decoded == (255 if is_white else 10)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pictures_are_turned_as_others_are(orientation):
    values = np.random.default_rng(3).integers(0, 256, (5, 7, 3)).astype(np.uint16) * 257
    eight = (values >> 8).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = decode_image(_file(Image.fromarray(eight), exif=exif))
    np.testing.assert_array_equal(
        decode_image(write_tiff(values, orientation=orientation)), expected
    )
    png = cv2.imencode(".png", values[..., ::-1])[1].tobytes()
    at = png.index(b"IDAT") - 4
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    np.testing.assert_array_equal(decode_image(png[:at] + chunk + png[at:]), expected)


def test_colours_of_16_bits_keep_their_range_and_their_transparency():
    values = np.zeros((4, 5, 4), np.uint16)
    values[..., :3] = [4095, 2048, 0]
    values[..., 3] = 65535
    values[0, 0, 3] = 0
    png = cv2.imencode(".png", values[..., [2, 1, 0, 3]])[1].tobytes()
    decoded = decode_image(png, rule=PixelRule(ranges={"integers": (0, 4095)}))
    assert decoded[2, 2].tolist() == [255, 128, 0]
    assert decoded[0, 0].tolist() == [255, 255, 255]


def test_the_bands_that_were_chosen_count_for_four_bands_of_any_format():
    rgba = np.zeros((3, 4, 4), np.uint8)
    rgba[:] = [10, 20, 30, 40]
    rule = PixelRule((4, 2, 1))
    assert decode_image(_file(Image.fromarray(rgba)), rule=rule)[0, 0].tolist() == [40, 20, 10]
    assert decode_image(_file(Image.fromarray(rgba[..., :3])), rule=rule)[0, 0].tolist() == [
        *(10, 20, 30)
    ]


def test_several_pages_are_refused():
    pages = [Image.new("L", (8, 6), shade) for shade in (1, 2, 3)]
    with pytest.raises(ImageError, match="3 pages, expected one"):
        decode_image(_file(pages[0], "TIFF", save_all=True, append_images=pages[1:]))


@pytest.mark.parametrize("kind", ["P1", "P2", "P3"])
def test_values_that_stand_as_text_are_not_read(kind):
    content = f"{kind} 8 8 255\n".encode() + b"#\n" * 1000 + b"1 " * 192
    with pytest.raises(ImageError, match=f"the {kind} file holds its values as text.*binary PPM"):
        decode_image(content)


def test_binary_files_of_the_same_family_are_read():
    assert decode_image(_file(Image.new("RGB", (8, 6), "red"), "PPM"))[0, 0].tolist() == [255, 0, 0]


def test_their_values_are_counted_in_whatever_stands_for_white():
    colours = decode_image(b"P6\n# a note\n2 1 15\n" + bytes([0, 5, 15, 3, 2, 1]))
    assert colours.tolist() == [[[0, 85, 255], [51, 34, 17]]]
    assert decode_image(b"P5 2 1 1\n\0\1")[0, :, 0].tolist() == [0, 255]

    deep = np.arange(12, dtype=np.uint16).reshape(2, 2, 3) * 400
    content = b"P6 2 2 4095\n" + deep.astype(">u2").tobytes()
    of_16_bits = np.minimum(np.rint(deep / 4095 * 65535), 65535)
    np.testing.assert_array_equal(read_stored(content, 4).values, of_16_bits)
    assert file_facts(content).bits == 16
    with pytest.raises(ImageError, match="truncated"):
        decode_image(content[:-1])
    with pytest.raises(ImageError, match="4 bands, expected 1 or 3"):
        decode_image(b"P0CMYK 1 1 15\n" + bytes(4))


@pytest.mark.parametrize("maxval", [1, 15, 100, 255, 256, 1023, 4095, 65534, 65535])
def test_a_range_that_was_measured_as_pillow_counts_holds_for_them(maxval):
    values = np.linspace(0, maxval, 300).astype(">u2" if maxval > 255 else "u1")
    content = b"P5 20 15 %d\n" % maxval + values.tobytes()
    with Image.open(io.BytesIO(content)) as image:
        counted = np.array(image)
    read = read_stored(content, 300).values
    assert (read.dtype == np.uint8) == (maxval < 256)
    np.testing.assert_array_equal(read if read.ndim == 2 else read[..., 0], counted)


@pytest.mark.parametrize("head", ["P5 2 %s1 255", "P5 2 1 255%s", "P5 2#\n1#\n2#\n%s 1 255"])
def test_a_header_of_the_same_family_is_read_no_further_than_a_header_goes(head):
    comment = "#" + "x" * 5000 + "\n"
    with pytest.raises(ImageError, match="header of the PPM file does not end within 4096 bytes"):
        decode_image((head % comment).encode() + b"\n\0\1")
    assert decode_image(b"P5 2 1\n#" + b"x" * 4000 + b"\n255\n\0\1")[0, :, 0].tolist() == [0, 1]


def _run_lengths(height: int, width: int) -> bytes:
    """A BMP file, each row of which is one pixel of the colour 1 and nothing more."""
    rows = b"\1\1\0\0" * height + b"\0\1"
    palette = bytes(4) + b"\xff" * 4
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 2, 0)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + palette + rows


def test_run_lengths_that_take_long_to_decode_are_refused(monkeypatch):
    assert decode_image(_run_lengths(20, 30))[:, :2, 0].tolist() == [[255, 0]] * 20
    monkeypatch.setattr(stored_images, "_MOST_RUN_LENGTHS", 599)
    with pytest.raises(ImageError, match=r"BMP file of 30 x 20 pixels.*compressed by run lengths"):
        decode_image(_run_lengths(20, 30))
    monkeypatch.setattr(stored_images, "_MOST_RUN_LENGTHS", 140)
    with pytest.raises(ImageError, match=r"compressed by run lengths.*save it as PNG"):
        decode_image(_run_lengths(20, 1))


def test_what_is_odd_in_a_picture_writes_no_warnings(recwarn):
    tags = b"".join(struct.pack("<HHII", 1000 + tag, 1, 500, 8) for tag in range(300))
    exif = b"II*\0" + struct.pack("<IH", 8, 300) + tags + bytes(4)
    content = _file(Image.new("RGB", (8, 6)), "PNG")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    content = content[:33] + chunk + content[33:]
    assert decode_image(content).shape == (6, 8, 3)
    assert file_facts(content).size == (6, 8)
    assert not recwarn.list


def test_a_deep_picture_beyond_the_limit_is_refused_before_it_is_decoded():
    content = write_tiff(np.zeros((60, 70, 3), np.float64))
    assert decode_image(content, max_pixels=60 * 70 * 3).shape == (60, 70, 3)
    with pytest.raises(ImageError, match="the limit is 8 times"):
        decode_image(content, max_pixels=60 * 70)
    with pytest.raises(ImageError, match="the limit is 60 pixels"):
        decode_image(content, max_pixels=60)


def test_damaged_deep_files_fail_as_images():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4096, (20, 30, 5)).astype(np.uint16)
    for content in (
        write_tiff(values, compression=8, predictor=2, tile=16),
        write_tiff(values, planar=True),
        cv2.imencode(".png", values[..., :3])[1].tobytes(),
    ):
        for _ in range(60):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 5):
                damaged[place] = rng.integers(256)
            with suppress(ImageError):
                assert decode_image(bytes(damaged), max_pixels=1_000_000).dtype == np.uint8
        for length in range(1, len(content) - 16, len(content) // 11):
            with pytest.raises(ImageError):
                decode_image(content[:length])


def test_facts_are_told_from_the_header():
    assert (
        str(file_facts(_file(Image.new("RGB", (8, 6))))) == "8 x 6 pixels, 3 bands of 8 bits, PNG"
    )
    deep = file_facts(write_tiff(np.zeros((6, 8, 13), np.uint16), orientation=6))
    assert (deep.size, deep.bands, deep.bits, deep.is_shown) == ((8, 6), 13, 16, False)
    sixteen = cv2.imencode(".png", np.zeros((6, 8, 3), np.uint16))[1].tobytes()
    assert (file_facts(sixteen).bits, file_facts(sixteen).is_plain) == (16, False)


def test_masks_survive_the_round_trip_at_odd_sizes():
    mask = np.random.default_rng(1).choice(np.array([0, 1, 18, 255], np.uint8), (13, 29))
    np.testing.assert_array_equal(mask_from_png(mask_to_png(mask)), mask)


def test_masks_that_are_no_index_masks_are_refused():
    with pytest.raises(ImageError, match="mode is RGB"):
        mask_from_png(encode_png(_picture()))
    with pytest.raises(ImageError, match="expected uint8"):
        mask_to_png(np.zeros((2, 2), np.int64))
    with pytest.raises(ImageError, match="empty"):
        mask_from_png(b"")
    content = mask_to_png(_picture(40, 50)[..., 0])
    with pytest.raises(ImageError, match="truncated"):
        mask_from_png(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("region", "scale"),
    [((90, 80), 6), ((128, 128), 4), ((32, 32), 8), ((300, 200), 2), ((1000, 700), 1)],
)
def test_crops_are_enlarged_to_about_512_pixels(region, scale):
    assert crop_scale(Region(0, 0, *region)) == scale


def test_crop_picture_has_the_region_at_the_scale():
    image = np.zeros((20, 30, 3), np.uint8)
    image[5:9, 10:16] = 200
    crop = crop_picture(image, Region(5, 10, 4, 6), 3)
    assert crop.shape == (12, 18, 3)
    assert (crop == 200).all()


@pytest.mark.parametrize("size", [(360, 480), (2000, 3000), (100, 130), (900, 300)])
@pytest.mark.parametrize("corner", [(0, 0), (0.4, 0.6), (1, 1)])
def test_context_shows_the_box_twice_at_any_size_and_place(size, corner):
    image = np.random.default_rng(2).integers(0, 200, (*size, 3), np.uint8)
    region = Region(round(corner[0] * (size[0] - 24)), round(corner[1] * (size[1] - 20)), 24, 20)
    picture = context_picture(image, region)
    assert picture.dtype == np.uint8
    assert picture.shape[1] <= 640
    is_magenta = (picture == MAGENTA).all(axis=2)
    gap = np.flatnonzero((picture == 255).all(axis=(1, 2)))
    assert gap.size >= 8
    for half in (is_magenta[: gap[0]], is_magenta[gap[-1] + 1 :]):
        rows, cols = np.nonzero(half)
        frame = half[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
        assert min(frame.shape) >= 8
        for edge in (frame[:3], frame[-3:], frame[:, :3], frame[:, -3:]):
            assert edge.all()


@pytest.mark.parametrize(("size", "num_boxes"), [((60, 80), 1), ((120, 160), 2)])
def test_context_repeats_the_surroundings_only_where_the_image_is_much_larger(size, num_boxes):
    picture = context_picture(np.zeros((*size, 3), np.uint8), Region(20, 20, 24, 24))
    is_edge = (picture == MAGENTA).all(axis=2).sum(axis=1) > 100
    assert np.flatnonzero(np.diff(is_edge.astype(int)) == 1).size == 2 * num_boxes


def test_context_leaves_the_image_untouched():
    image = _picture(60, 80)
    before = image.copy()
    context_picture(image, Region(10, 10, 20, 20))
    np.testing.assert_array_equal(image, before)
