from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core import segmenter as segmenters
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.further import AWAITED, NOT_IN_USE, TRIED_WITH
from ralis_backend.online.report import notes
from ralis_backend.online.store import Store, now
from ralis_backend.online.tool import ClassLabel
from ralis_backend.online.worker import new_version, train, training_plan
from ralis_backend.online.worker.train import Trainer
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool
from tests.online.worker.test_failing_steps import out_of_reach


def test_regions_that_nobody_painted_do_not_stop_the_loop(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    for task_id in tool.queue():
        store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id, []))
    settle(worker)
    project = store.projects.all()[0]
    assert project.current_version == 0
    assert str(project.last_error).startswith("8 annotations were not read (id 8, 7, ")
    assert project.num_failures == 0
    assert tool.queue()  # the next suggestions are there


def test_a_version_that_is_worse_is_not_used(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    metrics = {"validation_miou": 0.1, "validation_miou_before": 0.5}
    monkeypatch.setattr(new_version, "is_promoted", lambda *arguments: False)
    monkeypatch.setattr(new_version, "validation_metrics", lambda *arguments: metrics)
    label_round(store, tool)
    settle(worker)
    project = store.projects.all()[0]
    assert project.current_version == 1
    rejected = store.versions.find(project.id, 2)
    assert rejected is not None
    assert not rejected.is_accepted
    assert rejected.metrics["validation_miou_before"] == 0.5
    assert tool.version == "v1"
    assert len(tool.queue()) >= 4  # filled from the ranking of v1


def test_the_gate_compares_both_versions_on_the_images_that_are_held_out(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    for image in range(1, 6):  # the fifth image that is labelled is held out
        tool.annotate(image, project_id=1, results=[{"mask": tool.files[image][1].tolist()}])
    settle(worker)
    project = store.projects.all()[0]
    first = store.versions.find(project.id, 1)
    assert first is not None
    assert first.metrics["training_regions"] == 24
    assert first.metrics["validation_regions"] == 6
    assert "validation_miou_before" not in first.metrics
    assert "validation_gain" not in first.metrics
    assert first.metrics["validation_images"] == 1
    assert set(first.metrics["validation_class_regions"]) == {"dark", "bright"}
    assert first.metrics["validation_interval"] == [first.metrics["validation_miou"]] * 2
    unjudged = {AWAITED: 4, TRIED_WITH: [2, 4], "validation_regions": 2, "validation_miou": None}
    store.versions.change(first.id, metrics=unjudged)  # as if four could not be read
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    second = store.versions.find(project.id, 2)
    assert second is not None
    assert second.metrics["validation_miou_before"] == first.metrics["validation_miou"]
    assert "validation_gain" not in second.metrics, "before its round nothing had learned"
    caught_up = store.versions.find(project.id, 1)
    assert caught_up is not None
    assert caught_up.metrics == first.metrics
    assert "1 image are too few to tell" in store.projects.by_id(project.id).people["advice"]


def test_a_training_is_kept_though_weights_of_an_older_version_cannot_be_read(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0, promotion_tolerance=1.0)
    project = store.projects.all()[0]
    for images in ((1, 2, 3), (4, 5)):  # the fifth image that is labelled is held out
        for image in images:
            tool.annotate(image, project_id=1, results=[{"mask": tool.files[image][1].tolist()}])
        store.projects.change(project.id, is_sync_requested=True)
        settle(worker)
    first, second = store.versions.all(project.id)
    unjudged = {AWAITED: 6, "validation_regions": 0, "validation_miou": None}
    store.versions.change(second.id, metrics=unjudged)
    load = segmenters.load

    def stale(path: Path, device: str) -> Segmenter:
        if path == store.blobs.path(str(first.weights_key)):
            raise OSError(116, "Stale file handle")
        return load(path, device)

    monkeypatch.setattr(segmenters, "load", stale)
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    project = store.projects.by_id(project.id)
    assert (project.current_version, project.last_error) == (3, None)
    caught_up = store.versions.find(project.id, 2)
    assert caught_up is not None
    assert caught_up.metrics["validation_miou"] == second.metrics["validation_miou"]
    assert "validation_gain" not in caught_up.metrics


def test_what_is_trained_again_on_the_same_labels_gains_over_what_was_before_its_round(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.0, promotion_tolerance=1.0)
    project = store.projects.all()[0]
    for images in ((1, 2, 3, 4, 5), (6,)):
        for image in images:
            tool.annotate(image, project_id=1, results=[{"mask": tool.files[image][1].tolist()}])
        store.projects.change(project.id, is_sync_requested=True)
        settle(worker)
    for _ in range(2):
        store.projects.change(project.id, is_training_requested=True)
        settle(worker)
    first, second, *again = store.versions.all(project.id)
    assert [it.parent for it in again] == [2, 3]
    for version in (second, *again):
        gain = version.metrics["validation_miou"] - first.metrics["validation_miou"]
        assert version.metrics["validation_gain"][0] == pytest.approx(gain, abs=2e-4)
    before = [it.metrics["validation_miou_before"] for it in again]
    assert before == [it.metrics["validation_miou"] for it in (second, again[0])]


@pytest.mark.parametrize("comes_back", [True, False])
def test_for_a_day_that_what_is_held_out_is_out_of_reach_no_version_passes_unjudged(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    comes_back: bool,
):
    worker = make_worker(random_share=0.0)
    for image in range(1, 6):
        tool.annotate(image, project_id=1, results=[{"mask": tool.files[image][1].tolist()}])
    settle(worker)
    project = store.projects.all()[0]
    with monkeypatch.context() as down:
        down.setattr(tool, "image", out_of_reach(tool, {5}))
        for number in (2, 3):  # what has just failed is not even tried in the second
            store.projects.change(project.id, is_training_requested=True)
            settle(worker)
            project = store.projects.by_id(project.id)
            assert project.current_version == 1
            kept = store.versions.find(project.id, number)
            assert kept is not None
            assert not kept.is_accepted
            assert "of the 6 regions that are held out 0 can be read" in kept.metrics[NOT_IN_USE]
        assert len(store.versions.all(project.id)) == 3, "it is not repeated while nothing changes"
        (held_out,) = store.images.bad(project.id)
        since = now() if comes_back else now() - timedelta(days=1)
        store.images.change(held_out.id, retry_at=now(), unreachable_since=since)
        if not comes_back:
            settle(worker)
    settle(worker)
    fourth = store.versions.all(project.id)[-1]
    assert fourth.number == 4
    assert fourth.metrics["validation_regions"] == (6 if comes_back else 0)
    assert NOT_IN_USE not in fourth.metrics
    assert fourth.is_accepted or comes_back


def test_a_label_added_in_mid_project_extends_the_segmenter(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    tool.pool = replace(
        tool.pool, label_config="<View2/>", classes=(*CLASSES[1:], ClassLabel("new", "#FF0000"))
    )
    store.projects.change(store.projects.all()[0].id, is_sync_requested=True)
    label_round(store, tool)
    settle(worker)
    project = store.projects.all()[0]
    assert project.class_names == ("dark", "bright", "new")
    assert [entry["is_active"] for entry in project.classes] == [False, True, True]
    assert project.current_version == 2


def test_stopping_in_mid_training_leaves_no_version_and_begins_anew(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    stop = threading.Event()
    worker._stop = stop
    worker.advance_all()  # reads the events
    stop.set()
    (look,) = store.projects.looks()
    worker.advance(look)
    assert store.projects.all()[0].current_version == 0
    worker._stop = threading.Event()
    settle(worker)
    assert store.projects.all()[0].current_version == 1


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """What each training learned from besides paint, and from how many images without labels."""
    seen = []

    def noted(segmenter, images, *args, besides=(), **options):  # type: ignore[no-untyped-def]
        seen.append((list(besides), sum(not image.regions for image in images)))
        return finetune(segmenter, images, *args, besides=besides, **options)

    monkeypatch.setattr(train, "finetune", noted)
    return seen


def test_a_version_learns_from_what_nobody_labelled_where_settings_say_so(
    store: Store, tool: FakeTool, make_worker: MakeWorker, trainings: list[tuple[list[str], int]]
):
    """Not the first one: a teacher that knows nothing, and no version to tell the harm by."""
    worker = make_worker(learner="paint+unlabelled", promotion_tolerance=1.0)
    for image in range(1, 6):  # the fifth image that is labelled is held out
        tool.annotate(image, project_id=1, results=[{"mask": tool.files[image][1].tolist()}])
    settle(worker)
    project = store.projects.all()[0]
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    (first, _), (second, num_unlabelled) = trainings
    assert (first, second) == ([], ["unlabelled"])
    assert num_unlabelled > 0
    alone, version = (store.versions.find(project.id, number) for number in (1, 2))
    assert alone is not None
    assert "learned_from" not in alone.metrics
    (note,) = [it for it in notes([("v1", alone.metrics)]) if "paint alone" in it]
    assert note == (
        "v1 has learned from paint alone: what has learned nothing yet is no teacher, and no "
        "version is there to compare with"
    )
    assert version is not None
    assert version.metrics["learned_from"] == ["unlabelled"]
    assert version.metrics["unlabelled"]["has_collapsed"] is False


def test_what_only_held_out_files_that_are_gone_could_judge_learns_from_paint_alone(
    store: Store, tool: FakeTool, make_worker: MakeWorker, trainings: list[tuple[list[str], int]]
):
    worker = make_worker(learner="paint+unlabelled")
    for image in range(1, 6):
        tool.annotate(image, project_id=1, results=[{"mask": tool.files[image][1].tolist()}])
    settle(worker)
    project = store.projects.all()[0]
    (held_out,) = (it for it in store.images.of(project.id) if it.is_validation)
    del tool.files[held_out.task_id]
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    assert [besides for besides, _ in trainings] == [[], ["unlabelled"], []]
    version = store.versions.find(project.id, 2)
    assert version is not None
    assert version.is_accepted
    assert "learned_from" not in version.metrics
    assert version.metrics["paint_alone_so_far"].startswith("0 labelled regions of those")


@pytest.mark.e2e  # slow
def test_what_harms_is_left_off_and_said_until_there_are_twice_as_many_labels(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    trainings: list[tuple[list[str], int]],
):
    """The gate refuses whatever learned from unlabelled pixels; held-out scores are told apart."""
    monkeypatch.setattr(new_version, "is_promoted", lambda *arguments: not trainings[-1][0])
    monkeypatch.setattr(
        train, "held_out_score", lambda *arguments: 0.4 - 0.1 * len(trainings[-1][0])
    )
    monkeypatch.setattr(Trainer, "_compare", lambda *arguments: (None, np.zeros((1, 2, 2))))
    monkeypatch.setattr(training_plan, "can_judge", lambda num_regions: True)
    worker = make_worker(learner="paint+unlabelled")
    settle(worker)
    for _ in range(3):
        label_round(store, tool)
        settle(worker)
    assert [besides for besides, _ in trainings] == [
        [],  # 4 labels: the first version
        ["unlabelled"], [],  # 8: tried, and trained again without
        [],  # 12: left off
    ]  # fmt: skip
    project = store.projects.all()[0]
    assert project.current_version == 3
    version = store.versions.find(project.id, 3)
    assert version is not None
    assert "learned_from" not in version.metrics
    (note,) = [it for it in notes([("v3", version.metrics)]) if "paint alone" in it]
    assert note == (
        "v3 has learned from paint alone: held-out mIoU was 0.300 with unlabelled pixels and 0.400 "
        "from paint alone; they are tried again with 16 labelled regions"
    )


@pytest.mark.e2e  # slow
def test_what_harms_is_left_off_where_the_gate_refuses_both_trials_too(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    trainings: list[tuple[list[str], int]],
):
    worker = make_worker(learner="paint+unlabelled")
    settle(worker)
    label_round(store, tool)
    settle(worker)
    monkeypatch.setattr(training_plan, "can_judge", lambda num_regions: True)
    monkeypatch.setattr(new_version, "is_promoted", lambda *arguments: False)
    monkeypatch.setattr(
        train, "held_out_score", lambda *arguments: 0.4 - 0.1 * len(trainings[-1][0])
    )
    seen = np.ones((1, 2, 2), np.int64)
    monkeypatch.setattr(Trainer, "_compare", lambda *arguments: (seen, seen))
    for _ in range(2):
        label_round(store, tool)
        settle(worker)
    assert [besides for besides, _ in trainings] == [[], ["unlabelled"], [], []]
    in_use = store.versions.find(store.projects.all()[0].id, 1)
    assert in_use is not None
    (note,) = [it for it in notes([("v1", in_use.metrics)]) if "held-out" in it]
    assert note == (
        "v1: what follows learns from paint alone: held-out mIoU was 0.300 with unlabelled pixels "
        "and 0.400 from paint alone; they are tried again with 16 labelled regions"
    )
