"""Files of an export."""

from __future__ import annotations

from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Write a file of an export's folder; the folder it lies in is made where it is missing.

    The export as a whole is renamed when it is complete: one file need not be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
