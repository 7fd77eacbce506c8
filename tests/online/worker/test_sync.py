from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core.regions import Region, grid
from ralis_backend.labelstudio.errors import Unauthorised
from ralis_backend.online.store import Store
from ralis_backend.online.tool import ToolUnavailable
from ralis_backend.online.worker import Worker
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool


@pytest.mark.e2e  # slow
def test_lost_webhooks_are_repaired_by_reading_everything(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    for task_id in tool.queue()[:3]:
        tool.annotate(task_id)
    project = store.projects.all()[0]
    store.projects.change(project.id, is_training_requested=True, is_sync_requested=True)
    settle(worker)
    assert store.projects.all()[0].current_version == 1
    assert len(store.labels.of(project.id)) == 3


def test_the_same_annotation_in_any_number_and_order_is_one_label(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    event = tool.annotate(task_id)
    for _ in range(3):
        store.events.add("2.200", "ANNOTATION_CREATED", event)
    store.events.add("2.200", "ANNOTATION_UPDATED", event)
    settle(worker)
    assert len(store.labels.of(store.projects.all()[0].id)) == 1


def test_an_update_replaces_the_label_and_counts_as_new(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    settle(worker)
    project = store.projects.all()[0]
    first = store.labels.of(project.id)[0]
    changed = (1 - tool.truth(task_id)).tolist()
    store.events.add(
        "2.200",
        "ANNOTATION_UPDATED",
        tool.annotate(task_id, [{"mask": changed}], annotation_id=1),
    )
    settle(worker)
    label = store.labels.of(project.id)[0]
    assert label.id > first.id
    np.testing.assert_array_equal(store.labels.mask(label), changed)


def test_a_deleted_annotation_is_withdrawn_and_its_row_kept(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    settle(worker)
    tool.all_annotations[2].clear()
    store.events.add("2.200", "ANNOTATIONS_DELETED", {"annotations": [{"id": 1}]})
    settle(worker)
    project = store.projects.all()[0]
    assert store.labels.of(project.id) == []
    assert [row.task_id for row in store.queue.open(project.id)].count(task_id) == 1


def test_a_full_reading_withdraws_what_was_deleted_unseen(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(tool.queue()[0]))
    settle(worker)
    project = store.projects.all()[0]
    tool.all_annotations[2].clear()
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert store.labels.of(project.id) == []


@pytest.mark.parametrize(
    "error", [Unauthorised("403 to webhooks: ask the owner"), ToolUnavailable("500: ask the owner")]
)
def test_settings_that_the_tool_refuses_or_fails_at_keep_no_label_and_no_training_away(
    store: Store, tool: FakeTool, make_worker: MakeWorker, error: Exception
):
    worker = make_worker()
    settle(worker)
    project = store.projects.all()[0]
    tool.annotate(tool.queue()[0])
    tool.fail_in["prepare"] = error
    store.projects.change(project.id, is_sync_requested=True, is_prepared=False)
    settle(worker)
    assert len(store.labels.of(project.id)) == 1
    row = store.projects.by_id(project.id)
    assert (row.is_prepared, row.num_failures, row.regions_uid) == (True, 0, "2.200")
    assert row.open_reading is None
    assert "ask the owner; labels are read all the same" in str(row.last_error)
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert store.projects.by_id(project.id).last_error is None


def test_without_a_regions_project_that_is_known_a_refusal_is_a_failure(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.fail_in["prepare"] = Unauthorised("403")
    make_worker().advance_all()
    row = store.projects.all()[0]
    assert (row.is_prepared, row.num_failures, row.last_error) == (False, 1, "403")


SIGN = "the view of a crop"


def test_a_pool_that_begins_to_look_like_a_regions_project_stays_one(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    tool.annotate(tool.queue()[0])
    tool.pool = replace(tool.pool, regions_sign=SIGN)
    project = store.projects.all()[0]
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    row = store.projects.by_id(project.id)
    assert not row.is_deleted
    assert f"interface has {SIGN}; remove that" in str(row.last_error)
    assert len(store.labels.of(project.id)) == 1
    tool.pool = replace(tool.pool, regions_sign=None)
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert store.projects.by_id(project.id).last_error is None


def test_what_looks_like_a_regions_project_from_the_start_waits_until_it_does_not(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.pool = replace(tool.pool, regions_sign=SIGN)
    worker = make_worker()
    worker.advance_all()
    row = store.projects.all()[0]
    assert (row.regions_tool_id, row.num_failures) == (None, 1)
    assert f"interface has {SIGN}; remove that" in str(row.last_error)
    tool.pool = replace(tool.pool, regions_sign=None)
    store.projects.change(row.id, retry_at=None)  # the pause is over
    settle(worker)
    assert store.projects.by_id(row.id).regions_tool_id == 2


def test_what_the_mark_of_another_pool_is_in_is_left_to_that_one(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    project = store.projects.all()[0]
    tool.pool = replace(tool.pool, pool_uid="7.100")
    store.projects.change(project.id, is_sync_requested=True)
    worker.advance_all()
    row = store.projects.by_id(project.id)
    assert row.is_deleted
    assert "holds the regions of project 7" in str(row.last_error)


def test_labels_survive_when_their_regions_project_is_deleted(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    project = store.projects.all()[0]
    tool.region_tasks.clear()
    tool.all_annotations[2].clear()
    tool.regions_uid = "2.300"
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert store.projects.all()[0].regions_uid == "2.300"
    assert len(store.labels.of(project.id)) == 4


def test_an_annotation_that_cannot_be_read_is_kept_and_read_later(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    event = tool.annotate(task_id, [{"unknown": True}])
    store.events.add("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    project = store.projects.all()[0]
    assert [row.error for row in store.annotations.failed(project.id)] == [
        "annotation 1: unknown label"
    ]
    tool.annotate(task_id, annotation_id=1)
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert store.annotations.failed(project.id) == []
    assert len(store.labels.of(project.id)) == 1


def test_two_annotators_on_one_region_are_both_kept_and_the_newest_counts(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    zeros, ones = np.zeros((32, 32), int).tolist(), np.ones((32, 32), int).tolist()
    events = [
        tool.annotate(task_id, [{"mask": zeros}], annotator="ann"),
        tool.annotate(task_id, [{"mask": ones}], annotator="bob"),
    ]
    for event in reversed(events):
        store.events.add("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    project = store.projects.all()[0]
    (label,) = store.labels.of(project.id)
    assert label.annotator == "bob"
    assert len(store.labels.every(project.id)) == 2


def test_a_whole_image_annotation_counts_region_by_region(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    mask = tool.files[1][1]
    tool.annotate(1, [{"mask": mask.tolist()}], project_id=1)
    settle(make_worker())
    project = store.projects.all()[0]
    labels = store.labels.of(project.id)
    assert len(labels) == 6
    np.testing.assert_array_equal(store.labels.image_mask((64, 96), labels), mask)
    assert 1 not in {task.data["source_task"] for task in tool.region_tasks.values()}


def test_a_kill_between_making_tasks_and_noting_them_makes_none_twice(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    project = store.projects.all()[0]
    rows = store.queue.open(project.id)
    store.queue.change({row.id: {"task_id": None, "task_created_at": None} for row in rows})
    store.projects.change(project.id, is_sync_requested=True, published_version=None)
    settle(make_worker())
    assert len(tool.region_tasks) == 8
    assert {row.task_id for row in store.queue.open(project.id)} == set(tool.region_tasks)


@pytest.mark.e2e  # slow
def test_a_lost_data_folder_is_rebuilt_from_the_labelling_tool(
    store: Store, tool: FakeTool, make_worker: MakeWorker, tmp_path: Path
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    fresh = Store.open(f"sqlite:///{tmp_path / 'fresh.db'}", tmp_path / "fresh")
    fresh.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    again = Worker(fresh, tool, worker._config)
    settle(again)
    assert len(fresh.labels.of(fresh.projects.all()[0].id)) == 4
    fresh.close()


@pytest.mark.e2e  # slow
def test_an_old_copy_of_the_data_folder_learns_from_the_labelling_tool_what_came_since(
    store: Store, tool: FakeTool, make_worker: MakeWorker, tmp_path: Path
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "blobs", copy / "blobs")
    with sqlite3.connect(tmp_path / "ralis.db") as running:
        running.execute(f"VACUUM INTO '{copy / 'ralis.db'}'")
    for _ in range(2):
        label_round(store, tool)
        settle(worker)
    with closing(Store.open(f"sqlite:///{copy / 'ralis.db'}", copy / "blobs")) as restored:
        (project,) = restored.projects.all()
        assert len(restored.labels.of(project.id)) == 4
        restored.projects.change(project.id, is_sync_requested=True)
        settle(Worker(restored, tool, worker._config))
        assert _labelled(restored) == _labelled(store)
        assert restored.versions.all(project.id)[-1].num_labels == 12
    assert len(_labelled(store)) == 12
    tasks = list(tool.region_tasks.values())
    assert len({(it.data["source_task"], it.data["row"], it.data["col"]) for it in tasks}) == len(
        tasks
    )


def _labelled(store: Store) -> list[tuple[int, Region, str | None]]:
    labels = store.labels.of(store.projects.all()[0].id)
    return sorted((it.image_id, it.region, it.mask_key) for it in labels)


def test_without_rectangles_all_that_was_painted_counts_and_what_was_handed_out_was_suggested(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place", suggestions_per_image=2)
    settle(worker)
    handed_out = {suggested.region for suggested in tool.image_predictions[0].regions}
    event = tool.annotate(1, [{"mask": tool.files[1][1].tolist()}], project_id=1)
    store.events.add("1.100", "ANNOTATION_CREATED", event)
    settle(worker)
    labels = store.labels.of(store.projects.all()[0].id)
    assert {label.region for label in labels} == set(grid((64, 96), (32, 32)))
    assert {label.region for label in labels if label.version == 0} == handed_out


def test_a_new_annotation_with_the_number_of_one_that_is_gone_replaces_it(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    settle(worker)
    tool.all_annotations[2].clear()  # the tool was restored from a backup of before
    event = tool.annotate(task_id, [], is_skipped=True, annotation_id=1)
    store.events.add("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    (label,) = store.labels.every(store.projects.all()[0].id)
    assert label.is_skipped
    assert store.annotations.count("2.200") == 1
