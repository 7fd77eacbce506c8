from __future__ import annotations

import numpy as np

from ralis_backend.online.store import Store
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool


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
