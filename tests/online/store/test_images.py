from __future__ import annotations

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
