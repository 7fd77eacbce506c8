"""What somebody painted, a brush stroke, a polygon or a bitmask -> the pixels that it covers.

A stroke tells what it costs before it is painted: a few kilobytes can cover a hundred million
pixels, and there may be a hundred thousand of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import cv2
import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads import bitmask
from ralis_backend.labelstudio.payloads.brush_rle import RleError, decode
from ralis_backend.labelstudio.payloads.results import (
    MAX_PIXELS,
    AnnotationError,
    NothingDrawn,
    Result,
    name_of,
    number_of,
    picture_size,
    refuse_other_picture,
    shown,
    value_of,
)

THRESHOLD = 128
"""Painted masks are anti-aliased: a pixel belongs to the stroke from this alpha on."""
MAX_POINTS = 100_000

LAYERS = 1000
"""An annotation may paint its whole image so many times over; strokes that are smaller than the
image count for what they cover."""
MAX_COST = 4_000_000_000
_SMALL_IMAGE = 2**20
_COST_OF_A_STROKE, _COST_OF_A_BYTE = 50_000, 64
_COST_OF_A_POINT, _COST_OF_A_CROSSING = 1000, 20

Pixels = tuple[tuple[slice, slice], np.ndarray]
"""A window of the image's rows and columns, and in it, bool, what is covered."""


class Stroke(Protocol):
    """What one result paints."""

    @property
    def cost(self) -> int:
        """About how many pixels are touched to paint it."""

    def pixels(self) -> Pixels:
        """What it covers; `AnnotationError` if it cannot be read."""


def read_stroke(result: Result, size: tuple[int, int]) -> Stroke:
    """The stroke of a result on an image of (height, width) `size`, unpainted.

    The image may have been turned on the screen: that turns the view, and nothing of the stroke.

    Raises:
        AnnotationError: if it is malformed, or was made on a picture that cannot be one of this
            image.
    """
    return STROKES[result["type"]](result, size)


def most_cost(size: tuple[int, int]) -> int:
    """What all strokes of an annotation may cost together."""
    return min(MAX_COST, LAYERS * max(size[0] * size[1], _SMALL_IMAGE))


@dataclass(frozen=True)
class Brush:
    """A run-length coded mask of the picture, (height, width) `picture`, brought to `size`."""

    result: Result
    rle: Any
    picture: tuple[int, int]
    size: tuple[int, int]

    @property
    def cost(self) -> int:
        """The picture's pixels, and what it takes to unpack them."""
        num_bytes = len(self.rle) if isinstance(self.rle, (list, tuple, bytes)) else 0
        height, width = self.picture
        return _COST_OF_A_STROKE + height * width + _COST_OF_A_BYTE * num_bytes

    def pixels(self) -> Pixels:
        """The whole image; a picture that was shown enlarged is averaged."""
        try:
            alpha = decode(self.rle, *self.picture)
        except RleError as error:
            raise AnnotationError(f"result {name_of(self.result)}: {error}") from None
        return _covered(alpha, self.size)


@dataclass(frozen=True)
class Bitmask:
    """A PNG of the picture, (height, width) `picture`, whose alpha is the mask."""

    result: Result
    url: str
    picture: tuple[int, int]
    size: tuple[int, int]

    @property
    def cost(self) -> int:
        """The picture's pixels, four channels each."""
        height, width = self.picture
        return _COST_OF_A_STROKE + bitmask.CHANNELS * height * width

    def pixels(self) -> Pixels:
        """The whole image; a picture that was shown enlarged is averaged."""
        try:
            alpha = bitmask.decode(self.url)
        except bitmask.BitmaskError as error:
            raise AnnotationError(f"result {name_of(self.result)}: {error}") from None
        return _covered(alpha, self.size)


