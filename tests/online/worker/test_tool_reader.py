from __future__ import annotations

import copy
import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from ralis_backend.labelstudio.client import Unavailable
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import TaskAnnotations, ToolProject, ToolTask
from ralis_backend.online.worker import WorkerConfig, standing
from ralis_backend.online.worker.steps import is_sync_due, read_state
from ralis_backend.online.worker.sync import Sync
from ralis_backend.online.worker.tool_reader import (
    COMPARED_SHARE,
    DOUBT_EVERY_S,
    NUM_DOUBTS,
    WHOLE_EVERY,
)
from tests.online.conftest import RANKING, STRIDE
from tests.online.fake_tool import CLASSES, START, FakeTool

FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
CONFIG = WorkerConfig(ranking=RANKING)


def add_region(tool: FakeTool, task_id: int, source_task: int, col: int) -> None:
    """A region task as the publisher makes them."""
    data = {
        "source_task": source_task, "row": 0, "col": col, "height": 32, "width": 32,
        "round": 1, "rank": 1, "strategy": "entropy", "version": "v0",
    }  # fmt: skip
    tool.region_tasks[task_id] = ToolTask(task_id, tool.tick(), "/data/crop.png", data)


@pytest.fixture
def tool() -> FakeTool:
    tool = FakeTool(4)
    for number in range(4):
        add_region(tool, 11 + number, 1 + number, 32)
    return tool


@pytest.fixture
def sync(store: Store, tool: FakeTool) -> Sync:
    store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    sync = Sync(store, tool, CONFIG)
    sync.full(the(store))
    return sync


def the(store: Store) -> Project:
    return store.projects.all()[0]


def masks(store: Store) -> list[Any]:
    """Everything that is learned from, in values."""
    return [
        (it.image_id, it.region, it.annotator, it.is_skipped, store.labels.mask(it).tolist())
        for it in store.labels.every(the(store).id)
    ]


