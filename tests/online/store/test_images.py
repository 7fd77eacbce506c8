from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolTask
from tests.online.store.conftest import START, annotation, label


def test_task_ids_that_are_handed_out_again_are_other_images(store: Store, project: Project):
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/old.png")])
    (old,) = store.images.of(project.id)
    later = START + timedelta(hours=1)
    store.images.reconcile(project.id, [ToolTask(1, later, "/data/new.png")])
    assert [row.ref for row in store.images.of(project.id)] == ["/data/new.png"]
    assert store.images.get(old.id).is_deleted
    found = store.images.find(project.id, 1)
    assert found is not None
    assert found.ref == "/data/new.png"


def test_every_fifth_labelled_image_is_held_out_for_good(store: Store, project: Project):
    tasks = [ToolTask(i, START, f"/{i}.png") for i in range(1, 11)]
    store.images.reconcile(project.id, tasks)
    patch = NewLabel(Region(0, 0, 1, 1), np.zeros((1, 1), np.uint8))
    for number, image in enumerate(store.images.of(project.id), start=1):
        label(store, project, image, annotation(number, task_id=image.task_id), patch)
    held_out = [image.task_id for image in store.images.of(project.id) if image.is_validation]
    assert held_out == [5, 10]
    store.annotations.withdraw("1.100", [1])
    assert [image.task_id for image in store.images.of(project.id) if image.is_validation] == [
        5,
        10,
    ]


def test_an_image_knows_the_tools_id_of_its_project(store, project):
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/new.png")])
    assert {image.tool_project_id for image in store.images.of(project.id)} == {project.tool_id}


def test_an_address_that_changes_keeps_the_size_that_is_known(store: Store, project: Project):
    task = ToolTask(1, START, "https://bucket/a.png?signature=1")
    store.images.reconcile(project.id, [task])
    (image,) = store.images.of(project.id)
    store.images.change(image.id, height=64, width=96)
    for ref in ("https://bucket/a.png?signature=2", "https://other/a.png"):
        store.images.reconcile(project.id, [replace(task, image=ref)])
        assert [(row.ref, row.size) for row in store.images.of(project.id)] == [(ref, (64, 96))]


def test_an_image_that_comes_back_is_the_same_with_its_size(store: Store, project: Project):
    task = ToolTask(1, START, "/a.png")
    store.images.reconcile(project.id, [task])
    (image,) = store.images.of(project.id)
    store.images.change(image.id, height=64, width=96)
    store.images.reconcile(project.id, [])
    assert store.images.of(project.id) == []
    store.images.reconcile(project.id, [task])
    assert [(row.id, row.size) for row in store.images.of(project.id)] == [(image.id, (64, 96))]


def test_more_tasks_than_one_statement_takes_are_known_and_missed(store: Store, project: Project):
    tasks = [ToolTask(i, START, f"/{i}.png") for i in range(1, 1202)]
    for part in (tasks[:600], tasks[600:]):
        store.images.note(project.id, part)
    ids = set(range(1, 1300))
    assert store.images.known_tasks(project.id, ids) == set(range(1, 1202))
    store.images.mark_missing(project.id, {1, 1201})
    assert [row.task_id for row in store.images.of(project.id)] == [1, 1201]