@dataclass(frozen=True)
class Polygon:
    """A closed outline; `corners` (N, 2) x, y in pixels, pixel edges at whole numbers.

    Covered are the pixels whose centres lie where the outline winds around, as the browser fills
    it: polygons that share an edge neither overlap nor leave a gap. OpenCV's fillPoly would also
    fill every pixel that it touches.
    """

    corners: np.ndarray
    size: tuple[int, int]

    @cached_property
    def _rows(self) -> np.ndarray:
        """(N,): the first row whose centres lie below each corner."""
        rows: np.ndarray = np.clip(np.ceil(self.corners[:, 1] - 0.5), 0, self.size[0]).astype(int)
        return rows

    @cached_property
    def _window(self) -> tuple[slice, slice]:
        """The rows and columns that can be covered."""
        columns = np.clip(np.ceil(self.corners[:, 0] - 0.5), 0, self.size[1]).astype(int)
        rows = self._rows
        return slice(rows.min(), rows.max()), slice(columns.min(), columns.max())

    @property
    def cost(self) -> int:
        """The window's pixels, and each row that an edge crosses."""
        rows, columns = self._window
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        crossed = np.abs(np.diff(self._rows, append=self._rows[:1])).sum()
        points = len(self.corners)
        return int(
            _COST_OF_A_STROKE + area + _COST_OF_A_CROSSING * crossed + _COST_OF_A_POINT * points
        )

    def pixels(self) -> Pixels:
        """The outline's window, and what of it lies inside."""
        rows, columns = self._window
        # How often the outline passes from one column to the next, counted downwards.
        crossings = np.zeros((rows.stop - rows.start, columns.stop - columns.start + 1), np.int32)
        points, first_rows = self.corners.tolist(), self._rows.tolist()
        for index, (end, last) in enumerate(zip(points, first_rows, strict=True)):
            start, first = points[index - 1], first_rows[index - 1]
            if first == last:
                continue
            # From above, so that the way back along an edge meets the same columns.
            (x, y), (lower_x, lower_y) = sorted((start, end), key=lambda corner: corner[1])
            crossed = np.arange(min(first, last), max(first, last))
            at = x + (crossed + 0.5 - y) * ((lower_x - x) / (lower_y - y))
            passed = np.clip(np.ceil(at - 0.5), columns.start, columns.stop).astype(int)
            crossings[crossed - rows.start, passed - columns.start] += 1 if first < last else -1
        windings = np.cumsum(crossings, axis=1, out=crossings)[:, :-1]
        return (rows, columns), np.asarray(windings != 0)


def _covered(alpha: np.ndarray, size: tuple[int, int]) -> Pixels:
    if alpha.shape != size:
        is_larger = all(np.greater_equal(alpha.shape, size))
        how = cv2.INTER_AREA if is_larger else cv2.INTER_NEAREST
        alpha = np.asarray(cv2.resize(alpha, size[::-1], interpolation=how), np.uint8)
    return (slice(None), slice(None)), alpha >= THRESHOLD


def _brush(result: Result, size: tuple[int, int]) -> Brush:
    value = value_of(result)
    rle = value.get("rle")
    if not rle and isinstance(rle, (list, type(None))):
        raise NothingDrawn(f"result {name_of(result)} has the rle {shown(rle)}, expected pixels")
    if value.get("format") != "rle":
        raise AnnotationError(
            f"result {name_of(result)} has the brush format {shown(value.get('format'))}, "
            "expected 'rle'"
        )
    return Brush(result, rle, picture_size(result, size), size)


def _polygon(result: Result, size: tuple[int, int]) -> Polygon:
    refuse_other_picture(result, size)
    return Polygon(_corners(result, size), size)


def _bitmask(result: Result, size: tuple[int, int]) -> Bitmask:
    url = value_of(result).get("imageDataURL")
    if not url:
        raise NothingDrawn(
            f"result {name_of(result)} has the imageDataURL {shown(url)}, expected a PNG"
        )
    refuse_other_picture(result, size)
    try:
        height, width = bitmask.picture_size(url)
    except bitmask.BitmaskError as error:
        raise AnnotationError(f"result {name_of(result)}: {error}") from None
    drawn = {"id": result.get("id"), "original_height": height, "original_width": width}
    return Bitmask(result, url, picture_size(drawn, size), size)


STROKES: dict[str, Callable[[Result, tuple[int, int]], Stroke]] = {
    "brushlabels": _brush,
    "polygonlabels": _polygon,
    "bitmasklabels": _bitmask,
}
"""Types of results that paint, and what reads each."""
OWNER = "result_id"
"""In the meta of a stroke or box that we wrote: its id. Label Studio keeps ids in what it copies
from predictions and annotations; what is pasted has a new one and the meta of what was copied,
which speaks of another annotation, perhaps of another image. Earlier releases wrote none."""


def is_pasted(result: Result) -> bool:
    """Whether a result was pasted from another that we wrote."""
    meta = result.get("meta")
    owner = meta.get(OWNER) if isinstance(meta, Mapping) else None
    return owner is not None and owner != result.get("id")


def meta_of(result: Result) -> Mapping[str, Any]:
    """What is said of a result itself; empty where nothing is, or it was pasted."""
    meta = result.get("meta")
    return meta if isinstance(meta, Mapping) and not is_pasted(result) else {}


VOID_PIXELS = "void"
"""In the meta of a stroke that was imported: which pixels of the picture nothing is known of."""


