"""A JPEG file -> how many scans its decoder goes through; nothing is decoded.

Each scan is a pass over all pixels, however few bytes it has.
"""

from __future__ import annotations

import re

SIGNATURE = b"\xff\xd8\xff"
MAX_SCANS = 100
"""Encoders write about ten. libtiff has the same bound for pictures inside a TIFF."""
_MAX_MARKERS = 10_000

_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
"""None of those that stand among a scan's data."""
_END, _SCAN = 0xD9, 0xDA
_WITH_LENGTH = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE))


class JpegError(ValueError):
    """The file asks for work out of proportion; the message says for what."""


def check_scans(content: bytes) -> None:
    """Return if the first picture of a JPEG file is decoded in a usual number of passes.

    Raises:
        JpegError: if it has too many.
    """
    num_scans, place = 0, 2
    for _ in range(_MAX_MARKERS):
        found = _MARKER.search(content, place)
        if found is None or found[1][0] == _END:
            return
        num_scans += found[1][0] == _SCAN
        if num_scans > MAX_SCANS:
            raise JpegError(
                f"the JPEG file has more than {MAX_SCANS} scans, each of which is a pass over all "
                "its pixels; progressive files have about ten: save it again"
            )
        place = found.end()
        if found[1][0] in _WITH_LENGTH:
            place += max(2, int.from_bytes(content[place : place + 2], "big"))
    raise JpegError(f"the JPEG file has more than {_MAX_MARKERS} segments; save it again")
