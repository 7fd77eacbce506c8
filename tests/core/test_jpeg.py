import io
import struct

import numpy as np
import pytest
from PIL import Image

from ralis_backend.core.images import decode_image
from ralis_backend.core.jpeg import MAX_SCANS, JpegError, check_scans
from ralis_backend.core.stored_images import ImageError


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_scans(count: int) -> bytes:
    """A grey progressive picture of 8 x 8 pixels, one scan for its mean, the others empty."""
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, b"\0" + bytes([1] * 64)),
            segment(0xC2, struct.pack(">BHHB", 8, 8, 8, 1) + bytes([1, 0x11, 0])),
            segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00"),
            segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\x00"),
            segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + b"\x7f",
            (segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x7f") * (count - 1),
            b"\xff\xd9",
        ]
    )


def jpeg(**options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", **options)
    return file.getvalue()


def test_a_picture_with_more_scans_than_any_encoder_writes_is_refused():
    assert decode_image(with_scans(MAX_SCANS)).shape == (8, 8, 3)
    with pytest.raises(ImageError, match=rf"more than {MAX_SCANS} scans.*save it again"):
        decode_image(with_scans(MAX_SCANS + 1))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"progressive": True, "restart_marker_blocks": 1},
        {"quality": 100},
    ],
)
def test_pictures_as_encoders_write_them_have_few_scans(options):
    check_scans(jpeg(**options))


def test_what_stands_in_a_thumbnail_or_behind_the_picture_is_no_scan_of_it():
    scans = b"\xff\xda\x00\x02" * (MAX_SCANS + 1)
    content = jpeg()
    check_scans(content[:2] + segment(0xE1, scans) + content[2:] + scans)


def test_scans_are_found_wherever_the_decoder_looks_for_them():
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x7f"
    for between in (b"", b"\xff\xff\xff", b"\xff\x00", b"\xff\xd0", b"\xff\x02\xff\xff"):
        with pytest.raises(JpegError):
            check_scans(with_scans(2)[:-2] + (between + scan) * 3 * MAX_SCANS)


def test_only_so_many_segments_are_followed():
    with pytest.raises(JpegError, match="segments"):
        check_scans(b"\xff\xd8" + segment(0xFE, b"") * 20_000)
