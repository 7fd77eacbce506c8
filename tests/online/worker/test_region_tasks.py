from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import CropTask, Project
from ralis_backend.online.tool import ToolTask
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker.region_tasks import misfit
from ralis_backend.online.worker.sync import Sync
from tests.online.conftest import RANKING
from tests.online.fake_tool import CLASSES, START, FakeTool

SIZE = (64, 96)
INFINITE = float("inf")


def task_of(tool: FakeTool, task_id: int, **values: Any) -> None:
    """A task of the regions project, whose data anyone may write."""
    data = {
        "source_task": 1, "row": 0, "col": 32, "height": 32, "width": 32, "scale": 8,
        "round": 1, "rank": 1, "reason": "", "strategy": "entropy", "version": "v0",
    }  # fmt: skip
    tool.region_tasks[task_id] = ToolTask(task_id, tool.tick(), "/data/crop.png", data | values)


@pytest.fixture
def sync(store: Store, tool: FakeTool) -> Sync:
    store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    return Sync(store, tool, WorkerConfig(ranking=RANKING))


def the(store: Store) -> Project:
    return store.projects.all()[0]


def see_images(store: Store, size: tuple[int, int] = SIZE) -> None:
    """As the ranking does: from now on the sizes of the images are known."""
    for image in store.images.of(the(store).id):
        store.images.seen(image.id, size)


def test_a_region_of_an_earlier_task_with_the_same_number_is_not_that_of_another_image(
    store: Store, tool: FakeTool, sync: Sync, caplog: pytest.LogCaptureFixture
):
    made = START.isoformat().replace("+00:00", "Z")
    for task_id, said in ((11, None), (12, made), (13, "2026-01-01T01:00:00+01:00")):
        task_of(tool, task_id, source_created_at=said)
        tool.annotate(task_id)
    for task_id, said in ((14, "2025-12-31T00:00:00Z"), (15, "x"), (16, [3]), (17, "2026-01-01")):
        task_of(tool, task_id, source_created_at=said)
        tool.annotate(task_id)
    sync.full(the(store))
    assert [row.task_id for row in store.queue.all(the(store).id)] == [11, 12, 13]
    assert len(store.labels.every(the(store).id)) == 3
    assert "4 tasks of its regions project are left alone" in caplog.text
    assert "task 14, which shows task 1 of '2025-12-31T00:00:00Z'" in caplog.text
    left_out = store.annotations.left_out(the(store).id)
    assert {it.task_id for it in left_out} == {14, 15, 16, 17}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source_task", 10**30),
        ("source_task", -(10**30)),
        ("source_task", 2**63),
        ("source_task", INFINITE),
        ("row", INFINITE),
        ("row", float("nan")),
        ("row", 10**30),
        ("row", None),
        ("rank", 2**31),
    ],
)
def test_one_odd_number_in_a_task_costs_the_others_nothing(
    store: Store, tool: FakeTool, sync: Sync, name: str, value: Any
):
    task_of(tool, 11, **{name: value})
    task_of(tool, 12, source_task=2)
    tool.annotate(12)
    tool.all_annotations[2][9] = replace(tool.all_annotations[2][1], id=9, task_id=11)
    sync.full(the(store))
    assert [label.image_id for label in store.labels.of(the(store).id)] == [2]
    assert [row.task_id for row in store.queue.all(the(store).id)] == [12]
    assert [it.task_id for it in store.annotations.left_out(the(store).id)] == [11]


def test_half_characters_and_endless_texts_are_kept_as_far_as_a_column_goes(
    store: Store, tool: FakeTool, sync: Sync
):
    task_of(tool, 11, reason="\ud83d" * 5000, strategy="s\ud83d\0" * 100)
    task_of(tool, 12, reason=["x"] * 10, strategy=None)
    sync.full(the(store))
    first, second = store.queue.all(the(store).id)
    assert (first.reason, first.strategy) == ("?" * 1000, ("s??" * 22)[:64])
    assert (second.reason, second.strategy) == ("", "")


