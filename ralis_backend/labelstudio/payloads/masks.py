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
_SUBPIXEL_BITS = 8
_POLYGON_TOLERANCE = 0.7  # pixels by which a drawn outline may leave the mask's

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
    for result in results:
        if config.region_control is None:
            found = _boxes_of_meta(result)
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


def is_not_worth_labelling(results: Sequence[Result]) -> bool:
    """Whether the annotator's feedback says that the region was not worth labelling."""
    return any(
        "Not worth labelling" in result.get("value", {}).get("choices", [])
        for result in results
        if result.get("type") == "choices"
    )


# Reading


def _in_paint_order(results: Sequence[Result], config: LabelConfig) -> list[Result]:
    if not isinstance(results, (list, tuple)) or not all(
        isinstance(result, Mapping) for result in results
    ):
        raise AnnotationError("the annotation's result is no list of objects")
    strokes = [
        result
        for result in results
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
    if result.get("image_rotation"):
        raise AnnotationError(
            f"result {_name(result)} was painted on an image turned by "
            f"{result['image_rotation']} degrees; turn it back and paint it again"
        )
    if config.control_type == "polygonlabels":
        return _polygon(result, size)
    return _brush(result, size)


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
    if not isinstance(points, list) or len(points) < 3:
        raise AnnotationError(
            f"result {_name(result)} is a polygon of "
            f"{len(points) if isinstance(points, list) else 'no'} points, expected at least 3"
        )
    corners = np.array([_point(result, point) for point in points])  # (N, 2) x, y in percent
    # Far outside means nothing more than outside, and OpenCV counts in 32 bits.
    corners = np.clip(corners, -1000, 1100) / 100 * [size[1], size[0]] - 0.5
    fixed = np.round(corners * 2**_SUBPIXEL_BITS).astype(np.int32)
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [fixed], 1, shift=_SUBPIXEL_BITS)
    return mask.astype(bool)


def _point(result: Result, point: Any) -> tuple[float, float]:
    if isinstance(point, (list, tuple)) and len(point) == 2:
        numbers = [_number(result, "points", value) for value in point]
        return numbers[0], numbers[1]
    raise AnnotationError(f"result {_name(result)} has the point {point!r}, expected [x, y]")


def _boxes_of_rectangle(result: Result, label: str, size: tuple[int, int]) -> list[Region]:
    value = _value(result)
    if label not in (value.get("rectanglelabels") or []):
        return []
    if value.get("rotation"):
        raise AnnotationError(f"result {_name(result)}: a suggested region cannot be turned")
    x, y, w, h = (_number(result, it, value.get(it)) for it in ("x", "y", "width", "height"))
    top, left = max(0, round(y * size[0] / 100)), max(0, round(x * size[1] / 100))
    bottom = min(size[0], round((y + h) * size[0] / 100))
    right = min(size[1], round((x + w) * size[1] / 100))
    return [Region(top, left, bottom - top, right - left)]


def _boxes_of_meta(result: Result) -> list[Region]:
    meta = result.get("meta")
    boxes = meta.get("regions") if isinstance(meta, Mapping) else None
    try:
        return [
            Region(*(int(box[name]) for name in ("row", "col", "height", "width")))
            for box in boxes or []
        ]
    except (KeyError, TypeError, ValueError):
        raise AnnotationError(f"result {_name(result)} has the regions {boxes!r}") from None


def _value(result: Result) -> Mapping[str, Any]:
    value = result.get("value")
    if not isinstance(value, Mapping):
        raise AnnotationError(f"result {_name(result)} has no value")
    return value


def _pixels(result: Result, name: str) -> int:
    value = result.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AnnotationError(
            f"result {_name(result)} has {name} {value!r}, expected a number of pixels"
        )
    return value


def _number(result: Result, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise AnnotationError(f"result {_name(result)} has {name} {value!r}, expected a number")
    return float(value)


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
        if len(outline) < 3:
            continue
        hole = hierarchy[0][index][2]
        while hole != -1:
            inner = _simplified(contours[hole])
            if len(inner) >= 3:
                outline = _joined(outline, inner)
            hole = hierarchy[0][hole][0]
        pixels = (outline + 0.5) / 2 + [offset[1], offset[0]]
        yield (pixels / [size[1], size[0]] * 100).round(4).tolist()


def _enlarged(painted: np.ndarray, scale: int) -> np.ndarray:
    return painted.repeat(scale, axis=0).repeat(scale, axis=1)


def _simplified(contour: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.approxPolyDP(contour, 2 * _POLYGON_TOLERANCE, True), float)[:, 0]


def _joined(outline: np.ndarray, inner: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(outline[:, None] - inner[None], axis=2)
    start, entry = np.unravel_index(distances.argmin(), distances.shape)
    around = np.concatenate([inner[entry:], inner[: entry + 1]])
    return np.concatenate([outline[: start + 1], around, outline[start:]])
