"""Label Studio's results (brush strokes, polygons, rectangles in percent) <-> index masks.

Percent is converted here and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads.brush_rle import RleError, decode, encode
from ralis_backend.labelstudio.payloads.label_config import LabelConfig

THRESHOLD = 128
"""Painted masks are anti-aliased: a pixel belongs to the stroke from this alpha on."""

MAX_PIXELS = 100_000_000
MAX_POINTS = 100_000
_POLYGON_TOLERANCE = 0.5  # pixels by which a drawn outline may leave the mask's

Result = Mapping[str, Any]


class AnnotationError(ValueError):
    """An annotation that cannot be read; the message names the result and what is wrong."""


def results_to_mask(
    results: Sequence[Result],
    config: LabelConfig,
    class_names: Sequence[str],
    size: tuple[int, int],
    background: str | None = None,
) -> np.ndarray:
    """What was painted, as (height, width) uint8 indices into `class_names`.

    Where strokes overlap, what a person changed or made lies over untouched predictions, and the
    later over the earlier. A picture that was shown enlarged is averaged down to `size`.

    Args:
        results: of one annotation, in its order.
        config: names the segmentation control.
        class_names: by class index.
        size: (height, width) of the mask.
        background: the class of unpainted pixels; None: they are VOID.

    Raises:
        AnnotationError: if a result is malformed or has an unknown label.
    """
    ground = VOID if background is None else _class_index(background, class_names, "background")
    mask = np.full(size, ground, np.uint8)
    for result in _in_paint_order(results, config):
        index = _class_index(_label(result, config), class_names, _name(result))
        mask[_stroke(result, config, size)] = index
    return mask


def region_boxes(
    results: Sequence[Result], config: LabelConfig, image_size: tuple[int, int]
) -> list[Region]:
    """The suggested regions that an annotation carries, in pixels, clipped to the image.

    They are the rectangles of the region control; without one, what the masks' meta says.

    Raises:
        AnnotationError: if a rectangle is malformed.
    """
    boxes: list[Region] = []
    for result in _objects(results):
        if config.region_control is None:
            found = _boxes_of_meta(result, image_size)
        elif (
            result.get("type") == "rectanglelabels"
            and result.get("from_name") == config.region_control
        ):
            found = _boxes_of_rectangle(result, config.region_label, image_size)
        else:
            found = []
        boxes += [box for box in found if box.is_inside(image_size) and box not in boxes]
    return boxes


def mask_to_results(
    mask: np.ndarray,
    class_names: Sequence[str],
    config: LabelConfig,
    *,
    key: str,
    scale: int = 1,
    offset: tuple[int, int] = (0, 0),
    image_size: tuple[int, int] | None = None,
    score: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """A region's mask as results, one brush stroke per class (or polygons).

    Args:
        mask: (height, width) uint8 class indices; VOID is not painted.
        class_names: by class index; a class that the config does not offer is left out.
        config: names the control.
        key: makes the results' ids; the same key gives the same ids.
        scale: the picture shows each pixel of the mask `scale` times.
        offset: (row, col) of the mask in the picture, in pixels of the picture.
        image_size: (height, width) of the picture; the enlarged mask's if None.
        score: the prediction's confidence, shown beside the stroke.
        extra: further fields of each result (`parentID`, `meta`).
    """
    offered = {label.name for label in config.labels}
    results = []
    for index in np.unique(mask[mask != VOID]).tolist():
        if index >= len(class_names) or class_names[index] not in offered:
            continue
        painted = _enlarged(mask == index, scale)
        for part, value in enumerate(
            _values(painted, class_names[index], config, offset, image_size or painted.shape)
        ):
            height, width = image_size or painted.shape
            result: dict[str, Any] = {
                "id": result_id(key, class_names[index], str(part)),
                "type": config.control_type,
                "from_name": config.control_name,
                "to_name": config.image_name,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": value,
                **(extra or {}),
            }
            if score is not None:
                result["score"] = score
            results.append(result)
    return results


def region_to_result(
    region: Region,
    config: LabelConfig,
    image_size: tuple[int, int],
    *,
    key: str,
    score: float,
    text: Sequence[str],
) -> dict[str, Any]:
    """A suggested region as a locked rectangle; the config must have a region control."""
    height, width = image_size
    return {
        "id": result_id(key),
        "type": "rectanglelabels",
        "from_name": config.region_control,
        "to_name": config.image_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "readonly": True,
        "score": score,
        "meta": {"text": list(text)},
        "value": {
            "x": 100 * region.col / width,
            "y": 100 * region.row / height,
            "width": 100 * region.width / width,
            "height": 100 * region.height / height,
            "rotation": 0,
            "rectanglelabels": [config.region_label],
        },
    }


def result_id(*parts: str) -> str:
    """A short id that depends on the parts alone."""
    return hashlib.sha1("\0".join(parts).encode(), usedforsecurity=False).hexdigest()[:10]


# Reading


def _objects(results: Any) -> Sequence[Result]:
    if not isinstance(results, (list, tuple)) or not all(
        isinstance(result, Mapping) for result in results
    ):
        raise AnnotationError("the annotation's result is no list of objects")
    return results


def _in_paint_order(results: Sequence[Result], config: LabelConfig) -> list[Result]:
    strokes = [
        result
        for result in _objects(results)
        if result.get("type") == config.control_type
        and result.get("from_name") == config.control_name
    ]
    return sorted(strokes, key=lambda result: result.get("origin") != "prediction")


def _label(result: Result, config: LabelConfig) -> str:
    labels = _value(result).get(config.control_type)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise AnnotationError(
            f"result {_name(result)} has the labels {labels!r}, expected exactly one; choose one "
            "label for each stroke"
        )
    return labels[0]


def _class_index(name: str, class_names: Sequence[str], where: str) -> int:
    try:
        return class_names.index(name)
    except ValueError:
        raise AnnotationError(
            f"{where} has the label {name!r}, which is not one of {', '.join(class_names)}; add it "
            "to the label config or repair the annotation"
        ) from None


def _stroke(result: Result, config: LabelConfig, size: tuple[int, int]) -> np.ndarray:
    """The stroke's pixels, (height, width) bool."""
    _refuse_turned(result)
    if config.control_type == "polygonlabels":
        return _polygon(result, size)
    return _brush(result, size)


