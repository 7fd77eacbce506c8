from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from ralis_backend.labelstudio.errors import LabelStudioError, Unauthorised, Unavailable
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolProject
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker.loop import standing_notes
from ralis_backend.online.worker.sync import Sync
from tests.online.conftest import RANKING
from tests.online.fake_tool import CLASSES, FakeTool
from tests.online.worker.test_tool_reader import add_region

NUM_TASKS = 40
Spoil = Callable[[Exception, set[int]], list[int]]


@pytest.fixture
def tool() -> FakeTool:
    tool = FakeTool(4)
    for number in range(NUM_TASKS):
        add_region(tool, 100 + number, 1 + number % 4, 32)
    return tool


@pytest.fixture
def sync(store: Store, tool: FakeTool) -> Sync:
    store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    sync = Sync(store, tool, WorkerConfig(ranking=RANKING))
    sync.full(the(store))
    return sync


@pytest.fixture
def spoil(tool: FakeTool, monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Whoever asks for one of these tasks gets an error; how many are asked for in each call."""
    annotations = tool.annotations

    def spoilt(error: Exception, task_ids: set[int]) -> list[int]:
        asked: list[int] = []

        def answer(project_id: int, wanted: list[int]) -> Any:
            asked.append(len(wanted))
            if task_ids & set(wanted):
                raise error
            return annotations(project_id, wanted)

        monkeypatch.setattr(tool, "annotations", answer)
        return asked

    return spoilt


def the(store: Store) -> Project:
    return store.projects.all()[0]


def tell(store: Store, tool: FakeTool, *task_ids: int) -> None:
    for task_id in task_ids:
        store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))


def num_labels(store: Store) -> int:
    return len(store.labels.every(the(store).id))


@pytest.mark.parametrize(
    "error", [Unavailable("broken JSON"), LabelStudioError("odd"), KeyError("x"), MemoryError()]
)
@pytest.mark.parametrize("has_webhooks", [True, False])
def test_one_task_that_spoils_the_answer_costs_the_others_nothing(
    store: Store,
    tool: FakeTool,
    sync: Sync,
    spoil: Spoil,
    error: Exception,
    has_webhooks: bool,
):
    asked = spoil(error, {117})
    for task_id in range(100, 100 + NUM_TASKS):
        if has_webhooks:
            tell(store, tool, task_id)
        else:
            tool.annotate(task_id)
    for _ in range(3):
        with suppress(type(error)):
            sync.events(the(store))
            sync.full(the(store))
    assert num_labels(store) == NUM_TASKS - 1
    assert len(asked) < 20
    assert "task 117 in project 2 cannot be read: " in str(standing_notes(store, the(store).id))
    assert store.events.unread(the(store)) == []
    spoil(error, set())
    sync.full(the(store))
    assert num_labels(store) == NUM_TASKS
    assert standing_notes(store, the(store).id) is None


def test_a_failure_that_does_not_come_again_is_no_reason_to_ask_in_halves(
    store: Store, tool: FakeTool, sync: Sync, spoil: Spoil
):
    tell(store, tool, 100, 101)
    for _ in range(3):
        asked = spoil(Unavailable("busy"), {100})
        with pytest.raises(Unavailable):
            sync.events(the(store))
        assert asked == [2]
        asked = spoil(Unavailable("busy"), set())
        sync.events(the(store))
        assert asked == [2]
        tell(store, tool, 100, 101)
    assert store.attempts.notes(the(store).id) == []


@pytest.mark.parametrize("error", [Unavailable("refused"), Unauthorised("401")])
def test_a_tool_that_does_not_answer_is_not_asked_task_by_task(
    store: Store,
    tool: FakeTool,
    sync: Sync,
    spoil: Spoil,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
):
    tell(store, tool, *range(100, 100 + NUM_TASKS))
    project, is_begun = tool.project, []

    def down_after_the_first_call(project_id: int) -> Any:
        is_begun.append(True)
        if len(is_begun) > 1:
            raise error
        return project(project_id)

    for _ in range(3):
        asked = spoil(error, set(range(100, 100 + NUM_TASKS)))
        is_begun.clear()
        monkeypatch.setattr(tool, "project", down_after_the_first_call)
        with pytest.raises(type(error)):
            sync.events(the(store))
        assert len(asked) == 1
    assert store.attempts.notes(the(store).id) == []
    monkeypatch.setattr(tool, "project", project)
    spoil(error, set())
    sync.events(the(store))
    assert num_labels(store) == NUM_TASKS


def test_what_cannot_be_stored_of_one_task_costs_the_others_nothing(
    store: Store, tool: FakeTool, sync: Sync
):
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    tool.annotate(100, [{"mask": tool.truth(100).tolist(), "x": nested}])
    tool.annotate(101)
    sync.full(the(store))
    assert num_labels(store) == 1
    assert "task 100 in project 2 cannot be read" in str(store.attempts.notes(the(store).id))
    tool.annotate(100, annotation_id=1)
    sync.full(the(store))
    assert num_labels(store) == 2
    assert store.attempts.notes(the(store).id) == []


def test_of_very_many_tasks_that_cannot_be_read_some_are_named_and_all_are_tried_again(
    store: Store, tool: FakeTool, sync: Sync, spoil: Spoil
):
    error = Unavailable("broken JSON")
    spoil(error, set(range(100, 130)))
    tell(store, tool, *range(100, 100 + NUM_TASKS))
    for _ in range(5):
        with suppress(Unavailable):
            sync.events(the(store))
    assert num_labels(store) == NUM_TASKS - 30
    notes = store.attempts.notes(the(store).id)
    assert (len(notes), notes[-1]) == (21, "and 10 more")
    spoil(error, set())
    for _ in range(3):
        sync.full(the(store))
    assert num_labels(store) == NUM_TASKS


def test_who_starts_a_training_does_not_have_a_task_forgotten_that_cannot_be_read(
    store: Store, tool: FakeTool, sync: Sync, spoil: Spoil
):
    spoil(Unavailable("broken JSON"), {117})
    tell(store, tool, 116, 117)
    for _ in range(2):
        with suppress(Unavailable):
            sync.events(the(store))
    store.projects.request_training(the(store).id)
    sync.full(the(store))
    assert "task 117 in project 2 cannot be read" in str(store.attempts.notes(the(store).id))
    store.projects.request_training(the(store).id)
    spoil(Unavailable("broken JSON"), set())
    sync.full(the(store))
    assert num_labels(store) == 2
    assert store.attempts.notes(the(store).id) == []


def test_tasks_of_a_regions_project_that_is_another_one_now_are_named_no_more(
    store: Store, tool: FakeTool, sync: Sync, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
):
    spoil(Unavailable("broken JSON"), {117})
    tell(store, tool, 117)
    for _ in range(2):
        with suppress(Unavailable):
            sync.events(the(store))
    assert store.attempts.notes(the(store).id)
    ask = tool.project

    def another(project_id: int) -> ToolProject:
        found = ask(project_id)
        return replace(found, uid="2.999") if project_id == 2 else found

    monkeypatch.setattr(tool, "project", another)
    tool.region_tasks.clear()
    tool.all_annotations[2].clear()
    sync.full(the(store))
    assert store.attempts.notes(the(store).id) == []
