from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Annotation, CropTask, Image, Project
from ralis_backend.online.tool import ToolTask
from tests.online.store.conftest import START, annotation

ASKED, ELSEWHERE = Region(0, 0, 2, 2), Region(0, 2, 2, 2)
SIZE = (4, 6)
REGIONS_UID = "2.200"


def _tasks(*numbers: int) -> list[ToolTask]:
    return [ToolTask(number, START, f"/data/{number}.png") for number in numbers]


def _image(store: Store, project: Project, task_id: int, content: str | None) -> Image:
    image = store.images.find(project.id, task_id)
    assert image is not None
    if content is not None:
        store.images.seen(image.id, SIZE, content)
    return store.images.get(image.id)


@pytest.fixture
def first(store: Store, project: Project) -> Image:
    store.images.reconcile(project.id, _tasks(1, 2))
    return _image(store, project, 1, "same")


def _crop_task(store: Store, image: Image, region: Region, state: str = "open") -> CropTask:
    row = CropTask(
        project_id=image.project_id, image_id=image.id, row=region.row, col=region.col,
        height=region.height, width=region.width, scale=1, round=1, rank=1, reason="",
        strategy="entropy", version=0, usefulness=0.0, task_id=10 + region.col,
        task_created_at=START, state=state,
    )  # fmt: skip
    store.queue.add([row])
    return store.queue.all(image.project_id)[-1]


def _store_again(store: Store, project: Project, crop_id: int, number: int) -> Annotation | None:
    crop = store.queue.get(crop_id)
    image = store.images.get(crop.image_id)
    source = annotation(number, task_id=crop.task_id)
    return store.annotations.put(project, REGIONS_UID, source, image, crop)


def _paint(store: Store, project: Project, image: Image, region: Region, number: int = 1) -> int:
    """Paint a region in a task of its own; the row id of that task."""
    crop_id = _crop_task(store, image, region).id
    row = _store_again(store, project, crop_id, number)
    assert row is not None
    patch = np.zeros((region.height, region.width), np.uint8)
    store.labels.put(row, [NewLabel(region, patch)], {"feedback": "worth it"})
    return crop_id


def _labelled(store: Store, project: Project) -> list[tuple[int, Region]]:
    found = store.labels.of(project.id)
    return [(store.images.get(it.image_id).task_id, it.region) for it in found]


def test_regions_of_a_task_that_is_gone_count_in_another_one_of_the_picture(
    store: Store, project: Project, first: Image
):
    crop_id = _paint(store, project, first, ASKED)
    waiting = _crop_task(store, first, ELSEWHERE)
    (label,) = store.labels.of(project.id)
    _image(store, project, 2, "same")
    assert _labelled(store, project) == [(1, ASKED)]
    store.images.reconcile(project.id, _tasks(2))
    assert _labelled(store, project) == [(2, ASKED)]
    assert [it.id for it in store.labels.of(project.id)] == [label.id]
    assert store.labels.count_of_gone_images(project.id) == 0
    assert [it.image_id for it in store.answers.of(project.id)] != [first.id]
    assert store.queue.gone(project.id) == []
    assert store.queue.get(waiting.id).image_id != first.id
    assert _store_again(store, project, crop_id, 1) is None  # read again, it is as it was


def test_regions_count_again_when_the_picture_is_imported_anew(
    store: Store, project: Project, first: Image
):
    crop_id = _paint(store, project, first, ASKED)
    store.images.reconcile(project.id, _tasks(2, 7))
    assert _labelled(store, project) == []
    _image(store, project, 2, "other")
    assert store.labels.count_of_gone_images(project.id) == 1
    anew = _image(store, project, 7, "same")
    assert _labelled(store, project) == [(7, ASKED)]
    assert anew.is_validation is store.images.get(first.id).is_validation is False
    assert store.labels.count_of_gone_images(project.id) == 0
    assert _store_again(store, project, crop_id, 1) is None


