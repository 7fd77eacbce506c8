from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store, annotation_from_json, annotation_to_json, unpack
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.worker import Worker
from tests.online.conftest import selects, settle
from tests.online.fake_tool import FakeTool
from tests.online.store.conftest import annotation, label


def test_annotations_survive_the_way_through_json():
    source = annotation(7, 3, suggested_version="v2", lead_time_s=None)
    assert annotation_from_json(annotation_to_json(source)) == source


def test_what_the_tool_says_now_replaces_what_is_stored_however_it_is_dated(
    store: Store, project: Project, image: Image
):
    region = NewLabel(Region(0, 0, 1, 1), np.ones((1, 1), np.uint8))
    future = 100 * 365 * 24 * 3600
    label(store, project, image, annotation(1, future, results=[{"id": "old"}]), region)
    dated_earlier = annotation(1, 2, results=[{"id": "new"}])
    row = store.annotations.put(project, "1.100", dated_earlier, image, None)
    assert row is not None
    assert annotation_from_json(unpack(row.payload)) == dated_earlier
    assert row.updated_at == dated_earlier.updated_at


def test_the_same_strokes_told_in_other_words_are_not_new_labels(
    store: Store, project: Project, image: Image
):
    region = NewLabel(Region(0, 0, 1, 1), np.ones((1, 1), np.uint8))
    label(store, project, image, annotation(1, 1, annotator="7"), region)
    newest = store.labels.newest_id(project.id)
    told_by_api = annotation(1, 1, annotator="ann@example.com", task_created_at=None)
    assert store.annotations.put(project, "1.100", told_by_api, image, None) is None
    assert store.labels.newest_id(project.id) == newest


def test_an_annotation_whose_labels_were_lost_by_a_kill_is_read_again(
    store: Store, project: Project, image: Image
):
    stored = store.annotations.put(project, "1.100", annotation(), image, None)
    assert stored is not None
    assert [row.id for row in store.annotations.failed(project.id)] == [stored.id]
    again = store.annotations.put(project, "1.100", annotation(), image, None)
    assert again is not None
    store.labels.put(again, [NewLabel(Region(0, 0, 1, 1), None)], {})
    assert store.annotations.failed(project.id) == []
    assert store.annotations.put(project, "1.100", annotation(), image, None) is None


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
    assert [it for it in read if "annotations.payload" in it] == []
