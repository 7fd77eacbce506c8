"""Image files from anywhere -> (H, W, 3) uint8 RGB, and the pictures that annotators are shown.

Nothing here fetches or writes: bytes in, arrays out, and back.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from ralis_backend.core.intensity import (
    Kind,
    PixelRule,
    kind_of,
    range_of,
    some_values,
    to_8_bits,
)
from ralis_backend.core.regions import Region
from ralis_backend.core.stored_images import (
    FORMATS,
    MAX_PIXELS,
    ImageError,
    StoredImage,
    open_image,
    read_stored,
)

__all__ = [
    "FORMATS",
    "ImageError",
    "RangeUnknown",
    "context_picture",
    "crop_picture",
    "crop_scale",
    "decode_image",
    "deep_values",
    "encode_jpeg",
    "encode_png",
    "mask_from_png",
    "mask_to_png",
]

MAGENTA = (255, 0, 255)
WHITE = (255, 255, 255)
CONTEXT_WIDTH = 640
CONTEXT_HEIGHT = 480
"""Each part of a context picture fits into this many pixels."""
LARGE_NEIGHBOURHOOD = 0.5
"""A neighbourhood that fills this share of the image shows nothing that the image does not."""


class RangeUnknown(ImageError):
    """The picture holds deep values of a kind whose range has not been measured yet.

    Attributes:
        kind: the kind of its values.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__(f"the range of the project's {kind} beyond 8 bits is not known yet")
        self.kind = kind


def decode_image(
    content: bytes, max_pixels: int = MAX_PIXELS, rule: PixelRule | None = None
) -> np.ndarray:
    """The image in a file's bytes, turned upright as browsers do.

    Values of more than 8 bits are brought to 8 by `rule`, without one by the picture's own range
    (`core/intensity`); of more than three bands those that the rule names count, or the first
    three; transparency is shown on white; of an animation the first frame counts.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        RangeUnknown: if `rule` does not say how such values are shown.
        ImageError: if the bytes are empty, truncated, corrupt or no image, if the header announces
            more than `max_pixels`, if there are several pages or too few bands, or if values are
            not finite.
    """
    stored = read_stored(content, max_pixels, rule.bands if rule else ())
    try:
        return _to_rgb(stored, rule)
    except MemoryError as error:
        raise ImageError(f"the image of {len(content)} bytes needs too much memory") from error


def deep_values(
    content: bytes, bands: tuple[int, ...] = (), max_pixels: int = MAX_PIXELS
) -> tuple[Kind, np.ndarray] | None:
    """Some of the values of a picture of more than 8 bits, and their kind; None for 8 bits.

    Raises:
        ImageError: as `decode_image`.
    """
    stored = read_stored(content, max_pixels, bands)
    if not stored.is_deep:
        return None
    return kind_of(stored.values.dtype), some_values(stored.values)


