"""Files of the store (masks, weights) behind one small interface: keys in, bytes out."""

from __future__ import annotations

import re
import shutil
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

    def delete_folder(self, prefix: str) -> None:
        """Delete every blob whose key starts with `prefix/`; none is fine."""
        shutil.rmtree(self.path(f"{prefix}/x.y").parent, ignore_errors=True)