def read_void(results: Sequence[Result], size: tuple[int, int]) -> Stroke | None:
    """The pixels of which strokes say that nothing is known, unpainted; None if they say nothing.

    All that were imported say the same, so that any of them may be changed or deleted.

    Raises:
        AnnotationError: as `read_stroke`.
    """
    for result in results:
        url = meta_of(result).get(VOID_PIXELS)
        if isinstance(url, str):
            return _bitmask({**result, "value": {"imageDataURL": url}}, size)
    return None


SUGGESTED = "suggested"
"""In the meta of a suggested mask, which Label Studio hands back: the regions that it is of, each
with the `FINGERPRINT` of what the mask covers there. A release wrote the whole mask's alone."""
FINGERPRINT = "fingerprint"
_LAYERS_OF_REGIONS = 16
"""Regions of a mask may cover its image so many times over."""


def is_of_person(result: Result) -> bool:
    """Whether it is a stroke that somebody may have made or changed."""
    kind = result.get("type")
    return isinstance(kind, str) and kind in STROKES and not is_untouched(result)


def is_untouched(result: Result) -> bool:
    """Whether it is a prediction's, where that put it."""
    return result.get("origin") == "prediction" and not is_pasted(result)


def fingerprint(covered: np.ndarray, label: str) -> str:
    """What a suggested mask, (height, width) bool of a region, is known by when it comes back."""
    height, width = covered.shape
    known = hashlib.sha1(f"{height}x{width} {label}".encode(), usedforsecurity=False)
    known.update(np.packbits(covered).tobytes())
    return known.hexdigest()[:16]


def made_by_person(result: Result, covered: np.ndarray) -> np.ndarray:
    """Which of a stroke's pixels somebody made, bool of the shape of `covered`.

    Label Studio calls a stroke changed whose answer was changed, and made by hand what an
    annotation made from a prediction holds. So whatever it says, a region in which the stroke
    covers what was suggested, as its label, is as suggested. Where the suggestion said nothing of
    its pixels, as outlines do not, they are somebody's.

    Args:
        result: of any control.
        covered: bool, its pixels: in the image, (height, width), or in a window of it.
    """
    if is_untouched(result):
        return np.zeros_like(covered)
    labels = value_of(result).get(str(result.get("type")))
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        return covered
    made, area = covered.copy(), 0
    for region, known in suggested_in(result, covered.shape):
        if known is None or not region.is_inside(covered.shape):
            continue
        area += region.height * region.width
        if area > _LAYERS_OF_REGIONS * covered.size:
            break
        if known == fingerprint(covered[region.slices], labels[0]):
            made[region.slices] = False
    return made


def suggested_in(result: Result, size: tuple[int, ...]) -> Iterator[tuple[Region, str | None]]:
    """The regions that a suggested mask is of, each with the fingerprint of what it covers there.

    In pixels of an image of (height, width) `size`; what is malformed is left out.
    """
    entries = meta_of(result).get(SUGGESTED)
    if isinstance(entries, str):
        yield Region(0, 0, *size), entries
    for entry in entries if isinstance(entries, list) else ():
        try:
            yield read_region(entry), entry.get(FINGERPRINT)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            continue


def read_region(entry: Mapping[str, Any]) -> Region:
    """A region as meta holds it; `KeyError`, `TypeError` and the like if it is malformed."""
    row, col, height, width = (int(entry[it]) for it in ("row", "col", "height", "width"))
    if max(map(abs, (row, col, height, width))) > MAX_PIXELS:
        raise ValueError(f"the region {shown(entry)} lies beyond any picture")
    return Region(row, col, height, width)


def _corners(result: Result, size: tuple[int, int]) -> np.ndarray:
    points = value_of(result).get("points")
    if points is None or (isinstance(points, list) and len(points) < 3):
        raise NothingDrawn(
            f"result {name_of(result)} is a polygon of {len(points or ())} points, expected 3 to "
            f"{MAX_POINTS}"
        )
    if not isinstance(points, list) or not 3 <= len(points) <= MAX_POINTS:
        raise AnnotationError(
            f"result {name_of(result)} is a polygon of "
            f"{len(points) if isinstance(points, list) else 'no'} points, expected 3 to "
            f"{MAX_POINTS}"
        )
    corners = np.array([_point(result, point) for point in points])  # (N, 2) x, y in percent
    # Far outside means nothing more than outside; astronomical numbers would overflow.
    scaled: np.ndarray = np.clip(corners, -1e6, 1e6) / 100 * [size[1], size[0]]
    return scaled


def _point(result: Result, point: Any) -> tuple[float, float]:
    if isinstance(point, (list, tuple)) and len(point) == 2:
        return number_of(result, "points", point[0]), number_of(result, "points", point[1])
    raise AnnotationError(f"result {name_of(result)} has the point {shown(point)}, expected [x, y]")
