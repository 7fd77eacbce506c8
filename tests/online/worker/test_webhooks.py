from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ralis_backend.labelstudio.payloads.events import MOST_IDS, event_payload
from ralis_backend.online.store import Store
from ralis_backend.online.store.attempts import STEP
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import Hint
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker.sync import MOST_HINTED, Sync
from tests.online.conftest import RANKING
from tests.online.fake_tool import CLASSES, FakeTool
from tests.online.worker.test_attempts import DIED, in_a_child
from tests.online.worker.test_tool_reader import add_region

CONFIG = WorkerConfig(ranking=RANKING)


@pytest.fixture
def tool() -> FakeTool:
    tool = FakeTool(2)
    add_region(tool, 11, 1, 32)
    add_region(tool, 12, 2, 32)
    return tool


@pytest.fixture
def sync(store: Store, tool: FakeTool) -> Sync:
    store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    sync = Sync(store, tool, CONFIG)
    sync.full(the(store))
    return sync


def the(store: Store) -> Project:
    return store.projects.all()[0]


def asked(tool: FakeTool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tasks are asked for in each call from now on."""
    numbers: list[int] = []
    annotations = tool.annotations

    def counted(project_id: int, task_ids: list[int]) -> Any:
        numbers.append(len(task_ids))
        return annotations(project_id, task_ids)

    monkeypatch.setattr(tool, "annotations", counted)
    return numbers


@pytest.mark.parametrize("is_stored_whole", [False, True])
def test_a_webhook_that_names_a_million_tasks_is_not_followed_and_everything_is_read(
    store: Store,
    tool: FakeTool,
    sync: Sync,
    monkeypatch: pytest.MonkeyPatch,
    is_stored_whole: bool,
):
    forged: dict[str, Any] = {"tasks": list(range(1, 100_001)), "annotations": [{"id": 1}]}
    tool.annotate(11)
    numbers = asked(tool, monkeypatch)
    payload = forged if is_stored_whole else event_payload(forged)
    store.events.add("2.200", "ANNOTATION_CREATED", payload)
    assert sync.events(the(store))
    assert numbers == []
    assert the(store).is_sync_requested
    sync.full(the(store))
    assert numbers == [1]
    assert len(store.labels.of(the(store).id)) == 1


def test_many_webhooks_that_name_many_tasks_each_are_not_followed_either(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    tool.annotate(11)
    numbers = asked(tool, monkeypatch)
    for place in range(20):
        ids = list(range(place * MOST_IDS + 20, place * MOST_IDS + 20 + MOST_IDS // 2))
        store.events.add("2.200", "ANNOTATION_CREATED", event_payload({"tasks": ids}))
    sync.events(the(store))
    assert all(number <= MOST_HINTED for number in numbers)
    assert the(store).is_sync_requested
    sync.full(the(store))
    assert len(store.labels.of(the(store).id)) == 1


class DeadlyTool(FakeTool):
    """What a webhook says ends whatever process reads it."""

    def hint(self, action: str, payload: Mapping[str, Any]) -> Hint:
        os._exit(DIED)


def test_webhooks_that_end_the_worker_three_times_are_set_aside_and_no_label_is_lost(
    store: Store, tmp_path: Path
):
    tool = DeadlyTool(2)
    add_region(tool, 11, 1, 32)
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    Sync(store, tool, CONFIG).full(project)
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(11))
    store.close()

    def work() -> None:
        child = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
        child.attempts.begin(project.id, STEP, "events")
        Sync(child, tool, CONFIG).events(the(child))
        child.attempts.end(project.id, STEP, "events")

    assert [in_a_child(work) for _ in range(4)] == [DIED, DIED, DIED, 0]
    assert store.events.unread(the(store)) == []
    assert store.attempts.notes(project.id) == []
    assert the(store).is_sync_requested
    Sync(store, tool, CONFIG).full(the(store))
    assert len(store.labels.of(project.id)) == 1
