from __future__ import annotations

from collections.abc import Callable

from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker
from tests.online.conftest import selects, settle
from tests.online.fake_tool import FakeTool


def test_brush_strokes_are_read_back_for_annotations_that_failed_alone(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker]
):
    worker = make_worker()
    settle(worker)
    for task_id in tool.queue()[:2]:
        store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    with selects(store) as read:
        settle(worker)
    assert len(store.labels.of(store.projects.all()[0].id)) == 2
    assert [it for it in read if "annotations.payload" in it] == []
    store.projects.change(store.projects.all()[0].id, is_sync_requested=True)
    with selects(store) as read:
        settle(worker)
    assert [
        "annotations.error IS NOT NULL" in it for it in read if "annotations.payload" in it
    ] == [True]


def test_whether_there_are_events_is_asked_without_reading_one(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = make_worker()
    settle(worker)
    with selects(store) as read:
        settle(worker)
    assert [it for it in read if "events.payload" in it] == []
