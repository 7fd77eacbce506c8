"""Class colours: `#RRGGBB` <-> RGB, and index masks as PNG files that viewers show in colour."""

from __future__ import annotations

import colorsys
import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ralis_backend.core.regions import VOID

Rgb = tuple[int, int, int]

_HEX = re.compile(r"#[0-9a-fA-F]{6}")


def rgb(color: str) -> Rgb:
    """`#RRGGBB` as (red, green, blue), each 0 to 255; `ValueError` if it is none."""
    if not _HEX.fullmatch(color):
        raise ValueError(f"colour {color!r} is not of the form #RRGGBB")
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def hexadecimal(color: Sequence[int]) -> str:
    """(red, green, blue) as `#RRGGBB`."""
    red, green, blue = color
    return f"#{red:02X}{green:02X}{blue:02X}"


def distinct_color(index: int) -> Rgb:
    """A colour for class `index` that differs from those of its neighbours."""
    hue = (index * 0.618034) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 - 0.25 * (index % 2), 0.9 - 0.2 * (index % 3))
    return round(red * 255), round(green * 255), round(blue * 255)


def palette_png(mask: np.ndarray, colors: Sequence[Rgb]) -> bytes:
    """(H, W) uint8 class indices as an 8-bit palette PNG; VOID is shown black.

    The pixel values are the indices: `core.images.mask_from_png` gives them back exactly.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = np.asarray(colors, np.uint8).reshape(-1, 3)
    table[VOID] = 0
    image = Image.fromarray(mask)
    image.putpalette(table.tobytes())  # an L image becomes a P image, values untouched
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
