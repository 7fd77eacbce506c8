from __future__ import annotations

import tracemalloc
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from PIL import Image

from ralis_backend.labelstudio.payloads import brush_rle as module
from ralis_backend.labelstudio.payloads.brush_rle import RleError, decode, encode

SIZE_CLASSES = (3, 4, 8, 16)


def _bits(number: int, width: int) -> str:
    return format(number, f"0{width}b")


def _bytes(bits: str) -> list[int]:
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def _header(count: int, word_size: int = 8, sizes: tuple[int, ...] = SIZE_CLASSES) -> str:
    return _bits(count, 32) + _bits(word_size - 1, 5) + "".join(_bits(it - 1, 4) for it in sizes)


def _run(length: int, value: int, size_class: int = 3) -> str:
    """A run in the size classes that Label Studio writes."""
    return (
        "1" + _bits(size_class, 2) + _bits(length - 1, SIZE_CLASSES[size_class]) + _bits(value, 8)
    )


def _reference(
    values: list[int], word_size: int, sizes: tuple[int, ...], rng: np.random.Generator
) -> list[int]:
    """A slow, obvious encoder that chops runs and literals wherever it likes."""
    bits = _header(len(values), word_size, sizes)
    begin = 0
    while begin < len(values):
        size_class = int(rng.integers(4))
        longest = min(2 ** sizes[size_class], len(values) - begin)
        if rng.random() < 0.5:
            same = len(list(next(group for _, group in groupby(values[begin:]))))
            length = int(rng.integers(1, min(longest, same) + 1))
            words = values[begin : begin + 1]
        else:
            length = int(rng.integers(1, min(longest, 50) + 1))
            words = values[begin : begin + length]
        bits += "1" if len(words) == 1 and length > 1 else "0"
        bits += _bits(size_class, 2) + _bits(length - 1, sizes[size_class])
        bits += "".join(_bits(word, word_size) for word in words)
        begin += length
    return _bytes(bits)


def _sdk_alpha(rle: list[int], height: int, width: int) -> np.ndarray:
    return decode_rle(rle).reshape(height, width, 4)[:, :, 3]


def _binary(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((height, width)) < rng.random(), 255, 0).astype(np.uint8)


def _anti_aliased(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 0, 0, 1, 127, 128, 255, 255], np.uint8), (height, width))


sizes = st.tuples(st.integers(1, 33), st.integers(1, 45))
seeds = st.integers(0, 2**32 - 1)


def test_one_painted_pixel_is_a_header_and_one_run_of_four():
    count, word_size, size_classes = "0" * 29 + "100", "00111", "0010001101111111"
    run_of_four = "1" + "00" + "011" + "11111111"
    expected = _bytes(count + word_size + size_classes + run_of_four)
    assert encode(np.array([[255]], np.uint8)) == expected
    np.testing.assert_array_equal(decode(expected, 1, 1), [[255]])


def test_runs_are_read_row_by_row():
    rle = _bytes(_header(24) + _run(8, 0, 0) + _run(12, 255, 1) + _run(4, 0, 0))
    np.testing.assert_array_equal(decode(rle, 2, 3), [[0, 0, 255], [255, 255, 0]])


def test_only_the_fourth_channel_counts():
    pixels = [(255, 0, 0, 0), (9, 8, 7, 200), (255, 255, 255, 0), (0, 0, 0, 255)]
    values = [value for pixel in pixels for value in pixel]
    literal = "0" + "10" + _bits(len(values) - 1, 8) + "".join(_bits(it, 8) for it in values)
    np.testing.assert_array_equal(decode(_bytes(_header(16) + literal), 2, 2), [[0, 200], [0, 255]])


def test_a_last_run_may_say_more_than_there_is_room_for():
    rle = _bytes(_header(8) + _run(60_000, 255))
    np.testing.assert_array_equal(decode(rle, 1, 2), [[255, 255]])
    np.testing.assert_array_equal(_sdk_alpha(rle, 1, 2), [[255, 255]])


def test_a_list_a_tuple_and_bytes_are_read_alike():
    mask = _anti_aliased(0, 4, 6)
    for kind in (list, tuple, bytes):
        np.testing.assert_array_equal(decode(kind(encode(mask)), 4, 6), mask)


