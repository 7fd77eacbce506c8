"""Where tests find the shared real images and weights, and how torch behaves under test."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("RALIS_SHARED", ROOT.parent / "shared"))


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    cache = SHARED / "hf-cache"
    if cache.is_dir():  # before anything imports huggingface_hub, which reads them once
        os.environ["HF_HUB_CACHE"] = str(_usable_cache(cache, config))
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and ImageNet weights."""
    if not (SHARED / "data").is_dir():
        message = f"{SHARED} holds no data; set RALIS_SHARED to the folder with data/ and hf-cache/"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return SHARED


def _usable_cache(cache: Path, config: pytest.Config) -> Path:
    """The cache itself, or a copy with its links restored.

    A copy that was made without support for symbolic links holds their targets as text, and the
    hub would hand out that text as weights.
    """
    broken = [path for path in cache.glob("*/snapshots/*/*") if _link_target(path) is not None]
    if not broken:
        return cache
    folder = tempfile.mkdtemp(prefix="ralis-hf-cache-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for path in cache.rglob("*"):
        copy = Path(folder) / path.relative_to(cache)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            shutil.copyfile(_link_target(path) or path, copy)
    return Path(folder)


def _link_target(path: Path) -> Path | None:
    if path.is_symlink() or path.stat().st_size > 200:
        return None
    text = path.read_bytes().decode(errors="replace")
    if not re.fullmatch(r"\.\./\.\./blobs/[0-9a-f]+", text):
        return None
    return path.parent / text
