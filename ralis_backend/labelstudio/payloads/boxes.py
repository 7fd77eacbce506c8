"""The suggested regions that an annotation carries, in percent or pixels -> `Region`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads.answers import refused_results, result_id
from ralis_backend.labelstudio.payloads.label_config import LabelConfig
from ralis_backend.labelstudio.payloads.results import (
    AnnotationError,
    Result,
    name_of,
    number_of,
    objects_of,
    refuse_other_picture,
    shown,
    value_of,
)
from ralis_backend.labelstudio.payloads.strokes import is_of_person
from ralis_backend.online.tool import FoundRegions

MAX_REGIONS = 1000
REGION_LAYERS = 16
"""Suggested regions of an annotation may cover its image so many times over."""


def read_boxes(results: Any, config: LabelConfig, image_size: tuple[int, int]) -> FoundRegions:
    """The suggested regions that an annotation carries, in pixels, clipped to the image.

    They are the rectangles with the label of suggested regions, whatever their control is called;
    without a control for them, what the masks' meta says as well. What is malformed is left out,
    and what there is of them beyond what an image holds.

    A rectangle that was called not worth labelling is refused, unless a person has changed a stroke
    that belongs to it.
    """
    objects, _ = objects_of(results)
    refused = refused_results(results) - _painted_parents(objects)
    refused_boxes: list[Region] = []
    boxes: dict[Region, None] = {}  # in order, each once
    left_out: list[str] = []
    covered = 0
    for result in objects:
        try:
            found = _boxes(result, config, image_size)
        except AnnotationError as error:
            left_out.append(str(error))
            continue
        for box in found:
            if box.is_inside(image_size) and box not in boxes:
                boxes[box] = None
                covered += box.height * box.width
            if box in boxes and result_id(result) in refused:
                refused_boxes.append(box)
        if len(boxes) > MAX_REGIONS or covered > REGION_LAYERS * image_size[0] * image_size[1]:
            left_out.append(
                f"the annotation has more than {MAX_REGIONS} suggested regions, or regions that "
                f"cover the image more than {REGION_LAYERS} times; delete some"
            )
            return FoundRegions((), tuple(left_out))
    return FoundRegions(tuple(boxes), tuple(left_out), frozenset(refused_boxes))


def _painted_parents(objects: Sequence[Result]) -> set[Any]:
    """Ids of the results in which a person has made or changed a stroke."""
    return {
        it["parentID"] for it in objects if is_of_person(it) and isinstance(it.get("parentID"), str)
    }


def _boxes(result: Result, config: LabelConfig, size: tuple[int, int]) -> list[Region]:
    if result.get("type") == "rectanglelabels":
        return _boxes_of_rectangle(result, config.region_label, size)
    return _boxes_of_meta(result, size) if config.region_control is None else []


def _boxes_of_rectangle(result: Result, label: str, size: tuple[int, int]) -> list[Region]:
    value = value_of(result)
    labels = value.get("rectanglelabels")
    if not isinstance(labels, list) or label not in labels:
        return []
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
    return [Region(top, left, bottom - top, right - left).clipped(size)]


def _boxes_of_meta(result: Result, size: tuple[int, int]) -> list[Region]:
    meta = result.get("meta")
    boxes = meta.get("regions") if isinstance(meta, Mapping) else None
    regions = []
    try:
        for box in boxes or []:
            row, col, height, width = (int(box[it]) for it in ("row", "col", "height", "width"))
            regions.append(Region(row, col, height, width).clipped(size))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise AnnotationError(
            f"result {name_of(result)} has the regions {shown(boxes)}, expected objects with row, "
            "col, height and width"
        ) from None
    return regions
