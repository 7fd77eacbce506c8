"""What is counted of labels by class and by wish, without reading all of them."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import ClassLabel
from tests.online.conftest import selects
from tests.online.store.conftest import LABELS, annotation, label


@pytest.mark.parametrize("starred", [None, 1, 2, 3, 4])
def test_pixels_of_a_class_are_those_of_the_labels_that_count(
    store: Store, project: Project, image: Image, starred: int | None
):
    region, other = Region(0, 0, 2, 2), Region(0, 2, 1, 2)
    painted = [np.array([[0, 1], [1, 1]], np.uint8), None, np.array([[1, 0], [0, 0]], np.uint8)]
    for number, mask in enumerate([*painted, None], start=1):
        is_starred, is_skipped = number == starred, mask is None
        source = annotation(number, number, is_starred=is_starred, is_skipped=is_skipped)
        label(store, project, image, source, NewLabel(region, mask))
    label(store, project, image, annotation(5), NewLabel(other, np.full((1, 2), 1, np.uint8)))
    counted = [sum(it.pixels[1:2]) for it in store.labels.of(project.id)]
    assert store.labels.class_pixels(project.id, 1) == sum(counted)
    assert sum(counted) == 2 + {None: 1, 1: 3, 2: 0, 3: 1, 4: 0}[starred]
    assert store.labels.class_pixels(project.id, 7) == 0


@pytest.mark.parametrize("removed", [(), ("car",), ("road",), ("road", "car")])
def test_a_label_whose_classes_were_removed_hides_no_paint_of_others(
    store: Store, project: Project, image: Image, removed: tuple[str, ...]
):
    region = Region(0, 0, 2, 2)
    for number, index in enumerate([0, 1], start=1):
        mask = np.full((2, 2), index, np.uint8)
        label(store, project, image, annotation(number, number), NewLabel(region, mask))
    kept = [it for it in LABELS if it.name not in removed]
    store.projects.register("1.100", 1, "<View/>", [*kept, ClassLabel("tree", "#00FF00")], "a")
    expected = (4, 0) if removed == ("car",) else (0, 4)
    (found,) = store.labels.of(project.id)
    assert found.pixels == (expected if expected[1] else (4,))
    assert store.labels.of_image(image.id) == [found]
    assert tuple(store.labels.class_pixels(project.id, index) for index in (0, 1)) == expected
    assert store.labels.count_regions(project.id) == 1


def test_a_label_that_ends_before_the_classes_that_are_left_hides_no_paint_of_others(
    store: Store, project: Project, image: Image
):
    tree = ClassLabel("tree", "#00FF00")
    store.projects.register("1.100", 1, "<View>2</View>", [*LABELS, tree], "a")
    region = Region(0, 0, 2, 2)
    for number, index in enumerate([2, 0], start=1):
        mask = np.full((2, 2), index, np.uint8)
        label(store, project, image, annotation(number, number), NewLabel(region, mask))
    store.projects.register("1.100", 1, "<View>3</View>", [LABELS[1], tree], "a")  # no road
    assert [it.pixels for it in store.labels.of(project.id)] == [(0, 0, 4)]
    assert [store.labels.class_pixels(project.id, index) for index in (0, 1, 2)] == [0, 0, 4]


def test_a_disputed_label_hides_no_paint_of_others_and_is_told_when_it_is_no_more(
    store: Store, project: Project, image: Image
):
    region = Region(0, 0, 2, 2)
    whole = NewLabel(region, np.full((2, 2), 0, np.uint8))
    label(store, project, image, annotation(1, 1), whole)
    dab = NewLabel(region, np.full((2, 2), 1, np.uint8), is_disputed=True)
    row = label(store, project, image, annotation(2, 2), dab)

    def counted() -> tuple[int, ...]:
        return tuple(store.labels.class_pixels(project.id, index) for index in (0, 1))

    assert ([it.pixels for it in store.labels.of(project.id)], counted()) == ([(4,)], (4, 0))
    newest = store.labels.newest_id(project.id)
    store.labels.put(row, [replace(dab, is_disputed=False)], {})
    assert ([it.pixels for it in store.labels.of(project.id)], counted()) == ([(0, 4)], (0, 4))
    assert store.labels.newest_id(project.id) == newest, "nothing new was painted"


def test_of_labels_on_whole_images_those_of_a_wish_alone_are_read(
    store: Store, project: Project, image: Image
):
    mined, usual = Region(0, 0, 2, 2), Region(0, 2, 2, 2)
    for version, wish in ((1, 1), (2, 11), (3, None)):
        entry = {**asdict(mined), "rank": 1, "usefulness": 1.0, "reason": ""}
        entry |= {} if wish is None else {"strategy": "presence:car", "wish": wish}
        store.queue.hand_out(image.id, version, [entry, {**entry, **asdict(usual), "wish": None}])
    paint = np.zeros((2, 2), np.uint8)
    label(store, project, image, annotation(1, suggested_version="v2"), NewLabel(mined, paint))
    assert [it.region for it in store.labels.mined(project.id, 11)] == [mined]
    assert store.labels.mined(project.id, 1) == []
    with selects(store) as read:
        store.labels.mined(project.id, 11)
    assert "suggestions.regions" in read[0].partition("WHERE")[2]