def encode_png(image: np.ndarray) -> bytes:
    """(H, W, 3) or (H, W) uint8 as PNG, written for speed rather than size."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 92) -> bytes:
    """(H, W, 3) uint8 RGB as JPEG without colour subsampling: a tenth of the PNG, and faster."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def mask_to_png(mask: np.ndarray) -> bytes:
    """(H, W) uint8 class indices as 8-bit grey PNG; `mask_from_png` gives them back exactly."""
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ImageError(f"the mask is {mask.dtype} {mask.shape}, expected uint8 (H, W)")
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def mask_from_png(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The (H, W) uint8 class indices of an 8-bit grey or palette PNG.

    Raises:
        ImageError: if the file is no such PNG or damaged.
    """
    if not content:
        raise ImageError("the mask file is empty (0 bytes)")
    try:
        with open_image(content, max_pixels, ("PNG",)) as image:
            if image.mode not in ("L", "P"):
                raise ImageError(
                    f"the mask's mode is {image.mode}, expected 8-bit grey or palette (one class "
                    "index per pixel); do not save masks as colours"
                )
            return np.array(image)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"the mask file is truncated or corrupt: {error}") from error


def crop_scale(region: Region) -> int:
    """The whole number (1 to 8) that brings a region's long side nearest to 512 pixels."""
    return min(8, max(1, round(512 / max(region.height, region.width))))


def crop_picture(image: np.ndarray, region: Region, scale: int) -> np.ndarray:
    """The region of (H, W, 3) `image` enlarged smoothly: (scale * h, scale * w, 3) uint8."""
    size = (region.width * scale, region.height * scale)
    return _resized(image[region.slices], size)


def context_picture(image: np.ndarray, region: Region) -> np.ndarray:
    """What an annotator sees beside a crop: where the region is, and what surrounds it.

    On top the whole image with the region's box; below it, where the image is large, the region
    with about one region's size around it, faded outside the region.

    Returns:
        (H, W, 3) uint8, at most 640 pixels wide.
    """
    parts = [_overview(image, region)]
    if _window_share(image, region) < LARGE_NEIGHBOURHOOD:
        parts.append(_neighbourhood(image, region))
    width = max(part.shape[1] for part in parts)
    gap = np.full((8, width, 3), 255, np.uint8)
    stacked = [row for part in parts for row in (gap, _centred(part, width))]
    return np.concatenate(stacked[1:])


def _to_rgb(stored: StoredImage, rule: PixelRule | None) -> np.ndarray:
    values = stored.values
    if stored.is_deep:
        kind = kind_of(values.dtype)
        if rule is None:
            limits = range_of([some_values(values)])
        elif kind in rule.ranges:
            limits = rule.ranges[kind]
        else:
            raise RangeUnknown(kind)
        values = to_8_bits(values, limits)
    if values.ndim == 2 or values.shape[2] == 1:
        values = np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    if stored.opacity is not None:
        share = stored.opacity[:, :, None].astype(np.float32)
        values = np.rint(values * share + 255 * (1 - share)).astype(np.uint8)
    return np.ascontiguousarray(values)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`size` is (width, height), as OpenCV wants it."""
    is_smaller = size[0] < image.shape[1]
    method = cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def _fitted(image: np.ndarray) -> tuple[np.ndarray, float]:
    height, width = image.shape[:2]
    factor = min(CONTEXT_WIDTH / width, CONTEXT_HEIGHT / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return _resized(image, size), factor


def _overview(image: np.ndarray, region: Region) -> np.ndarray:
    picture, factor = _fitted(image)
    _draw_box(picture, region, factor)
    return picture


def _window(region: Region) -> tuple[slice, slice]:
    """The region with its own size around it; it may reach beyond the image's end."""
    top, left = max(0, region.row - region.height), max(0, region.col - region.width)
    bottom, right = region.row + 2 * region.height, region.col + 2 * region.width
    return slice(top, bottom), slice(left, right)


def _window_share(image: np.ndarray, region: Region) -> float:
    height, width = image[_window(region)].shape[:2]
    return float(height * width / (image.shape[0] * image.shape[1]))


def _neighbourhood(image: np.ndarray, region: Region) -> np.ndarray:
    rows, cols = _window(region)
    inside = Region(region.row - rows.start, region.col - cols.start, region.height, region.width)
    window = image[rows, cols]
    # Faded to grey rather than darkened: the surroundings of a night scene stay readable.
    grey = cv2.cvtColor(window, cv2.COLOR_RGB2GRAY)
    dimmed = np.repeat((70 + 0.5 * grey).astype(np.uint8)[:, :, None], 3, axis=2)
    dimmed[inside.slices] = window[inside.slices]
    picture, factor = _fitted(dimmed)
    _draw_box(picture, inside, factor)
    return picture


def _draw_box(picture: np.ndarray, region: Region, factor: float) -> None:
    """A magenta frame with a white rim around the region, drawn at the picture's own size."""
    rows = _frame(region.row * factor, region.height * factor, picture.shape[0])
    cols = _frame(region.col * factor, region.width * factor, picture.shape[1])
    for inset, color in enumerate((WHITE, MAGENTA, MAGENTA, MAGENTA)):
        corner = (cols[0] + inset, rows[0] + inset)
        cv2.rectangle(picture, corner, (cols[1] - inset, rows[1] - inset), color)


def _frame(start: float, length: float, limit: int) -> tuple[int, int]:
    """First and last pixel of a frame 4 pixels thick around an interval, inside the picture.

    A tiny interval gets a frame with a hole of 8 pixels, so that it can be found.
    """
    grow = 4 + max(0.0, (8 - length) / 2)
    return max(0, round(start - grow)), min(limit - 1, round(start + length + grow) - 1)


def _centred(picture: np.ndarray, width: int) -> np.ndarray:
    missing = width - picture.shape[1]
    sides = (missing // 2, missing - missing // 2)
    return np.pad(picture, ((0, 0), sides, (0, 0)), constant_values=255)
