"""Masks of labels that were painted otherwise since: their files go a day after no row names them.

A mask's file has the name of its content: it may come into use again at any moment, also by
another process. So it is used anew by touching it, and taken away before it is deleted.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from ralis_backend.core.files import PARTIAL
from ralis_backend.online.store import Store

logger = logging.getLogger(__name__)

UNUSED_S = 86_400.0
"""Longer than any training or export that has begun with the mask."""

_Stamp = tuple[int, int]
"""Size and time of a file."""


class UnusedMasks:
    """Looks again and again, and counts by its own clock for how long a file is not in use."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unused: dict[str, tuple[_Stamp, float]] = {}  # by key, since when

    def remove(self) -> int:
        """Delete the files that were unused and untouched at every look of a day; their number.

        Where no label is stored, nothing is: the database may not be the one of these files.
        """
        found = self._stamps()
        used = self._store.labels.mask_keys()
        moment = time.monotonic()
        before, self._unused = self._unused, {}
        for key, stamp in found.items() if used else ():
            if key not in used:
                known, since = before.get(key, (stamp, moment))
                self._unused[key] = (stamp, since if known == stamp else moment)
        old = [key for key, (_, since) in self._unused.items() if moment - since >= UNUSED_S]
        taken = [key for key in old if self._take_away(key)]
        if not taken:
            return 0
        back = self._store.labels.mask_keys()
        return sum(self._delete(key, is_used=key in back) for key in taken)

    def _stamps(self) -> dict[str, _Stamp]:
        root = self._store.blobs.root
        found = {}
        for path in (root / "labels").rglob("*.png"):
            with suppress(FileNotFoundError):
                if not path.name.startswith(PARTIAL):
                    found[path.relative_to(root).as_posix()] = _stamp(path)
        return found

    def _take_away(self, key: str) -> bool:
        """Under another name whoever uses it anew writes it anew."""
        try:
            self._store.blobs.path(key).rename(self._aside(key))
        except FileNotFoundError:  # another worker was first
            return False
        return True

    def _delete(self, key: str, *, is_used: bool) -> bool:
        """Unless it came into use at the last moment: then it is put back."""
        aside, (stamp, _) = self._aside(key), self._unused.pop(key)
        with suppress(FileNotFoundError):
            if not is_used and _stamp(aside) == stamp:
                aside.unlink()
                return True
            aside.rename(self._store.blobs.path(key))
        return False

    def _aside(self, key: str) -> Path:
        path = self._store.blobs.path(key)
        return path.with_name(f"{PARTIAL}{path.name}")


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
