"""An annotation's results -> its mask, and what of them was left out.

A stroke that cannot be read costs no other. Where its label alone is odd, its pixels are somebody's
but nobody knows whose, and no background; where its place is not known either, no pixel of the
annotation is taken for background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ralis_backend.core.regions import VOID
from ralis_backend.core.text import shortened
from ralis_backend.labelstudio.payloads.results import (
    AnnotationError,
    NothingDrawn,
    Result,
    name_of,
    objects_of,
    shown,
    value_of,
)
from ralis_backend.labelstudio.payloads.strokes import (
    STROKES,
    Stroke,
    made_by_person,
    most_cost,
    read_stroke,
    read_void,
)
from ralis_backend.online.tool import Painted

UNLABELLED = frozenset({"brush", "magicwand", "polygon", "bitmask"})
"""Results of tools without labels; the label, if any, stands in another result of the same id."""
DRAWN = frozenset(
    {
        "ellipse",
        "ellipselabels",
        "keypoint",
        "keypointlabels",
        "labels",
        "rectangle",
        "rectanglelabels",
        "vector",
        "vectorlabels",
        "videorectangle",
    }
)
"""Types of results that show places of an image without saying which pixels are what."""
NO_PAINT = DRAWN | {
    "choices",
    "chatmessage",
    "datetime",
    "hypertextlabels",
    "number",
    "pairwise",
    "paragraphlabels",
    "ranker",
    "rating",
    "relation",
    "taxonomy",
    "textarea",
    "timelinelabels",
    "timeserieslabels",
}
"""Other types of results that Label Studio writes: they say something else than paint."""


def read_paint(
    results: Any,
    class_names: Sequence[str],
    size: tuple[int, int],
    background: str | None = None,
) -> Painted:
    """What was painted, and what was left out.

    A result tells its type and label itself: it is read whatever the control that it was made with
    is called, and whether the label config still has that control or not.

    Where strokes overlap, what a person changed or made lies over untouched predictions, and the
    later over the earlier. A picture that was shown enlarged is averaged down to `size`. A stroke
    with a label that is none of `class_names` makes its pixels VOID.

    Args:
        results: of one annotation, in its order; whatever was sent.
        class_names: by class index.
        size: (height, width) of the mask.
        background: the class of unpainted pixels, but for those that an import says to be void;
            None: they are VOID.

    Raises:
        ValueError: if `background` is none of the classes.
    """
    ground = None if background is None else _class_index(background, class_names, "background")
    reading = _Reading(class_names, size)
    reading.read(results)
    mask, is_made, drawn = reading.paint(ground)
    return Painted(mask, is_made, drawn, reading.labels, tuple(reading.left_out))


def drawn_instead(results: Any) -> tuple[str, ...]:
    """The types of what was drawn in an annotation without any stroke; empty where there is one.

    Nothing can be said of the pixels of such an annotation: it was made for something else.
    """
    objects, _ = objects_of(results)
    kinds = {_type(it) for it in objects}
    return () if kinds & (UNLABELLED | STROKES.keys()) else tuple(sorted(kinds & DRAWN))


def others_paint(
    results: Sequence[Any], class_names: Sequence[str], size: tuple[int, int]
) -> Painted:
    """What a prediction of others shows: strokes of any control; what it does not show is VOID.

    Whatever of it cannot be read, or is of another class, is left out alone: it is a first mask,
    which people correct.
    """
    strokes = [it for it in results if isinstance(it, Mapping) and _type(it) in STROKES]
    return read_paint(strokes, class_names, size)


class _Reading:
    """Strokes as they are read: what they paint, and what was wrong.

    labels: the classes, and what is none of them and strokes are called.
    left_out: what was wrong.
    """

    def __init__(self, class_names: Sequence[str], size: tuple[int, int]) -> None:
        self._class_names = class_names
        self.labels = list(class_names)
        self._size = size
        self._layers: list[tuple[int, Result, Stroke]] = []
        self._doubtful: list[Stroke] = []
        self._is_place_lost = False
        self._void: Stroke | None = None
        self.left_out: list[str] = []

    def read(self, results: Any) -> None:
        """Sort every result: into the layers, or what is left out, or it is no paint."""
        objects, self.left_out = objects_of(results)
        strokes = self._strokes(objects)
        limit, cost = most_cost(self._size), self._read_void(strokes)
        for number, result in enumerate(strokes, start=1):
            cost += self._read(result)
            if cost > limit:
                self._give_up(number, len(strokes), cost, limit)
                return

    def paint(self, ground: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(height, width) uint8 class indices; `ground` where nobody painted, None: VOID.

        And as bool which of its pixels somebody made, and as uint8 indices of `labels` the strokes
        alone.
        """
        drawn = np.full(self._size, VOID, np.uint8)
        is_touched = np.zeros(self._size if ground is not None else (0, 0), bool)
        is_made = np.zeros(self._size, bool)
        for index, result, stroke in self._layers:
            try:
                window, covered = stroke.pixels()
                made = made_by_person(result, covered)
            except AnnotationError as error:
                self._leave_out(error)
                continue
            drawn[window][covered & (made | ~is_made[window])] = index
            is_made[window] |= made
            if ground is not None:
                is_touched[window] |= covered
        is_class = drawn < len(self._class_names)
        mask: np.ndarray = np.where(is_class, drawn, np.uint8(VOID))
        if ground is not None:
            self._fill(mask, is_touched, ground)
        return mask, is_made, drawn

    def _fill(self, mask: np.ndarray, is_touched: np.ndarray, ground: int) -> None:
        """Make background of what nobody touched and nothing is said of."""
        for stroke in [*self._doubtful, *([self._void] if self._void else [])]:
            try:
                window, covered = stroke.pixels()
                is_touched[window] |= covered
            except AnnotationError as error:
                self._leave_out(error)
        if not self._is_place_lost:
            mask[~is_touched] = ground

    def _strokes(self, objects: Sequence[Result]) -> list[Result]:
        """The results that paint."""
        strokes = [it for it in objects if _type(it) in STROKES]
        labelled = {name_of(it) for it in strokes}
        for result in objects:
            kind = _type(result)
            if kind in UNLABELLED and name_of(result) not in labelled:
                self.left_out.append(f"result {name_of(result)}, a {kind}, has no label")
                self._is_place_lost = True
            elif kind not in UNLABELLED | NO_PAINT | STROKES.keys():
                self.left_out.append(
                    f"result {name_of(result)} has the type {shown(result.get('type'))}, which is "
                    f"none of {', '.join(STROKES)}"
                )
        return strokes

    def _read(self, result: Result) -> int:
        """Read one stroke; what it costs to paint."""
        try:
            stroke = read_stroke(result, self._size)
        except AnnotationError as error:
            self._leave_out(error)
            return 0
        try:
            self._layers.append((self._index(result), result, stroke))
        except AnnotationError as error:
            self.left_out.append(str(error))
            self._doubtful.append(stroke)
        return stroke.cost

    def _read_void(self, strokes: Sequence[Result]) -> int:
        """Read what nothing is known of; what it costs to paint."""
        try:
            self._void = read_void(strokes, self._size)
        except AnnotationError as error:
            self._leave_out(error)
        return self._void.cost if self._void else 0

    def _index(self, result: Result) -> int:
        name = _label(result)
        try:
            return _class_index(name, self._class_names, f"result {name_of(result)}")
        except AnnotationError as error:
            self.left_out.append(f"{error}; what it covers is void")
        if name not in self.labels and len(self.labels) < VOID:
            self.labels.append(name)
        return self.labels.index(name) if name in self.labels else VOID

    def _leave_out(self, error: AnnotationError) -> None:
        self.left_out.append(str(error))
        self._is_place_lost |= not isinstance(error, NothingDrawn)

    def _give_up(self, number: int, total: int, cost: int, limit: int) -> None:
        """So many strokes would take minutes: none is painted."""
        self._layers, self._doubtful, self._is_place_lost = [], [], True
        self.left_out.append(
            f"the first {number} of its {total} strokes cover {cost} pixels, more than the {limit} "
            f"that are painted on an image of {self._size[1]} x {self._size[0]}; merge strokes of "
            "one label, or delete those that lie under others"
        )


def _type(result: Result) -> str:
    kind = result.get("type")
    return kind if isinstance(kind, str) else ""


def _label(result: Result) -> str:
    labels: Any = value_of(result).get(_type(result))
    name = labels[0] if isinstance(labels, list) and labels else None
    if not isinstance(name, str) or any(label != name for label in labels):
        raise AnnotationError(
            f"result {name_of(result)} has the labels {shown(labels)}, expected exactly one; "
            "choose one label for each stroke"
        )
    return name


def _class_index(name: str, class_names: Sequence[str], where: str) -> int:
    try:
        return class_names.index(name)
    except ValueError:
        raise AnnotationError(
            f"{where} has the label {shown(name)}, which is not one of "
            f"{shortened(', '.join(class_names), 100)}; add it to the label config or repair the "
            "annotation"
        ) from None
