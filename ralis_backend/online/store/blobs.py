"""Files of the store (masks, weights) behind one small interface: keys in, bytes out."""

from __future__ import annotations

import os
import re
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from ralis_backend.core.files import write_bytes

_KEY = re.compile(r"[a-z]+(/[A-Za-z0-9_-]+)+\.[a-z0-9]+")


class BlobStore:
    """Files below one folder. A reader sees a whole file or none."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, content: bytes) -> str:
        """Write `content` under `key`; an older file of that name is replaced."""
        write_bytes(self.path(key), content)
        return key

    def have(self, key: str, content: bytes) -> str:
        """As `put` of what is named by its content: what is there already is as new as if put."""
        try:
            os.utime(self.path(key))
        except FileNotFoundError:
            self.put(key, content)
        return key

    def get(self, key: str) -> bytes:
        """The bytes under `key`; `FileNotFoundError` if there are none."""
        return self.path(key).read_bytes()

    def path(self, key: str) -> Path:
        """Where `key` lies on disk, for writers that need a file.

        Raises:
            ValueError: if the key could leave the folder.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"blob key {key!r} is not of the form folder/name.suffix")
        return self.root / key

    def delete(self, key: str) -> None:
        """Delete the file under `key`; none is fine."""
        self.path(key).unlink(missing_ok=True)

    def keep_only(self, prefix: str, keys: Set[str]) -> int:
        """Delete what lies below `prefix/` and is not among `keys`; the number of files deleted."""
        folder = self.path(f"{prefix}/x.y").parent
        unused = [
            path
            for path in folder.rglob("*")
            if path.is_file() and path.relative_to(self.root).as_posix() not in keys
        ]
        for path in unused:
            path.unlink(missing_ok=True)
        for emptied in sorted(folder.rglob("*/"), reverse=True) if folder.is_dir() else ():
            with suppress(OSError):  # not empty
                emptied.rmdir()
        return len(unused)
