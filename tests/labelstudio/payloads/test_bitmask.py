from __future__ import annotations

import base64
import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.payloads.bitmask import BitmaskError, decode, encode, picture_size
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.labelstudio.payloads.paint import read_paint
from tests.labelstudio.payloads.reading import results_to_mask

CONFIG = parse_label_config(
    '<View><Image name="image" value="$image"/><BitmaskLabels name="tag" toName="image">'
    '<Label value="A"/><Label value="B"/></BitmaskLabels></View>'
)


def _url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _png(pixels: np.ndarray, mode: str) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels, mode).save(content, "PNG")
    return _url(content.getvalue())


def _bomb(height: int, width: int) -> str:
    """A PNG of a few kilobytes that says it is so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    data = zlib.compress(bytes(5_000_000), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return _url(png)


def _result(url: Any, label: str = "A", **fields: Any) -> dict[str, Any]:
    return {
        "id": "m1",
        "type": "bitmasklabels",
        "from_name": "tag",
        "original_width": 2,
        "original_height": 1,
        "value": {"imageDataURL": url, "bitmasklabels": [label]},
        **fields,
    }


@settings(deadline=None, max_examples=30)
@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_bit_by_bit(size, seed):
    painted = np.random.default_rng(seed).random(size) < 0.5
    url = encode(painted)
    assert picture_size(url) == size
    np.testing.assert_array_equal(decode(url), np.where(painted, 255, 0))


def test_what_the_browser_writes_is_read_by_its_alpha():
    pixels = np.array(
        [[[0, 0, 0, 255], [0, 0, 0, 127]], [[255, 0, 0, 128], [9, 9, 9, 0]]], np.uint8
    )
    result = _result(_png(pixels, "RGBA"), original_width=2, original_height=2)
    np.testing.assert_array_equal(
        results_to_mask([result], ["A", "B"], (2, 2)), [[0, VOID], [0, VOID]]
    )


@pytest.mark.parametrize("scale", [1, 3])
def test_a_region_s_mask_comes_back_from_its_enlarged_picture(scale):
    mask = np.random.default_rng(0).choice([0, 1, VOID], (13, 17)).astype(np.uint8)
    results = mask_to_results(mask, ["A", "B"], CONFIG, key="k", scale=scale)
    assert [it["type"] for it in results] == ["bitmasklabels"] * 2
    assert [it["value"]["bitmasklabels"] for it in results] == [["A"], ["B"]]
    np.testing.assert_array_equal(results_to_mask(results, ["A", "B"], mask.shape), mask)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "imageDataURL None"),
        ("", "imageDataURL ''"),
        (5, "a int, expected a data URL"),
        (["data:"], "a list, expected a data URL"),
        ("http://example.com/a.png", "begins with 'http://example.com/a.png'"),
        (_url(b"GIF89a", "gif"), "begins with 'data:image/gif"),
        ("data:image/png;base64,****", "no base64"),
        (_url(b"\x89PNG"), "holds no PNG"),
        (_url(b"<svg>" * 20), "holds no PNG"),
        (encode(np.ones((1, 2), bool))[:-30] + "=" * 2, "the bitmask's"),
        (encode(np.ones((9, 2), bool)), "2 x 9 pixels, expected the proportions of 2 x 1"),
        (_bomb(1, 2**31 - 1), "at most 100000000 are read"),
        (_bomb(0, 2), "original_height 0"),
    ],
)
def test_a_bitmask_that_cannot_be_read_is_named_and_the_others_count(url, message):
    good = _result(encode(np.array([[True, False]])), "B")
    painted = read_paint([good, _result(url)], ["A", "B"], (1, 2))
    (text,) = painted.left_out
    assert "'m1'" in text
    assert message in text
    np.testing.assert_array_equal(painted.mask, [[1, VOID]])


@pytest.mark.parametrize("size", [(60_000, 60_000), (9_000, 9_000)])
def test_a_picture_that_is_far_too_large_is_refused_before_it_is_unpacked(size):
    url = _bomb(*size)
    result = _result(url, original_width=128, original_height=128)
    tracemalloc.start()
    painted = read_paint([result], ["A", "B"], (128, 128))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(painted.left_out) == 1
    assert peak < 2_000_000


def test_a_picture_that_holds_less_than_it_says_is_damaged():
    with pytest.raises(BitmaskError, match="cannot be read"):
        decode(_bomb(3000, 3000))