@settings(deadline=None, max_examples=25)
@given(size=sizes, seed=seeds)
def test_streams_are_the_converters_byte_for_byte(size, seed):
    for mask in (_binary(seed, *size), _anti_aliased(seed, *size)):
        rle = encode(mask)
        assert rle == mask2rle(mask)
        np.testing.assert_array_equal(decode(rle, *size), mask)
        np.testing.assert_array_equal(_sdk_alpha(rle, *size), mask)


@pytest.mark.parametrize("pixels", [1, 2, 4, 5, 64, 65, 2**14, 2**14 + 1, 2**15, 3 * 2**14 + 7])
def test_runs_at_the_bounds_of_the_size_classes_are_the_converters(pixels):
    for value in (0, 255):
        mask = np.full((1, pixels), value, np.uint8)
        assert encode(mask) == mask2rle(mask)
        np.testing.assert_array_equal(decode(encode(mask), 1, pixels), mask)


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 11)),
    seed=seeds,
    word_size=st.sampled_from([8, 9, 12, 16, 32]),
    size_classes=st.tuples(*[st.integers(1, 16)] * 4),
)
def test_any_word_size_and_size_classes_are_read(size, seed, word_size, size_classes):
    rng = np.random.default_rng(seed)
    values = rng.choice([0, 0, 255, 255, 3, 129], (*size, 4)).astype(np.uint8)
    values = np.repeat(values, 2, axis=1)[:, : size[1]]
    rle = _reference(values.ravel().tolist(), word_size, size_classes, rng)
    np.testing.assert_array_equal(decode(rle, *size), values[..., 3])
    np.testing.assert_array_equal(_sdk_alpha(rle, *size), values[..., 3])


@settings(deadline=None, max_examples=50)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 11)),
    seed=seeds,
    word_size=st.sampled_from([8, 9, 32]),
    part_bytes=st.integers(1, 40),
)
def test_a_stream_is_read_alike_in_parts_of_any_length(size, seed, word_size, part_bytes):
    rng = np.random.default_rng(seed)
    values = rng.choice([0, 0, 255, 255, 3, 129], (*size, 4)).astype(np.uint8)
    rle = _reference(values.ravel().tolist(), word_size, SIZE_CLASSES, rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART_BYTES", part_bytes)
        np.testing.assert_array_equal(decode(rle, *size), values[..., 3])
        if len(rle) > 8:
            with pytest.raises(RleError, match="cut off"):
                decode(rle[:-2], *size)


def _densest(num_pixels: int) -> bytes:
    """Runs of one value of one bit each: five bits of stream for a value."""
    bits = _header(num_pixels * 4, 1, (1, 1, 1, 1)) + "10001" * (num_pixels * 4)
    return int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8))


def test_a_dense_stream_takes_no_more_memory_than_a_part_of_it_and_the_mask(monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 1000)
    rle = _densest(100 * 100)
    tracemalloc.start()
    mask = decode(rle, 100, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (mask == 1).all()
    assert peak < 20 * len(rle) + 300_000  # unpacked at once, it takes 150 times its length


def test_a_stream_longer_than_its_mask_can_need_is_refused_before_it_is_unpacked():
    rle = _densest(200 * 200)
    tracemalloc.start()
    with pytest.raises(RleError, match=r"expected .* at most"):
        decode(rle, 40, 40)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_word_size_of_one_bit_is_read():
    values = [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1]
    rle = _reference(values, 1, (2, 3, 4, 5), np.random.default_rng(1))
    np.testing.assert_array_equal(decode(rle, 3, 1), [[1], [0], [1]])


def test_masks_of_real_images_are_the_converters_byte_for_byte(shared: Path):
    for file in sorted((shared / "data/camvid/masks").rglob("*.png"))[:2]:
        classes = np.array(Image.open(file))
        for index in np.unique(classes)[:4]:
            mask = np.where(classes == index, 255, 0).astype(np.uint8)
            rle = encode(mask)
            assert rle == mask2rle(mask)
            np.testing.assert_array_equal(decode(rle, *mask.shape), mask)
            np.testing.assert_array_equal(_sdk_alpha(rle, *mask.shape), mask)


@settings(deadline=None, max_examples=25)
@given(size=sizes, seed=seeds, share=st.floats(0, 1, exclude_max=True))
def test_a_stream_cut_off_anywhere_is_refused(size, seed, share):
    rle = encode(_anti_aliased(seed, *size))
    # The converter's last byte may hold nothing but padding: cut off at least one byte more.
    with pytest.raises(RleError, match=r"cut off|at least 7"):
        decode(rle[: int(share * (len(rle) - 1))], *size)


@settings(deadline=None, max_examples=50)
@given(content=st.binary(max_size=60), size=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_noise_after_the_count_is_read_or_refused_but_never_crashes(content, size):
    rle = (size[0] * size[1] * 4).to_bytes(4) + content
    with suppress(RleError):
        assert decode(rle, *size).shape == size


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([], "0 bytes"),
        ([0, 0, 0, 4, 57, 27], "6 bytes"),
        (None, "NoneType"),
        ("AAAA", "str"),
        ({"0": 1}, "dict"),
        (7, "int"),
        ([256] * 20, "0 to 255"),
        ([-1] * 20, "0 to 255"),
        ([10**30] * 20, "0 to 255"),
        ([1.0] * 20, "0 to 255"),
        (["1"] * 20, "0 to 255"),
        ([None] * 20, "0 to 255"),
    ],
)
def test_what_is_no_list_of_bytes_is_refused(rle, message):
    with pytest.raises(RleError, match=message):
        decode(rle, 1, 1)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(RleError, match="48 values, expected 60"):
        decode(encode(np.zeros((3, 4), np.uint8)), 3, 5)


