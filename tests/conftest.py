"""Where tests find the shared real images and weights, and how torch behaves under test."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ralis_backend.settings import use_restored_hub_cache
from tests.real_parts import SHARED, missing
from tests.tiny_dataset import tiny_dataset  # noqa: F401  (a fixture)

if TYPE_CHECKING:
    from ralis_backend.core.segmenter import SegmenterSpec


_CACHE_COPY = tempfile.TemporaryDirectory(prefix="ralis-hf-cache-")


def _stay_offline() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    if (SHARED / "hf-cache").is_dir():
        os.environ["HF_HUB_CACHE"] = str(SHARED / "hf-cache")
        use_restored_hub_cache(Path(_CACHE_COPY.name))


MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 * 1024**3


def _work_in_memory() -> None:
    """Thousands of files and transactions wait to be safe: on a disk for milliseconds each."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


_work_in_memory()
_stay_offline()  # here, before a conftest below imports huggingface_hub, which reads them once


def pytest_configure(config: pytest.Config) -> None:
    import torch

    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files whose tests may take longest begin first: the end must not wait for one of them."""
    if os.environ.get("RALIS_STRIDE") != "1":
        _thin_out(config, items)
    longest: dict[Path, float] = {}
    for item in items:
        timeout = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0), timeout.args[0] if timeout else 0)
    items.sort(key=lambda item: -longest[item.path])


def _thin_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of what each slow test marked `sweep` goes through, keep the first and the last."""
    sweeps: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sweep") and item.get_closest_marker("e2e"):
            name = item.name.partition("[")[0]
            sweeps.setdefault((item.path, name), []).append(item)
    left_out = {item for sweep in sweeps.values() for item in sweep[1:-1]}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def pytest_collection_finish() -> None:
    """What is imported stays to the end: looking for garbage in it took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")


@pytest.fixture(autouse=True)
def _unchanged_logging() -> Iterator[None]:
    """A command of `ralis` that runs in this process sets up logging; the next test has its own."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and ImageNet weights."""
    if not (SHARED / "data").is_dir():
        missing(f"{SHARED} holds no data; set RALIS_SHARED to the folder with data/ and hf-cache/")
    return SHARED


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with today's tables, to be copied: that takes a fifth of making them."""
    from ralis_backend.online.store import Store

    folder = tmp_path_factory.mktemp("empty-database")
    Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs").close()
    return folder / "ralis.db"


@pytest.fixture
def closed_stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A web app's store lives as long as its process; here it is closed with the test."""
    from ralis_backend.online.store import Store

    opened: list[Store] = []
    open_store = Store.open

    def remembered(url: str, root: Path) -> Store:
        opened.append(open_store(url, root))
        return opened[-1]

    monkeypatch.setattr(Store, "open", remembered)
    yield
    for store in opened:
        store.close()


@pytest.fixture
def tiny_segmenters(monkeypatch: pytest.MonkeyPatch) -> SegmenterSpec:
    """A spec of segmenters of another package, which is registered."""
    from ralis_backend.core.segmenter import SEGMENTERS, SegmenterSpec  # torch: only where asked
    from tests.tiny_segmenter import TinySegmenter

    monkeypatch.setitem(SEGMENTERS, TinySegmenter.kind, TinySegmenter)
    return SegmenterSpec(3, TinySegmenter.kind, encoder_weights=None)
