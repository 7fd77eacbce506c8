"""Index masks and regions -> Label Studio's results: strokes, polygons, rectangles in percent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads import bitmask, brush_rle
from ralis_backend.labelstudio.payloads.label_config import LabelConfig
from ralis_backend.labelstudio.payloads.strokes import (
    FINGERPRINT,
    OWNER,
    SUGGESTED,
    VOID_PIXELS,
    fingerprint,
)

_POLYGON_TOLERANCE = 0.5  # pixels by which a drawn outline may leave the mask's


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
    suggested_in: Sequence[Region] = (),
) -> list[dict[str, Any]]:
    """A region's mask as results, one brush stroke or bitmask per class (or polygons).

    Args:
        mask: (height, width) uint8 class indices; VOID is not painted.
        class_names: by class index; a class that the config does not offer is left out.
        config: names the control.
        key: makes the results' ids; the same key gives the same ids.
        scale: the picture shows each pixel of the mask, which is all of it then, `scale` times.
        offset: (row, col) of the mask in the picture, in pixels of the picture.
        image_size: (height, width) of the picture; the enlarged mask's if None.
        score: the prediction's confidence, shown beside the stroke.
        extra: further fields of each result (`parentID`, `meta`).
        suggested_in: the regions of a suggestion, in pixels of the picture as it is unenlarged:
            each stroke's meta says which it is of, and what of it was suggested there.
    """
    offered = {label.name for label in config.labels}
    results = []
    for index in np.unique(mask[mask != VOID]).tolist():
        if index >= len(class_names) or class_names[index] not in offered:
            continue
        meta = dict((extra or {}).get("meta", {}))
        if suggested_in:
            picture = _in_picture(mask == index, (offset, image_size or mask.shape))
            is_whole = config.control_type in WHOLE
            meta[SUGGESTED] = _suggested(picture, class_names[index], suggested_in, is_whole)
        painted = _enlarged(mask == index, scale)
        height, width = image_size or painted.shape
        values = VALUES[config.control_type](painted, (offset, (height, width)))
        for part, value in enumerate(values):
            name = result_id(key, class_names[index], str(part))
            value[config.control_type] = [class_names[index]]
            result = _result(config, name, (height, width), value)
            result |= {**(extra or {}), **({"meta": {**meta, OWNER: name}} if meta else {})}
            if score is not None:
                result["score"] = score
            results.append(result)
    return results


def known_to_results(
    mask: np.ndarray, class_names: Sequence[str], config: LabelConfig, *, key: str
) -> list[dict[str, Any]]:
    """A whole image's mask, void where nothing is known, as results; as `mask_to_results`.

    Each says which pixels are void, so that they stay so where unpainted ones are background. A
    picture of which nothing is painted has a stroke that covers nothing to say it. Of a picture
    that is all void nothing can be said: it should get no annotation.
    """
    is_void = mask == VOID
    extra = {"meta": {VOID_PIXELS: bitmask.encode(is_void)}} if is_void.any() else {}
    results = mask_to_results(mask, class_names, config, key=key, extra=extra)
    if not results and extra:
        empty = _empty_result(config, mask.shape, key)
        results = [empty | {"meta": {**extra["meta"], OWNER: empty["id"]}}]
    return results


def _empty_result(config: LabelConfig, size: tuple[int, ...], key: str) -> dict[str, Any]:
    """A stroke that covers nothing, of the first label."""
    (height, width), kind = size, config.control_type
    if kind in WHOLE:
        (value,) = VALUES[kind](np.zeros((height, width), bool), ((0, 0), (height, width)))
    else:
        value = {"points": [[0, 0]] * 3, "closed": True}
    value[kind] = [config.labels[0].name]
    return _result(config, result_id(key), (height, width), value)


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
    name = result_id(key)
    return {
        "id": name,
        "type": "rectanglelabels",
        "from_name": config.region_control,
        "to_name": config.image_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "readonly": True,
        "score": score,
        "meta": {"text": list(text), OWNER: name},
        "value": {
            "x": 100 * region.col / width,
            "y": 100 * region.row / height,
            "width": 100 * region.width / width,
            "height": 100 * region.height / height,
            "rotation": 0,
            "rectanglelabels": [config.region_label],
        },
    }


def _suggested(
    picture: np.ndarray, label: str, regions: Sequence[Region], is_whole: bool
) -> list[dict[str, Any]]:
    """What is said of each region that a mask of a label, (H, W) bool, has a pixel in."""
    return [
        {**asdict(region), **({FINGERPRINT: fingerprint(part, label)} if is_whole else {})}
        for region, part in ((region, picture[region.slices]) for region in regions)
        if part.any()
    ]


def _result(
    config: LabelConfig, name: str, size: tuple[int, int], value: dict[str, Any]
) -> dict[str, Any]:
    height, width = size
    return {
        "id": name,
        "type": config.control_type,
        "from_name": config.control_name,
        "to_name": config.image_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }


def result_id(*parts: str) -> str:
    """A short id that depends on the parts alone."""
    return hashlib.sha1("\0".join(parts).encode(), usedforsecurity=False).hexdigest()[:10]


Place = tuple[tuple[int, int], tuple[int, int]]
"""(row, col) of a mask in a picture, and the picture's (height, width)."""


def _brush_values(painted: np.ndarray, place: Place) -> Iterator[dict[str, Any]]:
    alpha = np.where(_in_picture(painted, place), np.uint8(255), np.uint8(0))
    yield {"format": "rle", "rle": brush_rle.encode(alpha)}


def _bitmask_values(painted: np.ndarray, place: Place) -> Iterator[dict[str, Any]]:
    yield {"imageDataURL": bitmask.encode(_in_picture(painted, place))}


def _polygon_values(painted: np.ndarray, place: Place) -> Iterator[dict[str, Any]]:
    for points in _outlines(painted, *place):
        yield {"points": points, "closed": True}


VALUES: dict[str, Callable[[np.ndarray, Place], Iterator[dict[str, Any]]]] = {
    "brushlabels": _brush_values,
    "bitmasklabels": _bitmask_values,
    "polygonlabels": _polygon_values,
}
"""Types of results that paint; the `value` of each result that paints (h, w) bool at a place."""
WHOLE = frozenset({"brushlabels", "bitmasklabels"})
"""Of these, the ones that cover exactly the pixels of the mask."""


def _in_picture(painted: np.ndarray, place: Place) -> np.ndarray:
    (row, col), size = place
    picture = np.zeros(size, bool)
    picture[row : row + painted.shape[0], col : col + painted.shape[1]] = painted
    return picture


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