def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a process takes for the seconds since its start, for the test to move."""
    clock = [0.0]
    monkeypatch.setattr(standing, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


def read_all(sync: Sync, store: Store) -> None:
    """Let the tool be read until nothing is due."""
    for _ in range(10):
        if not sync.events(the(store)) and not is_sync_due(
            read_state(store, the(store), 0.0, 24), CONFIG
        ):
            return
        if is_sync_due(read_state(store, the(store), 0.0, 24), CONFIG):
            sync.full(the(store))
    raise AssertionError("the tool is read again and again")


@contextmanager
def written(store: Store) -> Iterator[list[str]]:
    """The tables that are written meanwhile, once per statement."""
    tables: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if found := re.match(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", statement):
            tables.append(found[1])

    event.listen(store.database.engine, "before_cursor_execute", note)
    yield tables
    event.remove(store.database.engine, "before_cursor_execute", note)


# Webhooks are hints


def test_what_a_webhook_claims_of_an_annotation_is_not_believed(
    store: Store, tool: FakeTool, sync: Sync
):
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(11))
    sync.events(the(store))
    truth = masks(store)
    forged = {"id": 1, "task": 11, "result": [{"mask": np.ones((32, 32), int).tolist()}]}
    stranger = {**forged, "id": 99, "completed_by": "eve"}
    for annotation in (forged, stranger):
        store.events.add("2.200", "ANNOTATION_UPDATED", {"annotation": annotation})
    store.events.add("2.200", "ANNOTATIONS_DELETED", {"annotations": [{"id": 1}]})
    store.events.add("2.200", "ANNOTATION_CREATED", {"annotation": {"id": 7, "task": 4711}})
    sync.events(the(store))
    assert masks(store) == truth
    assert len(truth) == 1
    assert store.events.unread(the(store)) == []


def test_an_annotation_with_ids_as_text_in_two_webhooks_is_read_once(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.annotate(11)
    for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
        store.events.add("2.200", action, {"annotation": {"id": "1", "task": "11"}})
    sync.events(the(store))
    assert (len(masks(store)), tool.num_read) == (1, 1)


def test_webhooks_stay_until_the_tool_answers(store: Store, tool: FakeTool, sync: Sync):
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(11))
    for call in ("project", "annotations"):
        tool.fail_in = {call: Unavailable("down")}
        with pytest.raises(Unavailable):
            sync.events(the(store))
        assert len(store.events.unread(the(store))) == 1
    sync.events(the(store))
    assert len(masks(store)) == 1


@pytest.mark.parametrize("payload", [{}, {"annotation": "x"}, {"annotations": [None, 3.5]}, [1]])
def test_a_webhook_that_names_nothing_leads_to_a_reading(
    store: Store, tool: FakeTool, sync: Sync, payload: Any
):
    tool.annotate(11)
    store.events.add("2.200", "ANNOTATION_CREATED", payload)
    sync.events(the(store))
    assert the(store).is_sync_requested
    assert store.events.unread(the(store)) == []
    sync.full(the(store))
    assert len(masks(store)) == 1


def test_a_webhook_about_a_region_that_was_not_listed_yet_is_read(
    store: Store, tool: FakeTool, sync: Sync
):
    add_region(tool, 20, 2, 64)
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(20))
    sync.events(the(store))
    assert len(masks(store)) == 1
    assert [row.state for row in store.queue.all(the(store).id)].count("done") == 1


def test_a_webhook_about_an_image_that_was_not_listed_yet_is_read_with_it(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.pool_tasks.append(ToolTask(5, tool.tick(), "/data/1.png"))
    tool.files[5] = tool.files[1]
    event = tool.annotate(5, [{"mask": tool.files[5][1].tolist()}], project_id=1)
    store.events.add("1.100", "ANNOTATION_CREATED", event)
    sync.events(the(store))
    assert masks(store) == []
    sync.full(the(store))
    assert len(masks(store)) == 6


def test_what_the_backend_does_itself_leads_to_no_reading(store: Store, tool: FakeTool, sync: Sync):
    gone = tool.region_tasks.pop(14)
    row = store.queue.of_tasks(the(store).id, [gone.id])[0]
    store.queue.change({row.id: {"state": "deleted"}})
    store.events.add("2.200", "TASKS_CREATED", {"tasks": [{"id": 11}, {"id": 12}]})
    store.events.add("2.200", "TASKS_DELETED", {"tasks": [{"id": 14}]})
    store.events.add("1.100", "PROJECT_UPDATED", {"project": {"id": 1}})
    store.events.add("2.200", "PROJECT_UPDATED", {"project": {"id": 2}})
    sync.events(the(store))
    assert not the(store).is_sync_requested


@pytest.mark.parametrize(
    ("uid", "action", "task_id"),
    [
        ("1.100", "TASKS_CREATED", 5),
        ("1.100", "TASKS_DELETED", 4),
        ("2.200", "TASKS_CREATED", 77),
        ("2.200", "TASKS_DELETED", 14),
    ],
)
def test_what_others_do_to_tasks_leads_to_a_reading(
    store: Store, sync: Sync, uid: str, action: str, task_id: int
):
    store.events.add(uid, action, {"tasks": [{"id": task_id}]})
    sync.events(the(store))
    assert the(store).is_sync_requested


def test_a_changed_label_config_leads_to_a_reading(store: Store, tool: FakeTool, sync: Sync):
    tool.pool = replace(tool.pool, label_config="<View><View/></View>")
    store.events.add("1.100", "PROJECT_UPDATED", {"project": {"id": 1}})
    sync.events(the(store))
    assert the(store).is_sync_requested


# What is unchanged is left alone


def test_nothing_is_read_or_written_of_what_did_not_change(
    store: Store, tool: FakeTool, sync: Sync
):
    for task_id in (11, 12):
        tool.annotate(task_id)
    tool.annotate(13, [], is_skipped=True)
    sync.full(the(store))
    assert (len(masks(store)), tool.num_read) == (3, 3)
    with written(store) as tables:
        sync.full(the(store))
    assert tool.num_read == 3
    assert set(tables) == {"projects"}


def test_only_tasks_that_changed_are_read_again(store: Store, tool: FakeTool, sync: Sync):
    for task_id in (11, 12):
        tool.annotate(task_id)
    sync.full(the(store))
    tool.annotate(12, [], annotation_id=2, is_skipped=True)
    tool.annotate(13)
    sync.full(the(store))
    assert tool.num_read == 4
    assert [it[3] for it in masks(store)] == [False, True, False]


def test_a_full_comparison_finds_now_and_then_what_the_tool_did_not_date(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.annotate(11)
    sync.full(the(store))
    known = tool.all_annotations[2]
    known[1] = replace(known[1], results=[{"mask": np.ones((32, 32), int).tolist()}])
    sync.full(the(store))
    assert np.mean(masks(store)[0][4]) != 1
    turn = 11 % COMPARED_SHARE
    store.projects.change(the(store).id, num_readings=turn * WHOLE_EVERY - 1)
    sync.full(the(store))
    assert np.mean(masks(store)[0][4]) == 1


# Clocks


def test_an_annotation_from_the_future_is_replaced_and_hides_nothing(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.annotate(11)
    tool.all_annotations[2][1] = replace(tool.all_annotations[2][1], updated_at=FUTURE)
    sync.full(the(store))
    tool.annotate(11, [{"mask": np.ones((32, 32), int).tolist()}], annotation_id=1)
    tool.annotate(12, annotation_id=2)
    sync.full(the(store))
    assert [np.mean(it[4]) == 1 for it in masks(store)] == [True, False]
    tool.annotate(12, [{"mask": np.ones((32, 32), int).tolist()}], annotation_id=2)
    sync.full(the(store))
    assert [np.mean(it[4]) == 1 for it in masks(store)] == [True, True]


@pytest.mark.parametrize("days", [-3650, 3650])
def test_a_clock_of_the_tool_that_is_set_loses_no_annotation(
    store: Store, tool: FakeTool, sync: Sync, days: int
):
    tool.annotate(11)
    sync.full(the(store))
    tool.clock += timedelta(days=days)
    tool.annotate(12)
    sync.full(the(store))
    assert len(masks(store)) == 2
    del tool.all_annotations[2][1]
    sync.full(the(store))
    assert len(masks(store)) == 1


def test_our_own_clock_withdraws_nothing(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    tool.annotate(11)
    sync.full(the(store))
    for moment in (START - timedelta(days=9999), FUTURE):
        for module in ("store.projects", "worker.tool_reader"):
            monkeypatch.setattr(f"ralis_backend.online.{module}.now", lambda it=moment: it)
        sync.full(the(store))
        assert len(masks(store)) == 1


# Requests


def test_a_request_that_comes_during_a_reading_leads_to_another(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    tasks = tool.tasks

    def requested(*arguments: Any) -> list[ToolTask]:
        store.projects.change(the(store).id, is_sync_requested=True)
        return tasks(*arguments)

    monkeypatch.setattr(tool, "tasks", requested)
    sync.full(the(store))
    assert the(store).is_sync_requested


@pytest.mark.parametrize("config", ["<View/>", "<View></View>"])
def test_a_request_that_comes_while_the_settings_are_asked_for_leads_to_another_reading(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch, config: str
):
    ask = tool.project

    def answer_late(project_id: int) -> ToolProject:
        """What the tool had before the settings were saved, after it has told of them."""
        answer = ask(project_id)
        monkeypatch.setattr(tool, "project", ask)
        tool.pool = replace(tool.pool, label_config=config)
        store.projects.register("1.100", 1, config, CLASSES, "pool")
        store.projects.change(the(store).id, is_sync_requested=True)
        return answer

    monkeypatch.setattr(tool, "project", answer_late)
    sync.full(the(store))
    assert the(store).is_sync_requested
    read_all(sync, store)
    with written(store) as tables:
        store.projects.renew(the(store).id, config, CLASSES)
    assert tables == []


@pytest.mark.parametrize("call", ["project", "tasks", "annotations"])
def test_a_reading_that_did_not_end_is_due_again(
    store: Store, tool: FakeTool, sync: Sync, call: str
):
    tool.annotate(11)
    store.projects.change(the(store).id, is_sync_requested=True)
    tool.fail_in = {call: Unavailable("down")}
    with pytest.raises(Unavailable):
        sync.full(the(store))
    assert is_sync_due(read_state(store, the(store), 0.0, 24), CONFIG)
    read_all(sync, store)
    assert len(masks(store)) == 1


def test_a_reading_ends_no_other_that_was_begun_after_it(store: Store, sync: Sync):
    first = store.projects.begin_reading(the(store).id)
    second = store.projects.begin_reading(the(store).id)
    store.projects.end_reading(first.id, first.num_readings)
    assert the(store).open_reading == second.num_readings
    store.projects.end_reading(first.id, second.num_readings)
    assert the(store).open_reading is None


# Lists that are not what they should be


@pytest.mark.parametrize("kept", [0, 2])
def test_a_list_that_lacks_tasks_which_the_tool_counts_is_not_believed_at_once(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch, kept: int
):
    tool.annotate(11)
    tool.annotate(14)
    sync.full(the(store))
    truth, sizes = masks(store), [image.size for image in store.images.of(the(store).id)]
    tasks = tool.tasks
    monkeypatch.setattr(tool, "tasks", lambda *arguments: tasks(*arguments)[:kept])
    clock = stopped_clock(monkeypatch)
    whole = WHOLE_EVERY
    store.projects.change(the(store).id, num_readings=whole - 1)
    for _ in range(NUM_DOUBTS - 1):
        sync.full(the(store))
        assert masks(store) == truth
        assert [image.size for image in store.images.of(the(store).id)] == sizes
        clock[0] += DOUBT_EVERY_S
    sync.full(the(store))
    assert len(store.images.of(the(store).id)) == kept
    monkeypatch.setattr(tool, "tasks", tasks)
    store.projects.change(the(store).id, num_readings=2 * whole - 1)
    sync.full(the(store))
    assert masks(store) == truth
    assert [image.size for image in store.images.of(the(store).id)] == sizes


def test_lists_that_lack_tasks_and_come_within_seconds_are_not_believed_however_many_there_are(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    clock, tasks = stopped_clock(monkeypatch), tool.tasks
    monkeypatch.setattr(tool, "tasks", lambda *arguments: tasks(*arguments)[2:])
    store.projects.change(the(store).id, num_readings=WHOLE_EVERY - 1)
    for _ in range(4 * NUM_DOUBTS):
        sync.full(the(store))
        clock[0] += DOUBT_EVERY_S / (4 * NUM_DOUBTS + 1)
    assert len(store.images.of(the(store).id)) == 4
    again = Sync(store, tool, CONFIG)  # a restart counts for nothing
    again.full(the(store))
    Sync(store, tool, CONFIG).full(the(store))
    assert len(store.images.of(the(store).id)) == 4
    for _ in range(NUM_DOUBTS):
        clock[0] += DOUBT_EVERY_S
        again.full(the(store))
    assert len(store.images.of(the(store).id)) == 2


def test_what_was_believed_to_be_missing_is_back_with_the_first_list_that_has_it(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    tool.pool_tasks = [
        replace(task, created_at=task.created_at + timedelta(minutes=10 * place))
        for place, task in enumerate(tool.pool_tasks)
    ]
    tool.clock += timedelta(hours=1)
    for task_id in (11, 12, 14):
        tool.annotate(task_id)
    store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    sync = Sync(store, tool, CONFIG)
    sync.full(the(store))
    truth = masks(store)
    clock = stopped_clock(monkeypatch)
    with monkeypatch.context() as patch:
        tasks = tool.tasks
        patch.setattr(
            tool,
            "tasks",
            lambda project_id, since=None: [
                it for it in tasks(project_id, since) if project_id != 1 or it.id > 2
            ],
        )
        store.projects.change(the(store).id, num_readings=WHOLE_EVERY - 1)
        for _ in range(3 * NUM_DOUBTS):
            sync.full(the(store))
            clock[0] += DOUBT_EVERY_S
        assert len(store.images.of(the(store).id)) == 2
        assert len(masks(store)) == 1
    sync.full(the(store))
    assert len(store.images.of(the(store).id)) == 4
    assert masks(store) == truth


def test_tasks_that_the_tool_counts_no_more_are_gone_at_once_with_their_labels(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.annotate(11)
    tool.annotate(14)
    sync.full(the(store))
    truth = masks(store)
    removed = tool.pool_tasks.pop(1)
    tasks, annotations = dict(tool.region_tasks), dict(tool.all_annotations[2])
    del tool.region_tasks[11], tool.region_tasks[13], tool.all_annotations[2][1]
    sync.full(the(store))
    assert removed.id not in {image.task_id for image in store.images.of(the(store).id)}
    assert [row.task_id for row in store.queue.open(the(store).id)] == [12]
    assert masks(store) == truth[1:]
    assert sync.num_missing(the(store)) == 0
    tool.region_tasks, tool.all_annotations[2] = tasks, annotations
    sync.full(the(store))
    assert masks(store) == truth
    states = {row.task_id: row.state for row in store.queue.all(the(store).id)}
    assert states == {11: "done", 12: "open", 13: "open", 14: "done"}


def test_a_webhook_that_a_labelled_region_was_deleted_leads_to_its_withdrawal(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.annotate(11)
    sync.full(the(store))
    del tool.region_tasks[11], tool.all_annotations[2][1]
    store.events.add("2.200", "TASKS_DELETED", {"tasks": [{"id": 11}]})
    read_all(sync, store)
    assert masks(store) == []
    assert store.annotations.left_out(the(store).id) == []


def test_of_a_regions_project_that_was_deleted_the_labels_are_kept(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.annotate(11)
    sync.full(the(store))
    truth = masks(store)
    tool.region_tasks.clear()
    tool.all_annotations[2].clear()
    tool.regions_uid = "2.300"
    add_region(tool, 11, 3, 64)  # the id is handed out again
    add_region(tool, 20, 3, 0)
    sync.full(the(store))
    assert masks(store) == truth
    tool.annotate(11)
    sync.full(the(store))
    assert len(masks(store)) == 2
    del tool.region_tasks[20]
    sync.full(the(store))
    assert len(masks(store)) == 2


def test_a_list_that_breaks_off_withdraws_nothing_and_is_read_again(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    tool.annotate(11)
    sync.full(the(store))
    tool.annotate(14)
    tasks = tool.tasks

    def broken(*arguments: Any) -> Iterator[ToolTask]:
        yield from tasks(*arguments)[:1]
        raise Unavailable("half a page")

    monkeypatch.setattr(tool, "tasks", broken)
    store.projects.change(the(store).id, num_readings=WHOLE_EVERY - 1)
    with pytest.raises(Unavailable):
        sync.full(the(store))
    assert len(masks(store)) == 1
    assert len(store.images.of(the(store).id)) == 4
    monkeypatch.setattr(tool, "tasks", tasks)
    read_all(sync, store)
    assert len(masks(store)) == 2


def test_a_task_that_is_counted_and_never_told_of_is_listed_for_once(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    annotations, tasks, listed = tool.annotations, tool.tasks, []

    def silent(project_id: int, task_ids: Any) -> Iterator[TaskAnnotations]:
        return (it for it in annotations(project_id, task_ids) if it.task.id != 12)

    def noted(project_id: int, changed_since: datetime | None = None) -> list[ToolTask]:
        listed.append(changed_since)
        return tasks(project_id, changed_since)

    monkeypatch.setattr(tool, "annotations", silent)
    monkeypatch.setattr(tool, "tasks", noted)
    tool.annotate(11)
    tool.annotate(12)
    sync.full(the(store))
    assert listed.count(None) == 1
    assert sync.num_missing(the(store)) == 0
    tool.annotate(13)
    sync.full(the(store))
    assert (listed.count(None), len(masks(store))) == (1, 2)


def test_a_task_that_is_missing_in_an_answer_keeps_its_labels(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    tool.annotate(11)
    sync.full(the(store))
    monkeypatch.setattr(tool, "annotations", lambda *_: iter(()))
    store.events.add("2.200", "ANNOTATIONS_DELETED", {"annotations": [{"id": 1}]})
    sync.events(the(store))
    assert len(masks(store)) == 1


# Tasks and annotations that move


@pytest.mark.parametrize("first", [11, 12])
def test_an_annotation_moved_to_another_task_labels_that_one(
    store: Store, tool: FakeTool, sync: Sync, first: int
):
    tool.annotate(11, [{"mask": np.ones((32, 32), int).tolist()}])
    sync.full(the(store))
    tool.all_annotations[2][1] = replace(
        tool.all_annotations[2][1],
        task_id=12,
        task_created_at=tool.region_tasks[12].created_at,
        updated_at=tool.tick(),
    )
    for task_id in (first, 23 - first):
        store.events.add("2.200", "ANNOTATION_UPDATED", {"annotation": {"id": 7, "task": task_id}})
        sync.events(the(store))
    sync.full(the(store))
    image = store.images.find(the(store).id, 2)
    assert image is not None
    assert [it[0] for it in masks(store)] == [image.id]
    states = {row.task_id: row.state for row in store.queue.all(the(store).id)}
    assert (states[11], states[12]) == ("open", "done")


def test_a_task_id_that_is_handed_out_again_withdraws_the_labels_of_the_task_that_had_it(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.annotate(11)
    sync.full(the(store))
    tool.all_annotations[2].clear()
    add_region(tool, 11, 3, 64)
    sync.full(the(store))
    assert masks(store) == []
    tool.annotate(11)
    sync.full(the(store))
    (label,) = store.labels.every(the(store).id)
    assert (label.image_id, label.region.col) == (3, 64)


def test_an_unread_annotation_of_a_deleted_regions_project_takes_no_new_task_out_of_the_queue(
    store: Store, tool: FakeTool, sync: Sync
):
    add_region(tool, 20, 99, 0)  # it shows no image of the pool
    tool.annotate(11)
    known = tool.all_annotations[2]
    made = tool.region_tasks[20].created_at
    known[50] = replace(known[1], id=50, task_id=20, task_created_at=made)
    sync.full(the(store))
    tool.region_tasks.clear()
    known.clear()
    tool.regions_uid = "2.300"
    sync.full(the(store))
    add_region(tool, 20, 3, 64)  # the id is handed out again
    for _ in range(2):
        sync.full(the(store))
        assert [row.task_id for row in store.queue.open(the(store).id)] == [20]


@pytest.mark.parametrize("task_id", [11, 1])
def test_a_task_that_comes_without_its_time_once_stays_as_it_is(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch, task_id: int
):
    tool.annotate(11)
    sync.full(the(store))
    truth, tasks = masks(store), tool.tasks
    images = [(it.task_id, it.ref) for it in store.images.of(the(store).id)]

    def undated(project_id: int, changed_since: datetime | None = None) -> list[ToolTask]:
        odd = {"created_at": None, "image": "", "data": {}, "state": "", "changed_at": None}
        return [
            replace(it, **odd) if it.id == task_id else it  # type: ignore[arg-type]
            for it in tasks(project_id, changed_since)
        ]

    with monkeypatch.context() as patch:
        patch.setattr(tool, "tasks", undated)
        patch.setattr(tool, "annotations", lambda *_: iter(()))
        sync.full(the(store))
    assert masks(store) == truth
    assert [(it.task_id, it.ref) for it in store.images.of(the(store).id)] == images
    assert [row.task_id for row in store.queue.open(the(store).id)] == [12, 13, 14]


def test_labels_of_a_task_whose_id_another_had_in_one_list_come_back_with_it(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    tool.annotate(11)
    sync.full(the(store))
    truth, task = masks(store), tool.region_tasks[11]
    add_region(tool, 11, 3, 64)
    with monkeypatch.context() as patch:
        patch.setattr(tool, "annotations", lambda *_: iter(()))
        sync.full(the(store))
    assert masks(store) == []
    tool.region_tasks[11] = task
    sync.full(the(store))
    assert masks(store) == truth


def test_labels_of_an_image_come_back_with_it(store: Store, tool: FakeTool, sync: Sync):
    tool.annotate(11)
    sync.full(the(store))
    truth, task = masks(store), tool.pool_tasks.pop(0)
    sync.full(the(store))
    assert masks(store) == []
    tool.pool_tasks.insert(0, task)
    sync.full(the(store))
    assert masks(store) == truth


# In place


@pytest.fixture
def in_place(store: Store, tool: FakeTool) -> Sync:
    store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    sync = Sync(store, tool, replace(CONFIG, mode="in-place"))
    sync.full(the(store))
    return sync


@pytest.mark.parametrize("background", [None, "dark"])
def test_of_suggested_regions_those_that_were_refused_alone_are_skipped(
    store: Store, tool: FakeTool, in_place: Sync, background: str | None
):
    store.projects.change(the(store).id, background=background)
    results = [{"mask": np.ones((64, 96), int).tolist()}, {"box": [0, 0, 32, 32]}]
    tool.annotate(1, [*results, {"box": [32, 0, 32, 32], "refused": True}], project_id=1)
    tool.annotate(2, [{"box": [0, 0, 32, 32], "refused": True}], project_id=1)
    in_place.full(the(store))
    labels = {(it.image_id, it.region.row): it.is_skipped for it in store.labels.of(the(store).id)}
    assert labels == {(1, 0): False, (1, 32): True, (2, 0): True}
    assert store.annotations.left_out(the(store).id) == []


@pytest.mark.parametrize("background", [None, "dark"])
def test_a_whole_image_with_boxes_and_no_paint_says_nothing_about_pixels_and_is_named(
    store: Store, tool: FakeTool, in_place: Sync, background: str | None
):
    store.projects.change(the(store).id, background=background)
    tool.annotate(1, [{"drawn": "rectanglelabels"}], project_id=1)
    in_place.full(the(store))
    assert store.labels.every(the(store).id) == []
    (odd,) = store.annotations.left_out(the(store).id)
    assert "it holds rectanglelabels and nothing painted" in odd.what[0]
    mask = {"mask": np.ones((64, 96), int).tolist()}
    tool.annotate(1, [mask], project_id=1, annotation_id=1)
    tool.annotate(2, [{"drawn": "rectanglelabels", "rest": "bright"}], project_id=1)
    tool.annotate(3, [{"drawn": "ellipse"}], project_id=1, is_skipped=True)
    in_place.full(the(store))
    labels = store.labels.of(the(store).id)
    assert [it.image_id for it in labels if not it.is_skipped] == [1] * 6 + [2] * 6
    assert [it.image_id for it in labels if it.is_skipped] == [3] * 6
    assert store.annotations.left_out(the(store).id) == []


def test_an_edit_after_the_predictions_were_dropped_labels_what_was_suggested(
    store: Store, tool: FakeTool, in_place: Sync
):
    image = store.images.of(the(store).id)[0]
    region = {"row": 32, "col": 64, "height": 32, "width": 32}
    store.queue.hand_out(image.id, 3, [region])
    mask = tool.files[1][1]
    tool.version = "v3"
    tool.annotate(1, [{"mask": mask.tolist()}], project_id=1)
    in_place.full(the(store))
    tool.version = None
    tool.annotate(1, [{"mask": (1 - mask).tolist()}], project_id=1, annotation_id=1)
    in_place.full(the(store))
    (label,) = (it for it in store.labels.every(the(store).id) if it.version is not None)
    assert (label.version, label.round) == (3, 4)
    np.testing.assert_array_equal(store.labels.mask(label), (1 - mask)[label.region.slices])
    assert (label.region.row, label.region.col) == (32, 64)


def test_an_image_whose_host_is_down_is_read_later_and_the_others_now(
    store: Store, tool: FakeTool, in_place: Sync
):
    for task_id in (1, 2):
        tool.annotate(task_id, [{"mask": tool.files[task_id][1].tolist()}], project_id=1)
    tool.fail_in = {"image": Unavailable("the image's host is down")}
    in_place.full(the(store))
    assert len(masks(store)) == 6
    assert [row.error for row in store.annotations.failed(the(store).id)] == [
        "the image's host is down"
    ]
    in_place.full(the(store))
    assert len(masks(store)) == 12
    assert store.annotations.failed(the(store).id) == []


def test_a_full_disk_under_a_mask_marks_nothing_as_read(
    store: Store, tool: FakeTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "no space left on device")

    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(11))
    with monkeypatch.context() as patch:
        patch.setattr(store.blobs, "put", full)
        with pytest.raises(OSError, match="no space"):
            sync.events(the(store))
        with pytest.raises(OSError, match="no space"):
            sync.full(the(store))
    read_all(sync, store)
    assert len(masks(store)) == 1
    assert store.annotations.failed(the(store).id) == []


def test_labels_of_an_annotation_that_was_stored_anew_meanwhile_are_not_kept(
    store: Store, tool: FakeTool, sync: Sync
):
    tool.annotate(11, [{"unknown": True}])
    sync.full(the(store))
    (stale,) = store.annotations.failed(the(store).id)
    tool.annotate(11, annotation_id=1)
    sync.full(the(store))
    truth = masks(store)
    store.labels.put(stale, [], {})
    assert masks(store) == truth


# Killed between any two statements, file writes and calls of the tool


class Killed(BaseException):
    """Nothing catches it, as nothing catches `kill -9`."""


@contextmanager
def killed_at(store: Store, tool: FakeTool, number: int) -> Iterator[list[int]]:
    """Raise at the n-th statement, commit, file write or call of the tool, and at all after."""
    count = [0]

    def step(*_: object, **__: object) -> None:
        count[0] += 1
        if count[0] >= number:
            raise Killed

    def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **values: Any) -> Any:
            step()
            return function(*arguments, **values)

        return call

    engine = store.database.engine
    listened = [("before_cursor_execute", step), ("commit", step)]
    for name, function in listened:
        event.listen(engine, name, function)
    put, call = store.blobs.put, tool._call
    store.blobs.put, tool._call = stepping(put), stepping(call)  # type: ignore[method-assign]
    try:
        yield count
    finally:
        for name, function in listened:
            event.remove(engine, name, function)
        store.blobs.put, tool._call = put, call  # type: ignore[method-assign]


def state(store: Store) -> tuple[Any, ...]:
    project = the(store)
    return (
        masks(store),
        [(it.kind, it.value, it.image_id) for it in store.answers.of(project.id)],
        [(row.task_id, row.state) for row in store.queue.all(project.id)],
        [(image.task_id, image.size, image.is_validation) for image in store.images.of(project.id)],
        [row.error for row in store.annotations.failed(project.id)],
        store.events.unread(project),
    )


def label_and_tell(store: Store, tool: FakeTool, has_webhooks: bool) -> None:
    """Something of everything: new, changed, skipped, moved, deleted, answered, a new image."""
    ones = [{"mask": np.ones((32, 32), int).tolist()}, {"useful": True}]
    told = [
        ("ANNOTATION_CREATED", tool.annotate(13, ones)),
        ("ANNOTATION_UPDATED", tool.annotate(11, ones, annotation_id=1)),
        ("ANNOTATION_CREATED", tool.annotate(14, [], is_skipped=True)),
        ("ANNOTATIONS_DELETED", {"annotations": [{"id": 2}]}),
    ]
    del tool.all_annotations[2][2]
    tool.pool_tasks.append(ToolTask(5, tool.tick(), "/data/1.png"))
    for action, payload in told:
        if has_webhooks:
            store.events.add("2.200", action, payload)
    if has_webhooks:
        store.events.add("1.100", "TASKS_CREATED", {"tasks": [{"id": 5}]})
    else:
        store.projects.change(the(store).id, is_sync_requested=True)


@pytest.mark.parametrize("has_webhooks", [True, False])
@pytest.mark.e2e
def test_a_kill_at_any_moment_of_reading_loses_and_doubles_nothing(
    tmp_path: Path, tool: FakeTool, has_webhooks: bool
):
    live, saved = tmp_path / "live", tmp_path / "saved"
    store = Store.open(f"sqlite:///{live / 'ralis.db'}", live)
    store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    Sync(store, tool, CONFIG).full(the(store))
    for task_id in (11, 12):
        tool.annotate(task_id)
    Sync(store, tool, CONFIG).full(the(store))
    label_and_tell(store, tool, has_webhooks)
    store.close()
    live.rename(saved)
    expected, number, is_through = None, 10**6, False
    while not is_through:
        shutil.copytree(saved, live)
        server = copy.deepcopy(tool)
        with killed_at(store, server, number) as count, suppress(Killed):
            Sync(store, server, CONFIG).events(the(store))
            Sync(store, server, CONFIG).full(the(store))
        is_through = expected is not None and count[0] < number
        read_all(Sync(store, server, CONFIG), store)
        expected = expected or state(store)
        assert state(store) == expected, f"killed at step {number}"
        number = 1 if number == 10**6 else number + STRIDE
        store.close()
        shutil.rmtree(live)
    assert number > 50
    assert len(expected[0]) == 3
