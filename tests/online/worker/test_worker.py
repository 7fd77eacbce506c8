from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.store import ProjectStore, now
from ralis_backend.online.store.tables import Version
from ralis_backend.online.tool import ToolNotFound, ToolUnavailable
from ralis_backend.online.worker import Worker
from ralis_backend.online.worker.train import LabelledSplit, Trainer
from tests.online.conftest import settle
from tests.online.fake_tool import CLASSES, FakeTool, picture

MakeWorker = Callable[..., Worker]


def label_round(store: ProjectStore, tool: FakeTool, count: int = 4) -> list[int]:
    """Annotate the head of the queue, with webhooks."""
    labelled = tool.queue()[:count]
    for task_id in labelled:
        store.add_event("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    return labelled


def test_the_first_queue_holds_two_rounds_spread_over_images(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker())
    assert len(tool.region_tasks) == 8
    first_round = [tool.region_tasks[task_id].data for task_id in tool.queue()[:4]]
    assert [data["rank"] for data in first_round] == [1, 2, 3, 4]
    assert {data["round"] for data in first_round} == {1}
    assert len({data["source_task"] for data in first_round}) > 1
    assert tool.version == "v0"
    assert all(prediction.mask is None for prediction in tool.predictions.values())


def test_enough_labels_make_a_version_and_a_new_queue(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    labelled = label_round(store, tool)
    settle(worker)
    project = store.projects()[0]
    assert project.current_version == 1
    assert tool.version == "v1"
    assert len(store.labels(project.id)) == 4
    assert set(labelled) <= set(tool.region_tasks)
    assert len(tool.queue()) <= 8
    masks = [tool.predictions[task_id].mask for task_id in tool.queue()]
    assert all(mask is not None and mask.max() < 2 for mask in masks)
    version = store.version(project.id, 1)
    assert version is not None
    assert set(version.metrics["seconds"]) == {"train", "rank", "publish"}


def test_three_rounds_end_in_labels_that_equal_the_truth(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    for _ in range(3):
        label_round(store, tool)
        settle(worker)
    project = store.projects()[0]
    assert project.current_version == 3
    labels = store.labels(project.id)
    assert len(labels) == 12
    for image in store.images(project.id):
        own = [label for label in labels if label.image_id == image.id]
        if own:
            mask = store.image_mask((64, 96), own)
            truth = tool.files[image.task_id][1]
            np.testing.assert_array_equal(mask[mask != VOID], truth[mask != VOID])


def test_lost_webhooks_are_repaired_by_reading_everything(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    for task_id in tool.queue()[:3]:
        tool.annotate(task_id)
    project = store.projects()[0]
    store.change_project(project.id, is_training_requested=True, is_sync_requested=True)
    settle(worker)
    assert store.projects()[0].current_version == 1
    assert len(store.labels(project.id)) == 3


def test_the_same_annotation_in_any_number_and_order_is_one_label(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    event = tool.annotate(task_id)
    for _ in range(3):
        store.add_event("2.200", "ANNOTATION_CREATED", event)
    store.add_event("2.200", "ANNOTATION_UPDATED", event)
    settle(worker)
    assert len(store.labels(store.projects()[0].id)) == 1


def test_an_update_replaces_the_label_and_counts_as_new(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    store.add_event("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    settle(worker)
    project = store.projects()[0]
    first = store.labels(project.id)[0]
    changed = (1 - tool.truth(task_id)).tolist()
    store.add_event(
        "2.200",
        "ANNOTATION_UPDATED",
        tool.annotate(task_id, [{"mask": changed}], annotation_id=1),
    )
    settle(worker)
    label = store.labels(project.id)[0]
    assert label.id > first.id
    np.testing.assert_array_equal(store.label_mask(label), changed)


def test_a_skipped_region_is_not_suggested_again_and_not_trained_on(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    skipped = tool.region_tasks[task_id].data
    event = tool.annotate(task_id, [], is_skipped=True)
    store.add_event("2.200", "ANNOTATION_CREATED", event)
    label_round(store, tool)
    settle(worker)
    place = (skipped["source_task"], skipped["row"], skipped["col"])
    queue = [tool.region_tasks[task_id].data for task_id in tool.queue()]
    assert place not in {(data["source_task"], data["row"], data["col"]) for data in queue}
    version = store.version(store.projects()[0].id, 1)
    assert version is not None
    assert version.num_labels == 4


def test_a_deleted_annotation_is_withdrawn_and_its_row_kept(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    store.add_event("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    settle(worker)
    tool.all_annotations[2].clear()
    store.add_event("2.200", "ANNOTATIONS_DELETED", {"annotations": [{"id": 1}]})
    settle(worker)
    project = store.projects()[0]
    assert store.labels(project.id) == []
    assert [row.task_id for row in store.crop_tasks(project.id)].count(task_id) == 1


def test_a_full_reading_withdraws_what_was_deleted_unseen(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    store.add_event("2.200", "ANNOTATION_CREATED", tool.annotate(tool.queue()[0]))
    settle(worker)
    project = store.projects()[0]
    tool.all_annotations[2].clear()
    store.change_project(project.id, is_sync_requested=True)
    settle(worker)
    assert store.labels(project.id) == []


def test_labels_survive_when_their_tasks_vanish(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    project = store.projects()[0]
    tool.region_tasks.clear()
    tool.all_annotations[2].clear()
    store.change_project(project.id, is_sync_requested=True)
    settle(worker)
    assert len(store.labels(project.id)) == 4


def test_an_annotation_that_cannot_be_read_is_kept_and_read_later(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    event = tool.annotate(task_id, [{"unknown": True}])
    store.add_event("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    project = store.projects()[0]
    assert [row.error for row in store.failed_annotations(project.id)] == [
        "annotation 1: unknown label"
    ]
    tool.annotate(task_id, annotation_id=1)
    store.change_project(project.id, is_sync_requested=True)
    settle(worker)
    assert store.failed_annotations(project.id) == []
    assert len(store.labels(project.id)) == 1


def test_two_annotators_on_one_region_are_both_kept_and_the_newest_counts(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
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
        store.add_event("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    project = store.projects()[0]
    (label,) = store.labels(project.id)
    assert label.annotator == "bob"
    assert len(store.labels(project.id, with_superseded=True)) == 2


def test_a_whole_image_annotation_counts_region_by_region(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    mask = tool.files[1][1]
    tool.annotate(1, [{"mask": mask.tolist()}], project_id=1)
    settle(make_worker())
    project = store.projects()[0]
    labels = store.labels(project.id)
    assert len(labels) == 6
    np.testing.assert_array_equal(store.image_mask((64, 96), labels), mask)
    assert 1 not in {task.data["source_task"] for task in tool.region_tasks.values()}


def test_a_kill_between_making_tasks_and_noting_them_makes_none_twice(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    project = store.projects()[0]
    rows = store.crop_tasks(project.id)
    store.change_crop_tasks({row.id: {"task_id": None, "task_created_at": None} for row in rows})
    store.change_project(project.id, is_sync_requested=True, published_version=None)
    settle(make_worker())
    assert len(tool.region_tasks) == 8
    assert {row.task_id for row in store.crop_tasks(project.id)} == set(tool.region_tasks)


def test_a_lost_data_folder_is_rebuilt_from_the_labelling_tool(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker, tmp_path: Path
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    fresh = ProjectStore.open(f"sqlite:///{tmp_path / 'fresh.db'}", tmp_path / "fresh")
    fresh.register("1.100", 1, "<View/>", CLASSES, "pool")
    again = Worker(fresh, tool, worker._config)
    settle(again)
    assert len(fresh.labels(fresh.projects()[0].id)) == 4
    fresh.close()


def test_what_annotators_have_begun_is_never_deleted(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    queue = tool.queue()
    tool.begun = {queue[-1]}
    label_round(store, tool)
    settle(worker)
    assert queue[-1] in tool.region_tasks
    assert len(tool.queue()) <= 8


def test_when_annotators_run_out_it_trains_with_what_there_is(
    store: ProjectStore, make_worker: MakeWorker
):
    tool = FakeTool(num_images=1)
    tool.files = {1: picture(1, (32, 96))}
    worker = make_worker()
    worker = Worker(store, tool, worker._config)
    settle(worker)
    assert len(tool.queue()) == 3
    label_round(store, tool, 3)
    settle(worker)
    assert store.projects()[0].current_version == 1
    assert tool.queue() == []


def test_training_without_labels_is_not_due(store: ProjectStore, make_worker: MakeWorker):
    worker = make_worker()
    store.change_project(store.projects()[0].id, is_training_requested=True)
    settle(worker)
    assert store.projects()[0].current_version == 0


def test_regions_that_nobody_painted_do_not_stop_the_loop(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    for task_id in tool.queue():
        store.add_event("2.200", "ANNOTATION_CREATED", tool.annotate(task_id, []))
    settle(worker)
    project = store.projects()[0]
    assert project.current_version == 0
    assert project.last_error is None
    assert tool.queue()  # the next suggestions are there


def test_a_version_that_is_worse_is_not_used(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)

    def judge(self: Trainer, *arguments: object) -> bool:
        metrics = arguments[-1]
        assert isinstance(metrics, dict)
        metrics.update(validation_miou=0.1, validation_miou_before=0.5)
        return False

    monkeypatch.setattr(Trainer, "_judge", judge)
    label_round(store, tool)
    settle(worker)
    project = store.projects()[0]
    assert project.current_version == 1
    rejected = store.version(project.id, 2)
    assert rejected is not None
    assert not rejected.is_accepted
    assert tool.version == "v1"
    assert len(tool.queue()) >= 4  # filled from the ranking of v1


@pytest.mark.parametrize(
    ("right_before", "right_after", "num_regions", "is_accepted"),
    [(8, 9, 5, True), (8, 8, 5, True), (9, 2, 5, False), (9, 2, 4, True)],
)
def test_the_promotion_gate_refuses_what_is_worse_on_enough_held_out_regions(
    right_before: int,
    right_after: int,
    num_regions: int,
    is_accepted: bool,
    store: ProjectStore,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
):
    worker = make_worker()

    def evaluate(right: int, images: object) -> np.ndarray:
        return np.array([[right, 10 - right], [10 - right, right]])

    monkeypatch.setattr("ralis_backend.online.worker.train.evaluate", evaluate)
    regions = tuple(Region(0, col, 1, 1) for col in range(num_regions))
    held_out = LabelledImage(lambda: np.zeros((1, 9, 3), np.uint8), np.zeros((1, 9)), regions)
    parent = Version(number=1, weights_key="versions/1/1.safetensors")
    metrics: dict[str, object] = {}
    judged = worker._trainer._judge(
        store.projects()[0],
        parent,
        right_before,  # type: ignore[arg-type]
        right_after,  # type: ignore[arg-type]
        LabelledSplit([], [held_out]),
        metrics,
    )
    assert judged is is_accepted
    assert set(metrics) == {"validation_miou", "validation_iou", "validation_miou_before"}


def test_a_tool_that_is_down_costs_nothing_but_time(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    tool.fail_next = ToolUnavailable("Label Studio does not answer")
    settle(worker)
    project = store.projects()[0]
    assert project.last_error == "Label Studio does not answer"
    assert project.retry_at is not None
    store.change_project(project.id, retry_at=now())
    settle(worker)
    assert store.projects()[0].current_version == 1
    assert store.projects()[0].last_error is None


def test_a_deleted_project_rests_and_keeps_its_labels(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    project = store.projects()[0]
    tool.is_gone = True
    store.change_project(project.id, is_sync_requested=True)
    settle(worker)
    assert store.projects() == []
    assert len(store.labels(project.id)) == 4


def test_something_in_a_project_that_is_gone_does_not_end_the_project(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    tool.fail_next = ToolNotFound("prediction 7 does not exist")
    store.change_project(store.projects()[0].id, is_sync_requested=True)
    settle(worker)
    (project,) = store.projects()
    assert project.last_error == "prediction 7 does not exist"
    assert project.retry_at is not None


def test_one_unreadable_image_does_not_stop_the_others(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    tool.files[2] = (b"not an image", tool.files[2][1])
    settle(make_worker())
    project = store.projects()[0]
    errors = {image.task_id: image.error for image in store.images(project.id)}
    assert errors[2]
    assert errors[1] is None
    assert 2 not in {task.data["source_task"] for task in tool.region_tasks.values()}


def test_a_label_added_in_mid_project_extends_the_segmenter(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    from dataclasses import replace

    from ralis_backend.online.tool import ClassLabel

    tool.pool = replace(
        tool.pool, label_config="<View2/>", classes=(*CLASSES[1:], ClassLabel("new", "#FF0000"))
    )
    store.change_project(store.projects()[0].id, is_sync_requested=True)
    label_round(store, tool)
    settle(worker)
    project = store.projects()[0]
    assert project.class_names == ("dark", "bright", "new")
    assert [entry["is_active"] for entry in project.classes] == [False, True, True]
    assert project.current_version == 2


def test_two_workers_do_not_advance_the_same_project(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    project_id = store.register("1.100", 1, "<View/>", CLASSES, "pool").id
    assert store.acquire_lease(project_id, "another", 60)
    assert not make_worker().advance_all()
    store.release_lease(project_id, "another")
    assert make_worker().advance_all()


def test_a_lease_whose_owner_died_is_taken_over(store: ProjectStore):
    project_id = store.register("1.100", 1, "<View/>", CLASSES, "pool").id
    assert store.acquire_lease(project_id, "dead", -1)
    assert store.acquire_lease(project_id, "alive", 60)
    assert not store.acquire_lease(project_id, "dead", 60)


def test_the_lease_of_a_worker_that_was_killed_here_is_free_at_once(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    dead = f"{socket.gethostname()}/{ended.pid}/abc"
    assert store.acquire_lease(store.projects()[0].id, dead, 1000)
    stop = threading.Event()
    stop.set()
    worker.run(stop)
    assert store.projects()[0].lease_owner is None


def test_stopping_in_mid_training_leaves_no_version_and_begins_anew(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    stop = threading.Event()
    worker._stop = stop
    worker.advance_all()  # reads the events
    stop.set()
    project = store.projects()[0]
    worker.advance(project)
    assert store.projects()[0].current_version == 0
    worker._stop = threading.Event()
    settle(worker)
    assert store.projects()[0].current_version == 1


def test_in_place_publishes_every_image_with_its_best_regions(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place", suggestions_per_image=2)
    settle(worker)
    assert len(tool.image_predictions) == 6
    assert all(len(suggestion.regions) == 2 for suggestion in tool.image_predictions)
    region = tool.image_predictions[0].regions[0].region
    mask = tool.files[1][1]
    box = [region.row, region.col, region.height, region.width]
    event = tool.annotate(1, [{"mask": mask.tolist()}, {"box": box}], project_id=1)
    store.add_event("1.100", "ANNOTATION_CREATED", event)
    settle(worker)
    (label,) = store.labels(store.projects()[0].id)
    assert label.region == region
    assert (label.round, label.strategy, label.version) == (1, "k-center", 0)
    np.testing.assert_array_equal(store.label_mask(label), mask[region.slices])


def test_without_rectangles_the_regions_handed_out_are_what_was_labelled(
    store: ProjectStore, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place", suggestions_per_image=2)
    settle(worker)
    handed_out = {suggested.region for suggested in tool.image_predictions[0].regions}
    event = tool.annotate(1, [{"mask": tool.files[1][1].tolist()}], project_id=1)
    store.add_event("1.100", "ANNOTATION_CREATED", event)
    settle(worker)
    labels = store.labels(store.projects()[0].id)
    assert {label.region for label in labels} == handed_out
