from __future__ import annotations

import logging

import numpy as np
import pytest

from ralis_backend.core.regions import VOID
from ralis_backend.online.store import Store
from tests.online.conftest import MakeWorker, settle
from tests.online.fake_tool import FakeTool

ODD = {"odd": "result 'b1' has the labels ['road', 'car'], expected exactly one"}
CANNOT_BE_READ = {"unknown": True}


def submit(store: Store, tool: FakeTool, task_id: int, results: list, **values: object) -> None:
    event = tool.annotate(task_id, results, **values)  # type: ignore[arg-type]
    store.events.add("2.200", "ANNOTATION_CREATED", event)


@pytest.mark.parametrize(
    ("results", "in_part", "not_at_all", "num_painted"),
    [
        (lambda truth: [{"mask": truth}, ODD], 8, 0, 8),
        (lambda truth: [ODD], 0, 8, 0),
        (lambda truth: [], 0, 8, 0),
        (lambda truth: [CANNOT_BE_READ], 0, 8, 0),
    ],
)
def test_a_queue_of_odd_annotations_goes_on_and_says_so(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    caplog: pytest.LogCaptureFixture,
    results,
    in_part: int,
    not_at_all: int,
    num_painted: int,
):
    worker = make_worker()
    settle(worker)
    first = tool.queue()
    assert len(first) == 8
    with caplog.at_level(logging.WARNING):
        for task_id in first:
            submit(store, tool, task_id, results(tool.truth(task_id).tolist()))
        settle(worker)
    (project,) = store.projects.all()
    assert len(tool.queue()) == 8, "annotators have as much to do as before"
    assert len(store.queue.open(project.id)) == 8
    labels = store.labels.of(project.id)
    assert (len(labels), sum(not label.is_skipped for label in labels)) == (8, num_painted)
    asked = {(row.image_id, row.region) for row in store.queue.all(project.id)}
    assert len(asked) == 16, "nobody is asked for the same region again"
    assert store.annotations.count_left_out(project.id) == (in_part, not_at_all)
    what = "read in part" if in_part else "not read"
    assert project.last_error == (
        f"8 annotations were {what} (id 8, 7, 6, 5, 4, ...); `ralis status` says why"
    )
    assert caplog.text.count("annotation ") >= 8


def test_in_place_an_annotation_without_strokes_labels_nothing_and_is_named(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place")
    settle(worker)
    tool.version = None  # it was not begun from a suggestion
    for results in ([], [{"useful": True}], [ODD], [{"odd box": "a turned box"}]):
        tool.annotate(1, results, project_id=1)
    (project,) = store.projects.all()
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert store.labels.of(project.id) == []
    assert [it.what for it in store.annotations.left_out(project.id)] == [
        ("a turned box",),
        (ODD["odd"],),
        *[("nothing is painted in it, and the project has no background label",)] * 2,
    ]
    assert store.images.of(project.id)[0].is_validation is None
    assert [answer.value for answer in store.answers.of(project.id)] == [True]


def test_of_a_whole_image_only_the_regions_that_somebody_painted_in_are_labelled(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    mask = np.full((64, 96), VOID, np.uint8)
    mask[40, 70] = 1
    tool.annotate(1, [{"mask": mask.tolist()}], project_id=1)
    settle(make_worker())
    (project,) = store.projects.all()
    (label,) = store.labels.of(project.id)
    assert (label.region.row, label.region.col) == (32, 64)
    assert store.annotations.left_out(project.id) == []


def test_an_annotation_that_is_repaired_is_named_no_more(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    for results in ([CANNOT_BE_READ], [ODD], [{"mask": tool.truth(task_id).tolist()}]):
        submit(store, tool, task_id, results, annotation_id=1)
        settle(worker)
        (project,) = store.projects.all()
        assert bool(project.last_error) == ("mask" not in results[0])
    (label,) = store.labels.of(project.id)
    np.testing.assert_array_equal(store.labels.mask(label), tool.truth(task_id))


def test_what_was_read_before_is_kept_when_it_cannot_be_read_any_more(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    truth = tool.truth(task_id).tolist()
    submit(store, tool, task_id, [{"mask": truth}])
    settle(worker)
    submit(store, tool, task_id, [CANNOT_BE_READ], annotation_id=1)
    settle(worker)
    (project,) = store.projects.all()
    (label,) = store.labels.of(project.id)
    np.testing.assert_array_equal(store.labels.mask(label), truth)
    assert store.annotations.count_left_out(project.id) == (0, 1)


def test_an_error_that_says_nothing_is_named_by_its_kind(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    settle(worker)

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tool, "mask", no_memory)
    submit(store, tool, tool.queue()[0], [])
    settle(worker)
    (project,) = store.projects.all()
    assert [it.what for it in store.annotations.left_out(project.id)] == [("MemoryError",)]


def test_a_step_that_fails_with_an_error_that_says_nothing_is_shown_all_the_same(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.fail_next = MemoryError()
    make_worker().advance_all()
    (project,) = store.projects.all()
    assert project.last_error == "MemoryError"