def _refuse_turned(result: Result) -> None:
    if result.get("image_rotation"):
        raise AnnotationError(
            f"result {_name(result)} was painted on an image turned by "
            f"{result['image_rotation']} degrees; turn it back and paint it again"
        )


def _brush(result: Result, size: tuple[int, int]) -> np.ndarray:
    value = _value(result)
    if value.get("format") != "rle":
        raise AnnotationError(
            f"result {_name(result)} has the brush format {value.get('format')!r}, expected 'rle'"
        )
    height = _pixels(result, "original_height")
    width = _pixels(result, "original_width")
    if height * width > MAX_PIXELS:
        raise AnnotationError(
            f"result {_name(result)} is on an image of {width} x {height} pixels, at most "
            f"{MAX_PIXELS} are read"
        )
    if abs(height * size[1] - width * size[0]) > max(height + width, sum(size)):  # 1 pixel's play
        raise AnnotationError(
            f"result {_name(result)} is on an image of {width} x {height} pixels, expected the "
            f"proportions of {size[1]} x {size[0]}; the image was turned or replaced"
        )
    try:
        alpha = decode(value.get("rle", []), height, width)
    except RleError as error:
        raise AnnotationError(f"result {_name(result)}: {error}") from None
    if (height, width) != size:
        is_larger = height >= size[0] and width >= size[1]
        how = cv2.INTER_AREA if is_larger else cv2.INTER_NEAREST
        alpha = np.asarray(cv2.resize(alpha, (size[1], size[0]), interpolation=how), np.uint8)
    return alpha >= THRESHOLD


def _polygon(result: Result, size: tuple[int, int]) -> np.ndarray:
    points = _value(result).get("points")
    if not isinstance(points, list) or not 3 <= len(points) <= MAX_POINTS:
        raise AnnotationError(
            f"result {_name(result)} is a polygon of "
            f"{len(points) if isinstance(points, list) else 'no'} points, expected 3 to "
            f"{MAX_POINTS}"
        )
    corners = np.array([_point(result, point) for point in points])  # (N, 2) x, y in percent
    # Far outside means nothing more than outside; astronomical numbers would overflow.
    corners = np.clip(corners, -1e6, 1e6) / 100 * [size[1], size[0]]
    return _filled(corners, size)


