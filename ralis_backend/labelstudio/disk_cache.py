"""Files on disk within a bound, shared by threads and processes."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from ralis_backend.core.files import write_bytes

logger = logging.getLogger(__name__)


class DiskCache:
    """Files by key; the least recently used are deleted beyond a number of bytes."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._unseen_bytes: int | None = None  # written here since the folder was looked through
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """The file's content; None if it is not there."""
        path = self._folder / key
        try:
            content = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # a read-only cache still serves
            os.utime(path)
        return content or None  # empty: the machine went down while it was written

    def put(self, key: str, content: bytes) -> None:
        """Keep a file; a disk that refuses is logged."""
        if len(content) > self._max_bytes:
            return
        try:
            self._write(key, content)
        except OSError as error:
            logger.warning("the image cache %s cannot be written: %s", self._folder, error)

    def _write(self, key: str, content: bytes) -> None:
        write_bytes(self._folder / key, content, survives_power_loss=False)
        with self._lock:
            if self._unseen_bytes is not None:
                self._unseen_bytes += len(content)
            # Other processes write here too: nobody goes far without looking.
            if self._unseen_bytes is None or self._unseen_bytes > 0.05 * self._max_bytes:
                self._shrink()
                self._unseen_bytes = 0

    def _shrink(self) -> None:
        """Delete the least recently used files down to nine tenths, if there are too many."""
        files = []
        for path in self._folder.iterdir():
            try:
                stat = path.stat()
            except OSError:
                continue  # another process deleted it
            files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(files):
            if total <= 0.9 * self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
