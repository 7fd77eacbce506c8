"""Label Studio's results (brush strokes, polygons, rectangles in percent) <-> index masks.

Percent is converted here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads.brush_rle import encode
from ralis_backend.labelstudio.payloads.label_config import LabelConfig
from ralis_backend.labelstudio.payloads.results import (
    AnnotationError,
    Result,
    name_of,
    number_of,
    refuse_other_picture,
    refuse_turned,
    shown,
    value_of,
)
from ralis_backend.labelstudio.payloads.strokes import read_strokes

MAX_REGIONS = 1000
REGION_LAYERS = 16
"""Suggested regions of an annotation may cover its image so many times over."""
_POLYGON_TOLERANCE = 0.5  # pixels by which a drawn outline may leave the mask's


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
        AnnotationError: if a result is malformed, has an unknown label, or was made on a picture
            that cannot be one of this image; or if the strokes would take minutes to paint.
    """
    ground = VOID if background is None else _class_index(background, class_names, "background")
    in_order = _in_paint_order(results, config)
    indices = [_class_index(_label(it, config), class_names, name_of(it)) for it in in_order]
    strokes = read_strokes(in_order, config.control_type, size)
    mask = np.full(size, ground, np.uint8)
    for index, stroke in zip(indices, strokes, strict=True):
        window, covered = stroke.pixels()
        mask[window][covered] = index
    return mask


def region_boxes(
    results: Sequence[Result], config: LabelConfig, image_size: tuple[int, int]
) -> list[Region]:
    """The suggested regions that an annotation carries, in pixels, clipped to the image.

    They are the rectangles of the region control; without one, what the masks' meta says.

    Raises:
        AnnotationError: if a rectangle is malformed, or there are far more than an image holds.
    """
    boxes: dict[Region, None] = {}  # in order, each once
    covered = 0
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
        for box in found:
            if box.is_inside(image_size) and box not in boxes:
                boxes[box] = None
                covered += box.height * box.width
        if len(boxes) > MAX_REGIONS or covered > REGION_LAYERS * image_size[0] * image_size[1]:
            raise AnnotationError(
                f"the annotation has more than {MAX_REGIONS} suggested regions, or regions that "
                f"cover the image more than {REGION_LAYERS} times; delete some"
            )
    return list(boxes)


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
    labels = value_of(result).get(config.control_type)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise AnnotationError(
            f"result {name_of(result)} has the labels {shown(labels)}, expected exactly one; "
            "choose one label for each stroke"
        )
    return labels[0]


def _class_index(name: str, class_names: Sequence[str], where: str) -> int:
    try:
        return class_names.index(name)
    except ValueError:
        raise AnnotationError(
            f"{where} has the label {shown(name)}, which is not one of {', '.join(class_names)}; "
            "add it to the label config or repair the annotation"
        ) from None


def _boxes_of_rectangle(result: Result, label: str, size: tuple[int, int]) -> list[Region]:
    value = value_of(result)
    labels = value.get("rectanglelabels")
    if not isinstance(labels, list) or label not in labels:
        return []
    refuse_turned(result)
    refuse_other_picture(result, size)
    if value.get("rotation"):
        raise AnnotationError(
            f"result {name_of(result)}: a suggested region is turned by {shown(value['rotation'])} "
            "degrees; turn it back"
        )
    x, y, w, h = (
        min(max(number_of(result, name, value.get(name)), -1e6), 1e6)
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
            f"result {name_of(result)} has the regions {shown(boxes)}, expected objects with row, "
            "col, height and width"
        ) from None
    return regions


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
