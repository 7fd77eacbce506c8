from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ralis_backend.labelstudio.client import Unavailable
from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker, WorkerConfig
from tests.online.conftest import RANKING, TINY, MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool


def test_the_first_queue_holds_two_rounds_spread_over_images(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker())
    assert len(tool.region_tasks) == 8
    first_round = [tool.region_tasks[task_id].data for task_id in tool.queue()[:4]]
    assert [data["rank"] for data in first_round] == [1, 2, 3, 4]
    assert {data["round"] for data in first_round} == {1}
    assert len({data["source_task"] for data in first_round}) > 1
    assert tool.version == "v0"
    assert all(prediction.mask is None for prediction in tool.predictions.values())


def test_a_skipped_region_is_not_suggested_again_and_not_trained_on(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    skipped = tool.region_tasks[task_id].data
    event = tool.annotate(task_id, [], is_skipped=True)
    store.events.add("2.200", "ANNOTATION_CREATED", event)
    label_round(store, tool)
    settle(worker)
    place = (skipped["source_task"], skipped["row"], skipped["col"])
    queue = [tool.region_tasks[task_id].data for task_id in tool.queue()]
    assert place not in {(data["source_task"], data["row"], data["col"]) for data in queue}
    version = store.versions.find(store.projects.all()[0].id, 1)
    assert version is not None
    assert version.num_labels == 4


def test_what_annotators_have_begun_is_never_deleted(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    queue = tool.queue()
    tool.begun = {queue[-1]}
    label_round(store, tool)
    settle(worker)
    assert queue[-1] in tool.region_tasks
    assert len(tool.queue()) <= 8


def test_in_place_publishes_every_image_with_its_best_regions(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place", suggestions_per_image=2)
    settle(worker)
    assert len(tool.image_predictions) == 6
    assert all(len(suggestion.regions) == 2 for suggestion in tool.image_predictions)
    region = tool.image_predictions[0].regions[0].region
    mask = tool.files[1][1]
    box = [region.row, region.col, region.height, region.width]
    event = tool.annotate(1, [{"mask": mask.tolist()}, {"box": box}], project_id=1)
    store.events.add("1.100", "ANNOTATION_CREATED", event)
    settle(worker)
    (label,) = store.labels.of(store.projects.all()[0].id)
    assert label.region == region
    assert (label.round, label.strategy, label.version) == (1, "k-center", 0)
    np.testing.assert_array_equal(store.labels.mask(label), mask[region.slices])


@pytest.mark.e2e  # slow: an outage at each call
def test_an_outage_in_mid_publishing_leads_to_the_same_queue(
    store: Store, tool: FakeTool, make_worker: MakeWorker, tmp_path: Path
):
    settle(make_worker())
    label_round(store, tool)
    settle(make_worker())
    calm = [tool.region_tasks[task_id].data for task_id in tool.queue()]
    for call in (
        "begun_tasks",
        "delete_unopened_tasks",
        "create_crop_tasks",
        "publish_crop_predictions",
    ):
        assert queue_after_outage(call, tmp_path / call) == calm, call


def queue_after_outage(call: str, folder: Path) -> list[Mapping[str, Any]]:
    """What annotators meet where a call failed once, of a project on files of its own."""
    folder.mkdir()
    tool = FakeTool()
    with closing(Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")) as store:
        store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
        worker = Worker(store, tool, WorkerConfig(ranking=RANKING, finetune=TINY))
        settle(worker)
        label_round(store, tool)
        tool.fail_in = {call: Unavailable("Label Studio does not answer")}
        settle(worker)
        project = store.projects.all()[0]
        assert project.last_error == "Label Studio does not answer"
        store.projects.change(project.id, retry_at=None)
        settle(worker)
    return [tool.region_tasks[task_id].data for task_id in tool.queue()]


def test_an_image_whose_address_changed_keeps_its_size_and_its_suggestions_in_place(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place")
    settle(worker)
    project = store.projects.all()[0]
    tool.pool_tasks[0] = replace(tool.pool_tasks[0], image="/data/1.png?signature=another")
    store.projects.change(project.id, is_sync_requested=True, published_version=None)
    settle(worker)
    image = store.images.of(project.id)[0]
    assert (image.ref, image.size) == ("/data/1.png?signature=another", (64, 96))
    assert [suggestion.task_id for suggestion in tool.image_predictions] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("mode", ["crops", "in-place"])
def test_masks_of_others_are_what_annotators_begin_with_until_there_is_a_version_of_ours(
    store: Store, tool: FakeTool, make_worker: MakeWorker, mode: str
):
    worker = make_worker(mode)
    (project,) = store.projects.all()
    store.projects.change(project.id, start_from="sam")
    truths = {task_id: mask for task_id, (_, mask) in tool.files.items()}
    tool.others = {("sam", task_id): mask for task_id, mask in truths.items()}
    tool.others["sam", 2] = ValueError("a prediction that nobody can read")
    del tool.others["sam", 3]
    settle(worker)
    shown = masks_shown(tool)
    assert {task_id for task_id, mask in shown if mask is None} <= {2, 3}
    for task_id, mask in shown:
        if task_id not in (2, 3):
            assert mask is not None
    if mode == "crops":
        for task_id in tool.queue():
            if tool.region_tasks[task_id].data["source_task"] not in (2, 3):
                prediction = tool.predictions[task_id]
                np.testing.assert_array_equal(prediction.mask, tool.truth(task_id))
        label_round(store, tool)
        settle(worker)
        assert tool.version == "v1"
        tool.calls.clear()
        store.projects.change(project.id, published_version=None)
        settle(worker)
        assert "others_mask" not in tool.calls


def masks_shown(tool: FakeTool) -> list[tuple[int, np.ndarray | None]]:
    """The pool's task and the mask of everything that annotators meet."""
    in_crops = [
        (tool.region_tasks[task_id].data["source_task"], it.mask)
        for task_id, it in tool.predictions.items()
    ]
    return in_crops + [(it.task_id, it.mask) for it in tool.image_predictions]


def test_a_tool_that_is_down_is_waited_for_before_first_masks_are_given_up(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    (project,) = store.projects.all()
    store.projects.change(project.id, start_from="sam")
    tool.others = {("sam", task_id): mask for task_id, (_, mask) in tool.files.items()}
    others_mask = tool.others_mask

    def down(*_: object) -> None:
        tool.fail_in["project"] = Unavailable("down")
        raise Unavailable("no answer")

    monkeypatch.setattr(tool, "others_mask", down)
    settle(worker)
    assert store.projects.by_id(project.id).published_version is None
    assert store.projects.by_id(project.id).last_error == "down"
    monkeypatch.setattr(tool, "others_mask", others_mask)
    tool.others["sam", 3] = Unavailable("502 for this task alone")
    store.projects.change(project.id, retry_at=None)
    settle(worker)
    without = {task_id for task_id, mask in masks_shown(tool) if mask is None}
    assert without == {3} < {task_id for task_id, _ in masks_shown(tool)}