def test_a_task_that_comes_back_has_the_regions_of_those_that_are_gone(
    store: Store, project: Project, first: Image
):
    _paint(store, project, first, ASKED)
    second = _image(store, project, 2, "same")
    for listed, labelled in (((2,), [2]), ((1, 2), [2]), ((1,), [1]), ((), []), ((2,), [2])):
        store.images.reconcile(project.id, _tasks(*listed))
        assert [task_id for task_id, _ in _labelled(store, project)] == labelled
    assert [it.image_id for it in store.labels.every(project.id)] == [second.id]


def test_a_region_that_was_painted_in_both_tasks_counts_once(
    store: Store, project: Project, first: Image
):
    _paint(store, project, first, ASKED)
    _paint(store, project, _image(store, project, 2, "same"), ASKED, number=2)
    store.images.reconcile(project.id, _tasks(2))
    assert _labelled(store, project) == [(2, ASKED)]
    assert store.labels.count(project.id) == store.labels.count_regions(project.id) == 1


def test_annotations_of_a_whole_image_go_with_its_task(
    store: Store, project: Project, first: Image
):
    row = store.annotations.put(project, project.uid, annotation(1), first, None)
    assert row is not None
    store.labels.put(row, [NewLabel(ELSEWHERE, np.zeros((2, 2), np.uint8))], {})
    _paint(store, project, first, ASKED, number=2)
    _image(store, project, 2, "same")
    store.images.reconcile(project.id, _tasks(2))
    assert _labelled(store, project) == [(2, ASKED)]
    store.images.reconcile(project.id, _tasks(1, 2))
    assert sorted(_labelled(store, project)) == [(1, ELSEWHERE), (2, ASKED)]


def test_the_same_picture_in_another_project_takes_nothing(
    store: Store, project: Project, first: Image
):
    _paint(store, project, first, ASKED)
    other = store.projects.register("3.300", 3, "<View/>", (), "other")
    store.images.reconcile(other.id, _tasks(1))
    _image(store, other, 1, "same")
    store.images.reconcile(project.id, _tasks(2))
    assert store.labels.count_of_gone_images(project.id) == 1
    assert store.labels.every(other.id) == []


@pytest.mark.parametrize("is_read", [False, True])
def test_a_training_that_lacked_the_regions_is_made_up_for(
    store: Store, project: Project, first: Image, is_read: bool
):
    _paint(store, project, first, ASKED)
    newest = store.labels.newest_id(project.id)
    if is_read:
        store.images.note_trained([first.id], newest)
    store.projects.change(project.id, trained_label_id=newest, is_training_requested=False)
    store.images.reconcile(project.id, _tasks(2, 7))
    _image(store, project, 7, "same")
    assert store.projects.by_id(project.id).is_training_requested is not is_read


@pytest.mark.parametrize("is_lacking", [False, True])
def test_what_is_newer_than_every_training_asks_for_none(
    store: Store, project: Project, first: Image, is_lacking: bool
):
    other = _image(store, project, 2, "same")
    number = iter((1, 2))
    if is_lacking:  # its image could not be read
        _paint(store, project, first, ASKED, next(number))
    _paint(store, project, other, ELSEWHERE, next(number))
    newest = store.labels.newest_id(project.id)
    store.images.note_trained([other.id], newest)
    store.projects.change(project.id, trained_label_id=newest, is_training_requested=False)
    if not is_lacking:
        _paint(store, project, first, ASKED, next(number))
    store.images.reconcile(project.id, _tasks(2))
    assert len(store.labels.of(project.id)) == 2
    assert store.projects.by_id(project.id).is_training_requested is is_lacking


def test_what_an_earlier_release_left_on_images_that_are_gone_is_handed_on(
    store: Store, project: Project, first: Image
):
    _paint(store, project, first, ASKED)
    second = _image(store, project, 2, "same")
    store.images.change(first.id, is_deleted=True)
    assert _labelled(store, project) == []
    store.images.mark_missing(project.id, {second.task_id})
    assert _labelled(store, project) == [(2, ASKED)]