def test_a_short_stream_cannot_ask_for_gigabytes():
    with pytest.raises(RleError, match="4294967295 values"):
        decode([255] * 8, 10, 10)


def test_a_short_stream_of_an_announced_huge_mask_is_refused_before_it_is_made():
    side = 30_000  # 3.6 GB of values, were they made
    with pytest.raises(RleError, match="cut off"):
        decode(_bytes(_header(side * side * 4) + _run(65_536, 255) * 3), side, side)


def test_a_literal_longer_than_the_count_is_refused():
    literal = "0" + "00" + _bits(7, 3) + _bits(255, 8) * 8
    with pytest.raises(RleError, match="more values than the 4"):
        decode(_bytes(_header(4) + literal), 1, 1)


def test_a_value_beyond_a_byte_is_refused():
    run = "1" + "00" + "011" + _bits(256, 12)
    with pytest.raises(RleError, match="value 256"):
        decode(_bytes(_header(4, word_size=12) + run), 1, 1)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (-2, -2)])
def test_a_mask_without_pixels_cannot_be_asked_for(size):
    with pytest.raises(ValueError, match="at least 1 x 1"):
        decode([0] * 8, *size)


@pytest.mark.parametrize(
    "alpha",
    [np.zeros((2, 3), bool), np.zeros((2, 3, 4), np.uint8), np.zeros((0, 3), np.uint8)],
    ids=["bool", "rgba", "empty"],
)
def test_only_uint8_masks_with_pixels_are_written(alpha):
    with pytest.raises(ValueError, match="expected \\(H, W\\) uint8"):
        encode(alpha)


ON_A_TURNED_PICTURE = bytes.fromhex(
    "00009600391bff0bcb008ca2312e03a60119447ff1f2c603c073c023529ffe310e039e011a94fff188701cf0"
    "08d4a7ff8c4380e78046a53ffc621c073c023529ffe310e039e011a94fff188701cf008d4a7ff8c4380e7804"
    "6a53ffc621c073c023529ffe310e039e011a94fff188701cf008d4a7ff8c4380e78046a53ffc621c073c0235"
    "29ffe310e039e011a94fff188701cf008d4a7ff8c4380e78046a53ffc621c073c023529ffe310e039e011a94"
    "fff188701cf008d4a7ff8c4380e78046a53ffc621c073c023529ffe310e039e011a94fff188701cf008d4a7f"
    "f8c4380e78046a53ffc621c073c023288ffe3e68c07acb3800"
)
"""A stroke of Label Studio 1.23.2 on a picture of 120 x 80 pixels (width x height) that was turned
clockwise on the screen, `image_rotation` 90: painted there at 0.3 of the height, from 0.6 to 0.9 of
the width."""


def test_a_stroke_on_a_turned_picture_lies_in_the_picture_as_it_is():
    rows, cols = np.nonzero(decode(list(ON_A_TURNED_PICTURE), 80, 120) >= 128)
    assert (cols.min(), cols.max()) == (35, 36)  # 0.3 of 120
    assert (rows.min(), rows.max()) == (7, 32)  # from 0.1 to 0.4 of 80
