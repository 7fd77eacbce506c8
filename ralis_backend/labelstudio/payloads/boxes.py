"""The suggested regions of an annotation, percent or pixels -> `Region`, and which are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads.answers import (
    is_region_box,
    read_ticks,
    result_id,
    without_pasted,
)
from ralis_backend.labelstudio.payloads.label_config import LabelConfig
from ralis_backend.labelstudio.payloads.results import (
    AnnotationError,
    Result,
    name_of,
    number_of,
    objects_of,
    picture_size,
    refuse_other_picture,
    shown,
    value_of,
)
from ralis_backend.labelstudio.payloads.strokes import (
    is_of_person,
    is_pasted,
    made_by_person,
    meta_of,
    most_cost,
    read_region,
    read_stroke,
    suggested_in,
)
from ralis_backend.online.tool import FoundRegions, Refusals

MAX_REGIONS = 1000
REGION_LAYERS = 16
"""Suggested regions of an annotation may cover its image so many times over."""


def read_boxes(
    results: Any,
    config: LabelConfig,
    image_size: tuple[int, int],
    handed_out: Sequence[Region] = (),
) -> FoundRegions:
    """The suggested regions that an annotation is about, in pixels, clipped to the image.

    They are the rectangles with the label of suggested regions, whatever their control is called,
    and what the masks' meta says, whether the config has a control for them by now or not; each
    once. Masks come and go: without a rectangle all that was handed out is meant, too. What is
    malformed is left out, what there is of them beyond what an image holds, and rectangles that
    were pasted, unless nothing else says where to paint: nobody was asked for these.

    Args:
        results: of one annotation, in its order; whatever was sent.
        config: names the label of suggested regions.
        image_size: (height, width) in pixels.
        handed_out: with the prediction that the annotation began from, in pixels of the picture
            that it was made on.
    """
    objects, _ = objects_of(results)
    boxes: dict[Region, None] = {}  # in order, each once
    objects, left_out = without_pasted(objects, config.region_label, is_asked=bool(handed_out))
    covered, has_rectangle = 0, False
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
                has_rectangle |= result.get("type") == "rectanglelabels"
        if len(boxes) > MAX_REGIONS or covered > REGION_LAYERS * image_size[0] * image_size[1]:
            left_out.append(
                f"the annotation has more than {MAX_REGIONS} suggested regions, or regions that "
                f"cover the image more than {REGION_LAYERS} times; delete some"
            )
            boxes, has_rectangle = {}, False
            break
    if not has_rectangle and handed_out:
        picture = _picture(objects, image_size)
        asked = (_on_image(region, picture, image_size) for region in handed_out)
        boxes |= dict.fromkeys(region for region in asked if region.is_inside(image_size))
    return FoundRegions(tuple(boxes), tuple(left_out), are_boxes=has_rectangle)


def read_refusals(
    results: Any, config: LabelConfig, size: tuple[int, int], regions: Sequence[Region]
) -> Refusals:
    """Which of an annotation's regions were called not worth labelling.

    Each by a tick of its own, or by one for all that is shown, unless its own says otherwise. A
    person's stroke that covers a pixel of it, which lies in no other region, ticked ones excepted,
    makes it disputed. A tick for a mask of several regions refuses none: nobody knows which is
    meant.

    Args:
        results: of one annotation, in its order; whatever was sent.
        config: names the label of suggested regions.
        size: (height, width) of what the annotation is about, in pixels.
        regions: that it labels, inside.
    """
    objects, _ = objects_of(results)
    ticks = read_ticks(objects)
    if not any(ticks.values()):
        return Refusals()
    boxes = [it for it in objects if is_region_box(it, config.region_label) and is_pasted(it)]
    pasted = {box for result in boxes for box in _own_box(result, config, size)}
    objects, _ = without_pasted(
        objects, config.region_label, is_asked=not pasted.issuperset(regions)
    )
    own: dict[Region, bool] = {}
    for result in objects:
        name = result_id(result)
        if name is not None and name in ticks and result.get("type") != "choices":
            for box in _own_box(result, config, size):
                own[box] = own.get(box, False) or ticks[name]
    ticked = [it for it in regions if own.get(it, ticks.get(None, False))]
    if not ticked:
        return Refusals()
    is_painted = _painted(objects, size)
    for box in set(regions).difference(ticked):
        is_painted[box.slices] = False
    disputed = frozenset(box for box in ticked if is_painted[box.slices].any())
    return Refusals(frozenset(ticked) - disputed, disputed)


def _painted(objects: Sequence[Result], size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: which pixels of the strokes a person made.

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
            is_painted[window] |= made_by_person(result, covered)
        except AnnotationError:
            continue
    return is_painted


def _boxes(result: Result, config: LabelConfig, size: tuple[int, int]) -> list[Region]:
    if result.get("type") == "rectanglelabels":
        return _boxes_of_rectangle(result, config.region_label, size)
    return _boxes_of_meta(result, size)


def _own_box(result: Result, config: LabelConfig, size: tuple[int, int]) -> list[Region]:
    """The region that a result is about; empty where it is about none, or several.

    A mask names all that were handed out with it, and which of them it is of. Where these have
    boxes, a mask names none: the box is what stands for the region.
    """
    try:
        found = _boxes(result, config, size)
    except AnnotationError:
        return []
    picture = _picture([result], size)
    own = [_on_image(region, picture, size) for region, _ in suggested_in(result, picture)]
    return next((it for it in (own, found) if len(it) == 1 and it[0] in found), [])


def _picture(objects: Sequence[Result], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the picture that an annotation was made on; `size` if it says none."""
    for result in objects:
        try:
            return picture_size(result, size)
        except AnnotationError:
            continue
    return size


def _on_image(region: Region, picture: tuple[int, int], size: tuple[int, int]) -> Region:
    """A region of a picture of an image, in the image's pixels, clipped; both (height, width)."""
    bottom, right = region.row + region.height, region.col + region.width
    top, bottom = (round(it * size[0] / picture[0]) for it in (region.row, bottom))
    left, right = (round(it * size[1] / picture[1]) for it in (region.col, right))
    return Region(top, left, bottom - top, right - left).clipped(size)


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
    boxes = meta_of(result).get("regions")
    if not boxes:
        return []
    picture = _picture([result], size)
    regions = []
    try:
        for box in boxes:
            regions.append(_on_image(read_region(box), picture, size))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise AnnotationError(
            f"result {name_of(result)} has the regions {shown(boxes)}, expected objects with row, "
            "col, height and width"
        ) from None
    return regions