def test_a_region_outside_its_image_is_no_label_and_is_named(
    store: Store, tool: FakeTool, sync: Sync
):
    sync.full(the(store))
    see_images(store)
    task_of(tool, 11, height=6000, width=6000, scale=1)
    task_of(tool, 12, row=-5, col=-5)
    task_of(tool, 13, row=1000, col=1000)
    task_of(tool, 14, height=-3)
    task_of(tool, 15, height=0)
    task_of(tool, 16, scale=2**20)
    task_of(tool, 17, source_task=2)
    for task_id in range(11, 17):
        tool.annotate(task_id, [], is_skipped=task_id % 2 == 0)
    tool.annotate(17)
    store.projects.change(the(store).id, background="dark", is_sync_requested=True)
    sync.full(the(store))
    (label,) = store.labels.every(the(store).id)
    assert label.image_id == 2
    assert [row.task_id for row in store.queue.open(the(store).id)] == []
    left_out = store.annotations.left_out(the(store).id)
    assert sorted(it.task_id for it in left_out) == list(range(11, 17))
    whys = {it.task_id: it.what[0] for it in left_out}
    assert "height 6000, width 6000, scale 1: that is outside its image of 64 x 96" in whys[11]
    assert "expected a scale from 1 to 8" in whys[16]


def test_what_was_refused_is_read_when_the_image_has_room_for_it(
    store: Store, tool: FakeTool, sync: Sync
):
    sync.full(the(store))
    see_images(store)
    task_of(tool, 11, row=64, col=64, scale=1)
    task_of(tool, 12, row=64, col=64, scale=1, source_task=2)
    tool.annotate(11, [{"mask": np.ones((32, 32), int).tolist()}])
    sync.full(the(store))
    assert store.labels.every(the(store).id) == []
    assert store.queue.open(the(store).id) == []
    see_images(store, (128, 128))
    store.projects.change(the(store).id, num_readings=47)
    sync.full(the(store))
    (label,) = store.labels.every(the(store).id)
    assert (label.region.row, label.is_skipped) == (64, False)
    assert store.annotations.left_out(the(store).id) == []
    assert [row.task_id for row in store.queue.open(the(store).id)] == [12]


def test_a_believed_region_is_no_label_any_more_when_its_image_turns_out_to_be_smaller(
    store: Store, tool: FakeTool, sync: Sync
):
    task_of(tool, 11, row=64, col=64, scale=1)
    task_of(tool, 12, height=6000, width=6000, scale=1)
    tool.annotate(11, [{"mask": np.ones((32, 32), int).tolist()}])
    tool.annotate(12, [])
    sync.full(the(store))
    assert len(store.labels.every(the(store).id)) == 1
    assert [it.task_id for it in store.annotations.left_out(the(store).id)] == [12]
    see_images(store)
    sync.full(the(store))
    assert store.labels.every(the(store).id) == []
    assert {it.task_id for it in store.annotations.left_out(the(store).id)} == {11, 12}
    see_images(store, (128, 128))
    sync.full(the(store))
    assert len(store.labels.every(the(store).id)) == 1


def test_a_task_that_waits_for_an_image_which_became_smaller_holds_up_no_queue(
    store: Store, tool: FakeTool, sync: Sync
):
    task_of(tool, 11)
    sync.full(the(store))
    see_images(store, (16, 16))
    tool.annotate(11)
    sync.full(the(store))
    assert store.queue.open(the(store).id) == []
    see_images(store)
    sync.full(the(store))
    assert len(store.labels.every(the(store).id)) == 1
    assert [row.state for row in store.queue.all(the(store).id)] == ["done"]


@pytest.mark.parametrize(
    ("box", "scale", "size", "expected"),
    [
        ((32, 64, 32, 32), 8, SIZE, None),
        ((32, 65, 32, 32), 8, SIZE, "outside"),
        ((0, 0, 2048, 2048), 1, None, None),
        ((0, 0, 2048, 2049), 1, None, "believed"),
        ((0, 0, 9000, 9000), 1, (9000, 9000), None),
        ((0, 0, 9000, 9000), 2, (9000, 9000), "a scale from 1 to 1"),
        ((0, 0, 1, 1), 0, SIZE, "a scale from 1 to 8"),
        ((0, 0, 1, 0), 1, SIZE, "at least 1 x 1"),
        ((-1, 0, 8, 8), 1, None, "at least 1 x 1"),
    ],
)
def test_a_region_is_held_against_its_image(
    box: tuple[int, int, int, int], scale: int, size: tuple[int, int] | None, expected: str | None
):
    row, col, height, width = box
    why = misfit(CropTask(row=row, col=col, height=height, width=width, scale=scale), size)
    assert why is None if expected is None else expected in str(why)
