from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.online.ranking import RankingConfig
from ralis_backend.online.store import ProjectStore
from ralis_backend.online.worker import Worker, WorkerConfig
from tests.online.fake_tool import CLASSES, FakeTool

RANKING = RankingConfig(
    strategy="entropy",
    region_size=(32, 32),
    regions_per_round=4,
    spec=SegmenterSpec(1, encoder_weights=None),
)
TINY = FinetuneConfig(steps=3, batch_size=2, crop_size=(32, 32))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    opened = ProjectStore.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    yield opened
    opened.close()


@pytest.fixture
def tool() -> FakeTool:
    return FakeTool()


@pytest.fixture
def make_worker(store: ProjectStore, tool: FakeTool) -> Callable[..., Worker]:
    def make(mode: str = "crops", **values: object) -> Worker:
        store.register(tool.pool.uid, tool.pool.id, tool.pool.label_config, CLASSES, "pool")
        config = WorkerConfig(mode=mode, ranking=RANKING, finetune=TINY, **values)  # type: ignore[arg-type]
        return Worker(store, tool, config)

    return make


def settle(worker: Worker) -> None:
    """Let the worker do all that is due."""
    for _ in range(50):
        if not worker.advance_all():
            return
    raise AssertionError("the worker never comes to rest")
