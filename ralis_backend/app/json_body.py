"""A request's body to a JSON object, within bounds that are checked before it is parsed."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from flask import Request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

MAX_DEPTH = 64
"""Label Studio's deepest bodies nest about a dozen levels."""
EVENT_DEPTH = 4
"""Levels at which a webhook names its ids; masks and other results lie deeper."""


@dataclass(frozen=True)
class Bounds:
    """How much of a body there may be, and how much of it is parsed.

    Attributes:
        body_bytes: whole, as received; the app's own bound holds as well.
        parsed_bytes: of the text that is parsed.
        containers: arrays and objects; each takes 60 bytes and more, whatever it holds.
        strings: keys and texts; each takes 50 bytes and more.
        commas: values; those of masks are small numbers, which take 8 bytes each.
    """

    body_bytes: int
    parsed_bytes: int
    containers: int
    strings: int
    commas: int


WIDE = Bounds(
    body_bytes=1 << 40,
    parsed_bytes=1 << 40,
    containers=1_000_000,
    strings=4_000_000,
    commas=32_000_000,
)
"""For who has the backend's credentials."""
NARROW = Bounds(
    body_bytes=64 << 20,
    parsed_bytes=2 << 20,
    containers=50_000,
    strings=200_000,
    commas=200_000,
)
"""For who has a project's webhook secret: parsed within tens of milliseconds.

Of a painted picture's masks, which take most of a webhook, nothing is parsed.
"""

_CHUNK = 1 << 20


def read_json(request: Request) -> dict[str, Any]:
    """The body of a request, a JSON object in UTF-8; `{}` for an empty body of a GET.

    Raises:
        BadRequest: if it is no JSON object, nests too deeply or holds NaN.
        RequestEntityTooLarge: if it is longer than the app allows, or than `WIDE`.
        UnsupportedMediaType: if it is declared as something else.
    """
    body = _body(request, WIDE)
    if not body and request.method == "GET":
        return {}
    _require_json(request)
    _check_size(body)
    return _parsed(body)


def read_event(request: Request, bounds: Bounds) -> dict[str, Any]:
    """As `read_json`, of a webhook: what lies deeper than `EVENT_DEPTH` levels is left out.

    Arrays and objects that begin there are empty, however deep they nest; the bounds hold for what
    is left.
    """
    _require_json(request)
    body = _body(request, bounds)
    return _parsed(b"".join(_check(body, bounds, EVENT_DEPTH)))


def _body(request: Request, bounds: Bounds) -> bytes:
    if (request.content_length or 0) > bounds.body_bytes:
        raise RequestEntityTooLarge(f"the body has more than {bounds.body_bytes} bytes")
    body = request.get_data(cache=False)
    if request.content_length is None and len(body) == request.max_content_length:
        raise RequestEntityTooLarge  # Werkzeug cuts a streamed body at the limit
    return body


def _require_json(request: Request) -> None:
    if not request.is_json:
        raise UnsupportedMediaType("expected a body with Content-Type: application/json")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        # as text: of bytes `json` guesses the encoding, and another one hides signs from the bounds
        text = body.decode("utf-8-sig")
        with _without_collection():
            value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no valid JSON: {_without_content(error)}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be a JSON object, not {type(value).__name__}")
    return value


def _check_size(body: bytes, bounds: Bounds = WIDE) -> None:
    """Refuse what would take far more memory as values than as text, or nests too deeply."""
    for _ in _check(body, bounds, MAX_DEPTH):
        pass


def _check(body: bytes, bounds: Bounds, kept_depth: int) -> Iterator[bytes]:
    """What a body holds down to a depth, in pieces; refuses the body where a bound is passed.

    One pass in chunks, whatever the body holds. What is left out may nest as deep as it likes.
    """
    depth = start = length = containers = strings = commas = 0
    is_inside = False
    for text in _without_escapes(body):
        chunk = np.frombuffer(text, np.uint8)
        quotes = chunk == ord('"')
        inside = np.logical_xor.accumulate(quotes) ^ is_inside
        is_inside = bool(inside[-1])
        opening = ((chunk == ord("[")) | (chunk == ord("{"))) & ~inside
        closing = ((chunk == ord("]")) | (chunk == ord("}"))) & ~inside
        steps = opening.view(np.int8) - closing.view(np.int8)
        depths = depth + np.cumsum(steps, dtype=np.int32)
        depth = int(depths[-1])
        if kept_depth >= MAX_DEPTH and int(depths.max()) > MAX_DEPTH:
            raise BadRequest(f"the JSON body nests deeper than {MAX_DEPTH} levels")
        # a bracket that opens or closes what is too deep belongs to what holds it
        kept = np.minimum(depths, depths - steps) <= kept_depth
        length += int(kept.sum())
        containers += int((opening & kept).sum())
        strings += int((quotes & kept).sum()) // 2
        commas += int(((chunk == ord(",")) & ~inside & kept).sum())
        for count, most, what in (
            (length, bounds.parsed_bytes, "bytes"),
            (containers, bounds.containers, "arrays and objects"),
            (strings, bounds.strings, "texts"),
            (commas, bounds.commas, "values"),
        ):
            if count > most:
                raise RequestEntityTooLarge(f"the JSON body has more than {most} {what}")
        yield np.frombuffer(body, np.uint8, len(text), start)[kept].tobytes()
        start += len(text)


def _without_escapes(body: bytes) -> Iterator[bytes]:
    """The body in chunks, escaped backslashes and quotes blank; each has a byte at least."""
    carried = b""
    for start in range(0, len(body), _CHUNK):
        is_last = start + _CHUNK >= len(body)
        chunk = (carried + body[start : start + _CHUNK]).replace(b"\\\\", b"  ")
        carried = b"\\" if chunk.endswith(b"\\") and not is_last else b""
        chunk = chunk.removesuffix(carried).replace(b'\\"', b"  ")
        if chunk:
            yield chunk


class _Collection:
    """The garbage collector, which is off while at least one thread parses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_parsing = 0
        self._was_on = False

    @contextmanager
    def off(self) -> Iterator[None]:
        with self._lock:
            if self._num_parsing == 0:
                self._was_on = gc.isenabled()
                gc.disable()
            self._num_parsing += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_parsing -= 1
                if self._num_parsing == 0 and self._was_on:
                    gc.enable()


_without_collection = _Collection().off
"""Else it looks at all that is parsed again and again, and nothing of it is garbage yet."""


class _ConstantRefused(ValueError):
    """JSON knows neither NaN nor infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantRefused(f"{name} is not allowed in JSON")


def _without_content(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, _ConstantRefused | RecursionError):
        return str(error)
    return "a number is too long"  # the one other thing that the parser refuses
