from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from ralis_backend.online.store import Store
from ralis_backend.online.tool import ClassLabel
from ralis_backend.online.worker import new_version
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool


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
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    second = store.versions.find(project.id, 2)
    assert second is not None
    assert second.metrics["validation_miou_before"] == first.metrics["validation_miou"]
    gain = second.metrics["validation_miou"] - second.metrics["validation_miou_before"]
    assert second.metrics["validation_gain"][0] == pytest.approx(gain, abs=2e-4)
    assert "1 image are too few to tell" in store.projects.by_id(project.id).people["advice"]


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
