"""An image's address in the labelling tool -> what people know it by: a name, and where it lies."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode
from pathlib import PurePosixPath
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from ralis_backend.core.text import shortened

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".webp", ".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo",
})  # fmt: skip
MAX_ADDRESS = 2000
"""Characters of an address that people are shown."""
_UPLOAD = re.compile(r"(?:^|/)upload/\d+/[0-9a-f]{8}-([^/]*)$")
_BUCKETS = ("s3", "gs", "azure-blob", "azure_spi", "dbfs")
"""Schemes whose addresses are keys as they are: nothing in them is encoded or a query."""
_PATH_PARAMETERS = re.compile(r";[A-Za-z_]+=[^/]*")
"""`;jsessionid=...` at the end of a part."""
_OF_THE_FILE = frozenset(
    {"d", "file", "filename", "id", "image", "img", "name", "path", "src", "uri", "url"}
)
"""Parameters of a query that say which file is meant; any other may open it to whoever reads it."""


def uploaded_name(reference: str) -> str:
    """The file's name, with its suffix, as whoever put it there knows it.

    `road.png` of `/data/upload/3/1a2b3c4d-road.png`, whose prefix keeps uploads apart, of
    `/data/local-files/?d=photos/road.png`, of `https://example.com/road.png`, of
    `s3://bucket/road.png`, and of `/tasks/7/resolve/?fileuri=...`, which is that in base64. Where
    the path names no image and the query does, it is the query's. Empty where there is none.
    """
    parts = _split(place(reference))
    if parts.scheme == "data":
        return ""
    if parts.scheme in _BUCKETS:
        return _name(parts.path)
    of_path, query = _name(unquote(parts.path)), parse_qsl(parts.query)
    if parts.path.endswith("/local-files/"):
        return _name(dict(query).get("d", ""))
    named = [of_path, *(_name(value.partition("?")[0]) for _, value in query)]
    return next(filter(_is_image, named), of_path)


def place(reference: str) -> str:
    """Where the file really lies: what a resolving address carries, else the address itself."""
    parts = _split(reference)
    for key, value in parse_qsl(parts.query):
        if key == "fileuri":
            return _decoded(value)
    return reference


def shown_address(reference: str) -> str:
    """Where the file lies, for people: without user, password, signature or token.

    Of a query only what says which file is meant is kept; of `data:` addresses the type alone.
    """
    shown = place(reference)
    parts = _split(shown)
    if parts.scheme == "data":
        return f"data:{shortened(parts.path.partition(',')[0], 100)}"
    if parts.scheme in _BUCKETS:
        return shortened(shown, MAX_ADDRESS)
    kept = [
        (key, re.sub(r"//[^/]*@", "//", value.partition("?")[0].partition("#")[0]))
        for key, value in parse_qsl(parts.query)
        if key.lower() in _OF_THE_FILE
    ]
    public = parts._replace(
        netloc=parts.netloc.rpartition("@")[2],
        path=_PATH_PARAMETERS.sub("", parts.path),
        query=urlencode(kept, safe="/:.", quote_via=quote),
        fragment="",
    )
    return shortened(public.geturl(), MAX_ADDRESS)


def _split(reference: str) -> SplitResult:
    """The parts of an address; a bucket's key is one path, whatever signs are in it.

    What is no address is a path, and what looks like its query is none.
    """
    scheme, separator, rest = reference.partition("://")
    if separator and scheme.lower() in _BUCKETS:
        bucket, slash, key = rest.partition("/")
        return SplitResult(scheme.lower(), bucket, slash + key, "", "")
    try:
        return urlsplit(reference)
    except ValueError:
        path = re.split("[?#]", rest or scheme, maxsplit=1)[0]
        return SplitResult("", "", re.sub(r"^[^/]*@", "", path), "", "")


def _name(path: str) -> str:
    uploaded = _UPLOAD.search(path)
    plain = _PATH_PARAMETERS.sub("", path).rstrip("/")
    return uploaded[1] if uploaded else re.split(r"[/\\]", plain)[-1]


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _decoded(value: str) -> str:
    """What the tool writes as base64; older releases wrote it as it is."""
    try:
        text = urlsafe_b64decode(value.encode() + b"=" * (-len(value) % 4)).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return unquote(value)
    return text if "/" in text and text.isprintable() else unquote(value)
