from __future__ import annotations

from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool, picture


def test_when_annotators_run_out_it_trains_with_what_there_is(
    store: Store, make_worker: MakeWorker
):
    tool = FakeTool(num_images=1)
    tool.files = {1: picture(1, (32, 96))}
    worker = make_worker()
    worker = Worker(store, tool, worker._config)
    settle(worker)
    assert len(tool.queue()) == 3
    label_round(store, tool, 3)
    settle(worker)
    assert store.projects.all()[0].current_version == 1
    assert tool.queue() == []


def test_training_without_labels_is_not_due(store: Store, make_worker: MakeWorker):
    worker = make_worker()
    store.projects.change(store.projects.all()[0].id, is_training_requested=True)
    settle(worker)
    assert store.projects.all()[0].current_version == 0
