"""An image's address in the labelling tool -> the name of the file that somebody put there."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

_PREFIX = re.compile(r"^[0-9a-f]{8}-")


def uploaded_name(reference: str) -> str:
    """The file's name, with its suffix.

    `road.png` of `/data/upload/3/1a2b3c4d-road.png`, whose prefix keeps uploads apart, of
    `/data/local-files/?d=photos/road.png` and of `https://example.com/road.png`; `image` of
    one that stands in its task.
    """
    if reference[:5].lower() == "data:":
        return "image"
    try:
        parts = urlsplit(reference)
    except ValueError:  # no address; its last part still is a name
        return PurePosixPath(reference).name
    local = parse_qs(parts.query).get("d")
    path = PurePosixPath(local[0] if local else unquote(parts.path))
    return _PREFIX.sub("", path.name)
