from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.learning.finetune import LabelledImage
from ralis_backend.core.regions import Region
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Version
from ralis_backend.online.tool import ClassLabel
from ralis_backend.online.worker.train import LabelledSplit, Trainer
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
    assert project.last_error is None
    assert tool.queue()  # the next suggestions are there


def test_a_version_that_is_worse_is_not_used(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
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
    project = store.projects.all()[0]
    assert project.current_version == 1
    rejected = store.versions.find(project.id, 2)
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
    store: Store,
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
    judged = Trainer(store, tool, worker._config)._judge(
        store.projects.all()[0],
        parent,
        right_before,  # type: ignore[arg-type]
        right_after,  # type: ignore[arg-type]
        LabelledSplit([], [held_out]),
        metrics,
    )
    assert judged is is_accepted
    assert set(metrics) == {"validation_miou", "validation_iou", "validation_miou_before"}


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
    project = store.projects.all()[0]
    worker.advance(project)
    assert store.projects.all()[0].current_version == 0
    worker._stop = threading.Event()
    settle(worker)
    assert store.projects.all()[0].current_version == 1
