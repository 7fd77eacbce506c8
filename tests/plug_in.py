"""Packages that bring plug-ins along, as pip leaves them in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests import REPOSITORY
from tests.tiny_segmenter import TinySegmenter


def install(site: Path, name: str, version: str, entry_points: Mapping[str, str]) -> None:
    """Write a package's metadata; its modules are written by whoever has them.

    Args:
        site: the folder, which is or comes to be on Python's path.
        name, version: of the package.
        entry_points: `name = module:object`, a line each, by group.
    """
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sections = [f"[{group}]\n{entries}\n" for group, entries in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(sections))


def with_tiny_segmenter(site: Path) -> dict[str, str]:
    """Environment of `ralis` processes that train the tests' tiny segmenter: it takes a second."""
    kind = TinySegmenter.kind
    brought = {"ralis_backend.segmenters": f"{kind} = tests.tiny_segmenter:TinySegmenter"}
    install(site, "tiny-segmenter", "1.0", brought)
    return {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(site)]),
        "RALIS_ARCHITECTURE": kind,
        "RALIS_ENCODER_WEIGHTS": "none",
    }
