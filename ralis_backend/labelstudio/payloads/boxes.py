"""The suggested regions that an annotation carries, in percent or pixels -> `Region`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads.answers import (
    calls_all_refused,
    refused_results,
    result_id,
)
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
from ralis_backend.labelstudio.payloads.strokes import (
    is_as_suggested,
    is_of_person,
    most_cost,
    read_stroke,
)
from ralis_backend.online.tool import FoundRegions

MAX_REGIONS = 1000
REGION_LAYERS = 16
"""Suggested regions of an annotation may cover its image so many times over."""


def read_boxes(results: Any, config: LabelConfig, image_size: tuple[int, int]) -> FoundRegions:
    """The suggested regions that an annotation carries, in pixels, clipped to the image.

    They are the rectangles with the label of suggested regions, whatever their control is called,
    and what the masks' meta says, whether the config has a control for them by now or not; each
    once. What is malformed is left out, and what there is of them beyond what an image holds.

    A region that was called not worth labelling is refused, unless a person's stroke covers a pixel
    of it that lies in no other region, ticked ones excepted: then it is disputed. All that was
    shown is refused likewise, the whole image where no region is carried. A tick for a mask of
    several regions refuses none: nobody knows which is meant.
    """
    objects, _ = objects_of(results)
    ticked = refused_results(results)
    ticked_boxes: set[Region] = set()
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
            if box in boxes and len(found) == 1 and result_id(result) in ticked:
                ticked_boxes.add(box)
        if len(boxes) > MAX_REGIONS or covered > REGION_LAYERS * image_size[0] * image_size[1]:
            left_out.append(
                f"the annotation has more than {MAX_REGIONS} suggested regions, or regions that "
                f"cover the image more than {REGION_LAYERS} times; delete some"
            )
            return FoundRegions((), tuple(left_out))
    carried = FoundRegions(tuple(boxes), tuple(left_out))
    are_all_ticked = calls_all_refused(objects)
    if not ticked_boxes and not are_all_ticked:
        return carried
    is_painted = _painted(objects, image_size)
    painted_in = {box for box in boxes if is_painted[box.slices].any()}
    is_nothing_painted = not painted_in if boxes else not is_painted.any()
    for box in boxes.keys() - ticked_boxes:
        is_painted[box.slices] = False
    disputed = frozenset(box for box in ticked_boxes if is_painted[box.slices].any())
    return replace(
        carried,
        refused=frozenset(ticked_boxes - disputed),
        disputed=disputed,
        is_refused=are_all_ticked and is_nothing_painted,
    )


def _painted(objects: Sequence[Result], size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: which pixels a stroke covers that a person made, or changed a pixel of.

    Strokes that cannot be read, or cost too much, cover nothing here: `read_paint` names them.
    """
    is_painted = np.zeros(size, bool)
    cost = 0
    for result in filter(is_of_person, objects):
        try:
            stroke = read_stroke(result, size)
            cost += stroke.cost
            if cost > most_cost(size):
                break
            window, covered = stroke.pixels()
        except AnnotationError:
            continue
        if covered.shape == size and is_as_suggested(result, covered):
            continue
        is_painted[window] |= covered
    return is_painted


def _boxes(result: Result, config: LabelConfig, size: tuple[int, int]) -> list[Region]:
    if result.get("type") == "rectanglelabels":
        return _boxes_of_rectangle(result, config.region_label, size)
    return _boxes_of_meta(result, size)


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
