from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.worker import Worker
from tests.online.conftest import settle
from tests.online.fake_tool import FakeTool
from tests.online.store.conftest import annotation, label

PAINTED = NewLabel(Region(0, 0, 1, 1), np.zeros((1, 1), np.uint8))


def values(store: Store, project: Project) -> dict[str, object]:
    return {answer.kind: answer.value for answer in store.answers.of(project.id)}


def test_an_answer_is_kept_with_who_gave_it_when_and_to_which_mask(
    store: Store, project: Project, image: Image
):
    source = annotation(1, 7, suggested_version="v3")
    row = label(store, project, image, source, PAINTED, useful=False, classes=[0, 2])
    first, second = store.answers.of(project.id)
    assert (first.kind, first.value, second.kind, second.value) == (
        "useful", False, "classes", [0, 2],
    )  # fmt: skip
    assert (first.image_id, first.region, first.annotation_row_id) == (image.id, None, row.id)
    assert (first.annotator, first.answered_at) == ("ann", source.updated_at)
    assert (first.seconds, first.version) == (3.5, 3)


def test_an_answer_that_is_read_again_is_one_answer(store: Store, project: Project, image: Image):
    row = label(store, project, image, annotation(), PAINTED, useful=True)
    store.labels.put(row, [PAINTED], {"useful": True})
    assert [answer.value for answer in store.answers.of(project.id)] == [True]


def test_an_answer_that_changes_is_replaced_and_one_that_is_taken_back_is_gone(
    store: Store, project: Project, image: Image
):
    for second, (answers, expected) in enumerate(
        [({"useful": True}, {"useful": True}), ({"useful": False}, {"useful": False}), ({}, {})]
    ):
        source = annotation(1, second, results=[{"id": str(second)}])
        label(store, project, image, source, PAINTED, **answers)
        assert values(store, project) == expected


def test_an_answer_is_withdrawn_with_its_annotation(store: Store, project: Project, image: Image):
    label(store, project, image, annotation(), PAINTED, useful=True)
    store.annotations.withdraw("1.100", [1])
    assert store.answers.of(project.id) == []


def test_the_answers_of_an_image_that_is_gone_do_not_count(
    store: Store, project: Project, image: Image
):
    label(store, project, image, annotation(), PAINTED, useful=True)
    store.images.reconcile(project.id, [])
    assert store.answers.of(project.id) == []


def test_what_is_ticked_in_a_region_s_task_is_an_answer_about_that_region(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker]
):
    worker = make_worker()
    settle(worker)
    task_id = tool.queue()[0]
    results = [{"mask": tool.truth(task_id).tolist(), "useful": True}]
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id, results))
    settle(worker)
    (project,) = store.projects.all()
    (answer,) = store.answers.of(project.id)
    (painted,) = store.labels.of(project.id)
    assert (answer.kind, answer.value, answer.seconds) == ("useful", True, 12.5)
    assert (answer.image_id, answer.region) == (painted.image_id, painted.region)
    assert answer.annotation_row_id == painted.annotation_row_id
