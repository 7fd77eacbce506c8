from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker, WorkerConfig
from tests.online.exported import grown as grown
from tests.online.fake_tool import CLASSES, FakeTool
from tests.online.store.conftest import image as image
from tests.online.store.conftest import project as project

RANKING = RankingConfig(
    strategy="entropy",
    region_size=(32, 32),
    regions_per_round=4,
    spec=SegmenterSpec(1, "tiny", encoder_weights=None),
)
TINY = FinetuneConfig(steps=3, batch_size=2, crop_size=(32, 32))

STRIDE = int(os.environ.get("RALIS_STRIDE", "16"))
"""Of the points at which something happens one in so many is tried; `make faults` tries more."""

MakeWorker = Callable[..., Worker]


@pytest.fixture(autouse=True)
def _tiny_segmenters(tiny_segmenters: SegmenterSpec) -> None:
    """The loop is tested here, not the network."""


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Iterator[Store]:
    shutil.copy(empty_database, tmp_path)
    opened = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    yield opened
    opened.close()


@pytest.fixture
def tool() -> FakeTool:
    return FakeTool()


@pytest.fixture
def make_worker(store: Store, tool: FakeTool) -> MakeWorker:
    def make(mode: str = "crops", **values: object) -> Worker:
        store.projects.register(
            tool.pool.uid, tool.pool.id, tool.pool.label_config, CLASSES, "pool"
        )
        # what comes when nothing is due has its own tests
        values = {"improve_s": 0.0, "ranking": RANKING, **values}
        config = WorkerConfig(mode=mode, finetune=TINY, **values)  # type: ignore[arg-type]
        return Worker(store, tool, config)

    return make


def settle(worker: Worker) -> None:
    """Let the worker do all that is due."""
    for _ in range(50):
        if not worker.advance_all():
            return
    raise AssertionError("the worker never comes to rest")


def label_round(store: Store, tool: FakeTool, count: int = 4) -> list[int]:
    """Annotate the head of the queue, with webhooks."""
    labelled = tool.queue()[:count]
    for task_id in labelled:
        store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    return labelled


@contextmanager
def selects(store: Store) -> Iterator[list[str]]:
    """What is read of the database meanwhile, in SQL."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            found.append(statement)

    event.listen(store.database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(store.database.engine, "before_cursor_execute", note)


def make_label(image_id: int, region: Region, **values: object) -> RegionLabel:
    """A painted label, as the store gives it."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    label = RegionLabel(
        id=1,
        oldest_id=1,
        annotation_row_id=1,
        image_id=image_id,
        region=region,
        is_skipped=False,
        mask_key=None,
        pixels=(),
        annotator="ann",
        created_at=moment,
        updated_at=moment,
        lead_time_s=None,
        round=None,
        strategy=None,
        version=None,
    )
    return replace(label, **{"oldest_id": values.get("id", 1), **values})  # type: ignore[arg-type]
