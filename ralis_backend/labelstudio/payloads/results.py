"""One result of an annotation, as Label Studio writes it -> its checked fields, or an error."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

LARGEST_SCALE = 8
"""A region's picture shows each pixel so many times at most, in each direction."""
MAX_PIXELS = 100_000_000

Result = Mapping[str, Any]

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100


class AnnotationError(ValueError):
    """Something of an annotation that cannot be read; the message names it and what is wrong.

    NothingDrawn: a stroke that was begun and covers nothing.
    """


class NothingDrawn(AnnotationError):
    """A stroke without points or pixels: whatever it was to be, it hides no pixel."""


def shown(value: Any) -> str:
    """A value for messages, cut short: it may be megabytes long, or nested without end."""
    return _short.repr(value)


def name_of(result: Result) -> str:
    """The result's id, for messages."""
    return shown(result.get("id", "without id"))


def objects_of(results: Any) -> tuple[list[Result], list[str]]:
    """The results that are objects, in order, and what is said of the others."""
    listed = results if isinstance(results, (list, tuple)) else [results]
    odd = [
        f"result number {place} is {shown(result)}, expected an object"
        for place, result in enumerate(listed, start=1)
        if not isinstance(result, Mapping)
    ]
    return [result for result in listed if isinstance(result, Mapping)], odd


def value_of(result: Result) -> Mapping[str, Any]:
    """The result's `value`; `AnnotationError` if it is no object."""
    value = result.get("value")
    if not isinstance(value, Mapping):
        raise AnnotationError(
            f"result {name_of(result)} has the value {shown(value)}, expected an object"
        )
    return value


def number_of(result: Result, name: str, value: Any) -> float:
    """A number of the result; `AnnotationError` if it is none, or not finite."""
    try:
        if not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except (TypeError, OverflowError):
        pass
    raise AnnotationError(
        f"result {name_of(result)} has {name} {shown(value)}, expected a finite number"
    )


def picture_size(result: Result, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the picture that a result was made on.

    Raises:
        AnnotationError: if it cannot show an image of `size`: what was made on it belongs to
            another image, or would take far more memory than the image.
    """
    height, width = _pixels(result, "original_height"), _pixels(result, "original_width")
    picture = f"result {name_of(result)} is on an image of {width} x {height} pixels"
    if height * width > MAX_PIXELS:
        raise AnnotationError(f"{picture}, at most {MAX_PIXELS} are read")
    if abs(height * size[1] - width * size[0]) > max(height + width, sum(size)):  # 1 pixel's play
        raise AnnotationError(
            f"{picture}, expected the proportions of {size[1]} x {size[0]}; the image was replaced"
        )
    if height > LARGEST_SCALE * (size[0] + 1) or width > LARGEST_SCALE * (size[1] + 1):
        raise AnnotationError(
            f"{picture}, more than {LARGEST_SCALE} times as large as the {size[1]} x {size[0]} "
            "that it shows; the image was replaced"
        )
    return height, width


def refuse_other_picture(result: Result, size: tuple[int, int]) -> None:
    """`AnnotationError` if percentages of this result are of a replaced picture.

    Where the result does not say what it was made on, they are taken to be of the image.
    """
    if result.get("original_height") is not None or result.get("original_width") is not None:
        picture_size(result, size)


def _pixels(result: Result, name: str) -> int:
    value: Any = result.get(name)
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole or value < 1:
        raise AnnotationError(
            f"result {name_of(result)} has {name} {shown(value)}, expected a number of pixels"
        )
    if value > MAX_PIXELS:
        raise AnnotationError(
            f"result {name_of(result)} has {name} {shown(value)}, at most {MAX_PIXELS} are read"
        )
    return int(value)
