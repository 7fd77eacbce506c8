"""Label Studio's bitmasks: a PNG as data URL, painted where it is not transparent <-> 8-bit alpha.

A PNG of a few kilobytes can be gigabytes large: its size is read from its first bytes, for the
caller to judge, before anything is unpacked.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

CHANNELS = 4
"""What a pixel takes while it is unpacked."""
_PREFIX = "data:image/png;base64,"
_SIGNATURE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_HEAD_CHARACTERS = 48
"""Of base64, for the signature and the picture's width and height."""

Alpha = npt.NDArray[np.uint8]


class BitmaskError(ValueError):
    """A bitmask is not a PNG that Label Studio could have written."""


def encode(painted: npt.NDArray[np.bool_]) -> str:
    """(H, W) bool, painted or not -> black pixels of a PNG with one bit for each."""
    picture = Image.fromarray(painted.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 0, 0, 0])
    content = io.BytesIO()
    picture.save(content, "PNG", bits=1, transparency=0)
    return _PREFIX + base64.b64encode(content.getvalue()).decode()


def picture_size(url: Any) -> tuple[int, int]:
    """(height, width) of a bitmask's picture, of which nothing is unpacked.

    Raises:
        BitmaskError: if it is no PNG as data URL.
    """
    if not isinstance(url, str):
        raise BitmaskError(f"the bitmask is a {type(url).__name__}, expected a data URL")
    if not url.startswith(_PREFIX):
        raise BitmaskError(
            f"the bitmask begins with {url[:30]!r}, expected a PNG as data URL, {_PREFIX}"
        )
    start = len(_PREFIX)
    head = _bytes(url[start : start + _HEAD_CHARACTERS])
    if not head.startswith(_SIGNATURE) or len(head) < len(_SIGNATURE) + 8:
        raise BitmaskError("the bitmask's data URL holds no PNG")
    width, height = (int.from_bytes(head[at : at + 4]) for at in (16, 20))
    return height, width


def decode(url: str) -> Alpha:
    """The alpha of a bitmask, (H, W) uint8; H and W are what `picture_size` says.

    Raises:
        BitmaskError: if it is damaged.
    """
    size = picture_size(url)
    content = _bytes(url[len(_PREFIX) :])
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            alpha = np.array(picture.convert("RGBA").getchannel("A"))
    except Exception as error:  # the decoder has no error of its own for what is damaged
        raise BitmaskError(f"the bitmask's PNG cannot be read: {str(error)[:100]}") from None
    if alpha.shape != size:
        raise BitmaskError("the bitmask's PNG has another size than it says")
    return alpha


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise BitmaskError(f"the bitmask's data URL is no base64: {error}") from None
