"""What annotators, reviewers and owners do beside painting, as the worker follows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.images import content_of, decode_image
from ralis_backend.core.regions import Region
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool

pytestmark = pytest.mark.e2e  # rounds of small trainings


def the_project(store: Store) -> Project:
    (project,) = store.projects.all()
    return project


def places(tool: FakeTool) -> list[tuple[int, int, int]]:
    """Image, row and column of each region that annotators have not labelled."""
    waiting = [tool.region_tasks[task_id].data for task_id in tool.queue()]
    return [(data["source_task"], data["row"], data["col"]) for data in waiting]


def read(store: Store) -> None:
    store.projects.change(the_project(store).id, is_sync_requested=True)


# Skips


def test_a_skipped_region_is_asked_of_nobody_again_and_another_takes_its_place(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    skipped = tool.queue()[:5]
    asked = [tool.region_tasks[task_id].data for task_id in skipped]
    for task_id in skipped:
        event = tool.annotate(task_id, [], is_skipped=True)
        store.events.add("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    project = the_project(store)
    assert len(tool.queue()) == 8  # as before
    gone = {(data["source_task"], data["row"], data["col"]) for data in asked}
    assert not gone & set(places(tool))
    assert store.labels.count_regions(project.id) == 0
    assert all(label.is_skipped for label in store.labels.of(project.id))
    assert project.current_version == 0


# Annotations made in bulk


def test_annotations_made_in_bulk_are_nobodys_and_do_not_dry_up_the_queue(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    asked = set(places(tool))
    converted = tool.queue()
    for task_id in converted:
        tool.annotate(task_id, is_machine=True, lead_time_s=None)
    read(store)
    settle(worker)
    project = the_project(store)
    assert store.labels.of(project.id) == []
    assert (project.current_version, store.annotations.count_machine(project.id)) == (0, 8)
    assert len(tool.queue()) == 8
    assert len(asked & set(places(tool))) >= 6  # people are asked after all
    assert not set(converted) & set(tool.queue())
    for number in range(1, 5):  # somebody looks at four of them and updates them
        tool.annotate(converted[number - 1], annotation_id=number, lead_time_s=3.0)
    read(store)
    settle(worker)
    assert the_project(store).current_version == 1
    assert store.labels.count_regions(project.id) == 4


def test_images_that_were_annotated_in_bulk_stay_in_the_pool(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place")
    settle(worker)
    for task in tool.pool_tasks:
        mask = tool.files[task.id][1]
        tool.annotate(
            task.id, [{"mask": mask.tolist()}], project_id=1, is_machine=True, lead_time_s=None
        )
    read(store)
    settle(worker)
    project = the_project(store)
    assert store.labels.of(project.id) == []
    assert project.current_version == 0
    assert {image.is_validation for image in store.images.of(project.id)} == {None}


# Several people


def test_whole_images_of_two_people_are_both_kept_and_the_starred_one_counts(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    size = tool.files[1][1].shape
    for value, name, is_starred in ((0, "ann", True), (1, "bob", False)):
        mask = np.full(size, value).tolist()
        tool.annotate(1, [{"mask": mask}], project_id=1, annotator=name, is_starred=is_starred)
    settle(make_worker("in-place"))
    labels = store.labels.of(the_project(store).id)
    assert {label.annotator for label in labels} == {"ann"}
    np.testing.assert_array_equal(store.labels.image_mask(size, labels), np.zeros(size))


def test_an_annotation_that_was_moved_to_another_task_labels_that_one(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    first, second = tool.queue()[:2]
    tool.annotate(first)
    read(store)
    settle(worker)
    moved = tool.all_annotations[2][1]
    task = tool.region_tasks[second]
    results = [{"mask": tool.truth(second).tolist()}]
    tool.all_annotations[2][1] = replace(
        moved, task_id=second, task_created_at=task.created_at, results=results,
        updated_at=tool.tick(),
    )  # fmt: skip
    read(store)
    settle(worker)
    (label,) = store.labels.of(the_project(store).id)
    data = task.data
    region = Region(data["row"], data["col"], data["height"], data["width"])
    assert label.region == region
    assert first in {row.task_id for row in store.queue.open(the_project(store).id)}


# The same picture twice


def test_a_picture_in_two_tasks_is_asked_once_and_stands_on_one_side(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    for number in (4, 5, 6):  # imported twice
        tool.files[number] = tool.files[number - 3]
    worker = make_worker()
    settle(worker)
    project = the_project(store)
    assert len(store.images.doubles(project.id)) == 3
    seen: set[tuple[int, int, int]] = set()
    for _ in range(5):
        seen |= set(places(tool))
        label_round(store, tool)
        settle(worker)
    assert len(seen) == 18  # every region of three pictures, and none of their doubles
    assert {source for source, _, _ in seen} == {1, 2, 3}
    assert tool.queue() == []


def test_in_place_a_double_comes_last_and_shares_the_labels(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.files[6] = tool.files[1]
    worker = make_worker("in-place")
    settle(worker)
    usefulness = {it.task_id: it.usefulness for it in tool.image_predictions}
    assert usefulness[6] == 0 < min(usefulness[number] for number in range(1, 6))
    labelled = {it.region for it in tool.image_predictions[0].regions}
    event = tool.annotate(1, [{"mask": tool.files[1][1].tolist()}], project_id=1)
    store.events.add("1.100", "ANNOTATION_CREATED", event)
    store.projects.change(the_project(store).id, is_training_requested=True)
    settle(worker)
    (double,) = [it for it in tool.image_predictions if it.task_id == 6]
    assert double.version == "v1"
    assert not labelled & {it.region for it in double.regions}


def test_the_content_of_an_image_is_stored_when_it_is_read(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker())
    for image in store.images.of(the_project(store).id):
        assert image.content == content_of(decode_image(tool.files[image.task_id][0]))
