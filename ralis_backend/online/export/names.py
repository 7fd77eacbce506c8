"""Images' addresses in the labelling tool -> file names that every file system takes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Protocol

from ralis_backend.online.file_names import IMAGE_SUFFIXES, place, uploaded_name

MAX_BYTES = 120
"""Of a name in UTF-8, without suffix; file systems take 255, some that encrypt 143."""
_RESERVED = re.compile(r"(con|prn|aux|nul|conin|conout|com[0-9]|lpt[0-9])(\..*)?", re.DOTALL)
"""Devices to Windows, whatever the suffix."""
_UNSEEN = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters and signs that show nothing."""


class Named(Protocol):
    """What a name is made from: an image of the store, or the columns of one."""

    id: int
    task_id: int
    ref: str
    is_deleted: bool


def unique_names(rows: Iterable[Named]) -> dict[int, str]:
    """A safe, unique file name without suffix for each image, by row id.

    It is the name by which people know the file; where several agree, the later ones get their
    task's id. Names that differ by capitals or in how their letters are composed count as one,
    since file systems may take them for one.

    Args:
        rows: all images that a project ever had, oldest first, those that are gone among them: a
            name that an export gave does not become another image's. An image that came back, from
            the same address, has its name again.
    """
    names: dict[int, str] = {}
    owners: dict[str, Named] = {}
    for row in rows:
        name = base = safe_name(stem(uploaded_name(row.ref)))
        number = 1
        while not _is_free(owners.get(alike(name)), row):
            name = f"{base}-{row.task_id}" if number == 1 else f"{base}-{row.task_id}-{number}"
            number += 1
        owners[alike(name)] = row
        names[row.id] = name
    return names


def stem(name: str) -> str:
    """A file's name without its suffix, if that is one of an image; `frame.0001` has none."""
    base, dot, suffix = name.rpartition(".")
    return base if dot + suffix.lower() in IMAGE_SUFFIXES else name


def safe_name(text: str, max_bytes: int = MAX_BYTES) -> str:
    """The text as a file name without suffix: letters, digits and pictograms of any script.

    Everything else becomes `_`, but for dots and hyphens inside. It is composed (NFC), so that it
    is the same on every system; not hidden, not reserved, not too long, and never empty.
    """
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c if _is_kept(c) else " " for c in composed if unicodedata.category(c) != "Cf")
    joined = re.sub(" +", "_", kept)
    cut = joined.lstrip("._-").encode()[:max_bytes].decode(errors="ignore")
    bare = cut.lstrip("".join(c for c in cut if unicodedata.category(c)[0] == "M")).strip("._-")
    if _RESERVED.fullmatch(alike(bare)):
        return f"image-{bare}"
    return bare or "image"


def alike(name: str) -> str:
    """The same for names that a file system may take for one."""
    plain = unicodedata.normalize("NFKC", name).upper().casefold()
    return unicodedata.normalize("NFKC", plain)


def _is_kept(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in "._-"
    category = unicodedata.category(character)
    return (category[0] in "LMN" or category in ("So", "Sk")) and character not in _UNSEEN


def _is_free(owner: Named | None, row: Named) -> bool:
    return owner is None or (owner.is_deleted and place(owner.ref) == place(row.ref) != "")