def _filled(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie inside a closed outline, (height, width) bool.

    Inside is where the outline winds around, as the browser fills it: polygons that share an edge
    neither overlap nor leave a gap. OpenCV's fillPoly would also fill every pixel that it touches.

    Args:
        corners: (N, 2) x, y in pixels, pixel edges at whole numbers.
        size: (height, width).
    """
    # How often the outline passes from one column to the next, counted downwards.
    crossings = np.zeros((size[0], size[1] + 1), np.int32)
    firsts = np.clip(np.ceil(corners[:, 1] - 0.5), 0, size[0]).astype(int)
    points, first_rows = corners.tolist(), firsts.tolist()
    for index, (end, last) in enumerate(zip(points, first_rows, strict=True)):
        start, first = points[index - 1], first_rows[index - 1]
        if first == last:
            continue
        # From above, so that the way back along an edge meets the same columns.
        (x, y), (lower_x, lower_y) = sorted((start, end), key=lambda corner: corner[1])
        rows = np.arange(min(first, last), max(first, last))
        at = x + (rows + 0.5 - y) * ((lower_x - x) / (lower_y - y))
        columns = np.clip(np.ceil(at - 0.5), 0, size[1]).astype(int)
        crossings[rows, columns] += 1 if first < last else -1
    return np.asarray(crossings[:, :-1].cumsum(axis=1) != 0)


def _point(result: Result, point: Any) -> tuple[float, float]:
    if isinstance(point, (list, tuple)) and len(point) == 2:
        numbers = [_number(result, "points", value) for value in point]
        return numbers[0], numbers[1]
    raise AnnotationError(f"result {_name(result)} has the point {point!r}, expected [x, y]")


def _boxes_of_rectangle(result: Result, label: str, size: tuple[int, int]) -> list[Region]:
    value = _value(result)
    labels = value.get("rectanglelabels")
    if not isinstance(labels, list) or label not in labels:
        return []
    _refuse_turned(result)
    if value.get("rotation"):
        raise AnnotationError(
            f"result {_name(result)}: a suggested region is turned by {value['rotation']!r} "
            "degrees; turn it back"
        )
    x, y, w, h = (
        min(max(_number(result, name, value.get(name)), -1e6), 1e6)
        for name in ("x", "y", "width", "height")
    )
    top, bottom = (round(it * size[0] / 100) for it in (y, y + h))
    left, right = (round(it * size[1] / 100) for it in (x, x + w))
    return [_clipped(top, left, bottom, right, size)]


def _clipped(top: int, left: int, bottom: int, right: int, size: tuple[int, int]) -> Region:
    """What of the box lies in the picture; of no height or width if nothing does."""
    top, left = max(0, top), max(0, left)
    bottom, right = min(size[0], bottom), min(size[1], right)
    return Region(top, left, max(0, bottom - top), max(0, right - left))


def _boxes_of_meta(result: Result, size: tuple[int, int]) -> list[Region]:
    meta = result.get("meta")
    boxes = meta.get("regions") if isinstance(meta, Mapping) else None
    regions = []
    try:
        for box in boxes or []:
            row, col, height, width = (int(box[it]) for it in ("row", "col", "height", "width"))
            regions.append(_clipped(row, col, row + height, col + width, size))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise AnnotationError(
            f"result {_name(result)} has the regions {boxes!r}, expected objects with row, col, "
            "height and width"
        ) from None
    return regions


def _value(result: Result) -> Mapping[str, Any]:
    value = result.get("value")
    if not isinstance(value, Mapping):
        raise AnnotationError(f"result {_name(result)} has the value {value!r}, expected an object")
    return value


def _pixels(result: Result, name: str) -> int:
    value = result.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AnnotationError(
            f"result {_name(result)} has {name} {value!r}, expected a number of pixels"
        )
    return value


def _number(result: Result, name: str, value: Any) -> float:
    try:
        if not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except (TypeError, OverflowError):
        pass
    raise AnnotationError(f"result {_name(result)} has {name} {value!r}, expected a finite number")


def _name(result: Result) -> str:
    return repr(result.get("id", "without id"))


# Writing


def _values(
    painted: np.ndarray,
    name: str,
    config: LabelConfig,
    offset: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[dict[str, Any]]:
    """The `value` of each result that paints (h, w) bool at `offset` in a picture of `size`."""
    if config.control_type == "polygonlabels":
        for points in _outlines(painted, offset, size):
            yield {"points": points, "closed": True, "polygonlabels": [name]}
        return
    row, col = offset
    alpha = np.zeros(size, np.uint8)
    alpha[row : row + painted.shape[0], col : col + painted.shape[1]][painted] = 255
    yield {"format": "rle", "rle": encode(alpha), "brushlabels": [name]}


def _outlines(
    painted: np.ndarray, offset: tuple[int, int], size: tuple[int, int]
) -> Iterator[list[list[float]]]:
    """Closed outlines in percent; a hole is joined to its outline by a cut of no width."""
    # Twice the size: an outline then runs along pixel edges instead of through pixel centres.
    double = _enlarged(painted, 2).astype(np.uint8)
    contours, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None:
        return
    for index, contour in enumerate(contours):
        if hierarchy[0][index][3] != -1:  # a hole; it is joined to its parent below
            continue
        outline = _simplified(contour)
        hole = hierarchy[0][index][2]
        while hole != -1:
            outline = _joined(outline, _simplified(contours[hole]))
            hole = hierarchy[0][hole][0]
        pixels = (outline + 0.5) / 2 + [offset[1], offset[0]]
        yield (pixels / [size[1], size[0]] * 100).round(4).tolist()


def _enlarged(painted: np.ndarray, scale: int) -> np.ndarray:
    return painted.repeat(scale, axis=0).repeat(scale, axis=1)


def _simplified(contour: np.ndarray) -> np.ndarray:
    """The corners of an outline, (N, 2) x, y; what is as thin as the tolerance is kept as it is."""
    corners = cv2.approxPolyDP(contour, 2 * _POLYGON_TOLERANCE, True)
    if len(corners) < 3:
        corners = cv2.approxPolyDP(contour, 0.5, True)
    return np.asarray(corners, float)[:, 0]


def _joined(outline: np.ndarray, inner: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(outline[:, None] - inner[None], axis=2)
    start, entry = np.unravel_index(distances.argmin(), distances.shape)
    around = np.concatenate([inner[entry:], inner[: entry + 1]])
    return np.concatenate([outline[: start + 1], around, outline[start:]])
