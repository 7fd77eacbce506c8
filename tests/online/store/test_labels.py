from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.labels import NewLabel, covered
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.store import Store, labels
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.worker.new_version import class_regions
from ralis_backend.online.worker.search import pixels_of_regions
from ralis_backend.online.worker.training_plan import ImageLabels
from tests.online.store.conftest import LABELS, annotation, label


def test_overlapping_regions_keep_every_labelled_pixel_and_the_newest_wins(
    store: Store, project: Project, image: Image
):
    left = np.array([[0, 0, 0], [0, 0, VOID]], np.uint8)
    right = np.array([[1, VOID, 1], [1, 1, 1]], np.uint8)
    label(store, project, image, annotation(1, 1), NewLabel(Region(0, 0, 2, 3), left))
    label(store, project, image, annotation(2, 2), NewLabel(Region(0, 1, 2, 3), right))
    mask = store.labels.image_mask((2, 5), store.labels.of(project.id))
    np.testing.assert_array_equal(mask, [[0, 1, 0, 1, VOID], [0, 1, 1, 1, VOID]])


def test_what_was_painted_in_a_refused_region_hides_nothing_of_an_overlapping_one(
    store: Store, project: Project, image: Image
):
    left, right = np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint8)
    label(store, project, image, annotation(1, 1), NewLabel(Region(0, 0, 2, 3), left))
    dab = NewLabel(Region(0, 1, 2, 3), right, is_disputed=True)
    label(store, project, image, annotation(2, 2), dab)
    labels = store.labels.of(project.id)
    expected = [[0, 0, 0, 1, VOID]] * 2
    np.testing.assert_array_equal(store.labels.image_mask((2, 5), labels), expected)
    np.testing.assert_array_equal(LabelMasks(store, project).whole((2, 5), labels), expected)


def test_pixels_are_counted_per_class(store: Store, project: Project, image: Image):
    mask = np.array([[0, 1, 1], [VOID, 1, 0]], np.uint8)
    label(store, project, image, annotation(), NewLabel(Region(0, 0, 2, 3), mask))
    assert store.labels.of(project.id)[0].pixels == (2, 3)


def test_a_later_skip_does_not_hide_a_painted_label(store: Store, project: Project, image: Image):
    region = Region(0, 0, 1, 1)
    painted = NewLabel(region, np.zeros((1, 1), np.uint8))
    label(store, project, image, annotation(1, 1), painted)
    label(store, project, image, annotation(2, 2, is_skipped=True), NewLabel(region, None))
    assert [found.is_skipped for found in store.labels.of(project.id)] == [False]


def test_strokes_that_are_read_again_are_no_new_label(store: Store, project: Project, image: Image):
    painted = NewLabel(Region(0, 0, 1, 1), np.ones((1, 1), np.uint8))
    label(store, project, image, annotation(1, 1), painted)
    newest = store.labels.newest_id(project.id)
    ticked = annotation(1, 2, results=[{"id": "x"}, {"id": "ticked"}])
    label(store, project, image, ticked, painted, useful=True)
    assert store.labels.newest_id(project.id) == newest


def test_strokes_that_changed_replace_the_label(store: Store, project: Project, image: Image):
    region = Region(0, 0, 1, 1)
    painted = (NewLabel(region, np.full((1, 1), number, np.uint8)) for number in (0, 1))
    for second, new in enumerate(painted):
        source = annotation(1, second, results=[{"id": str(second)}])
        label(store, project, image, source, new)
    (found,) = store.labels.every(project.id)
    assert found.pixels == (0, 1)


@pytest.mark.parametrize("change", ["label config", "background"])
def test_what_was_read_with_what_the_project_meant_before_is_to_be_read_again(
    store: Store, project: Project, image: Image, change: str
):
    row = store.annotations.put(project, "1.100", annotation(), image, None)
    assert row is not None
    config = "<View>2</View>" if change == "label config" else "<View/>"
    background = "road" if change == "background" else None
    now = store.projects.register("1.100", 1, config, LABELS, "", None, background)
    painted = NewLabel(Region(0, 0, 1, 1), np.ones((1, 1), np.uint8))
    store.labels.put(row, [painted], {}, (), project.meaning)
    assert store.labels.of(project.id) == []
    assert store.annotations.waiting_ids(project.id) == [row.id]
    store.labels.put(row, [painted], {}, (), now.meaning)
    assert len(store.labels.of(project.id)) == 1
    assert store.annotations.waiting_ids(project.id) == []


def test_an_annotation_of_many_regions_that_are_all_read_otherwise_costs_each_region_a_few_looks(
    store: Store, project: Project, image: Image, monkeypatch: pytest.MonkeyPatch
):
    regions = [Region(0, col, 1, 1) for col in range(30)]

    def read_as(index: int) -> list[NewLabel]:
        return [NewLabel(region, np.full((1, 1), index, np.uint8)) for region in regions]

    row = label(store, project, image, annotation(), *read_as(0))
    place, looks = labels._place, []
    monkeypatch.setattr(labels, "_place", lambda it: looks.append(it) or place(it))
    store.labels.put(row, read_as(1), {})
    assert [it.pixels for it in store.labels.of(project.id)] == [(0, 1)] * len(regions)
    assert len(looks) <= 4 * len(regions)


def test_class_pixels_are_those_of_what_counts_beside_the_regions_too(
    store: Store, project: Project, image: Image
):
    region, cars = Region(0, 0, 1, 4), np.ones((1, 4), np.uint8)
    sliver = np.array([[1, VOID, VOID, VOID]], np.uint8)

    def counted() -> int:
        found = store.labels.class_pixels(project.id, 1)
        assert found == sum(sum(it.pixels[1:2]) for it in store.labels.of(project.id))
        return found

    label(store, project, image, annotation(1, 1), NewLabel(region, None))
    beside = NewLabel(region, sliver, share_beside=0.25)
    label(store, project, image, annotation(2, 2, is_starred=True), beside)
    assert counted() == 1
    dab = NewLabel(region, cars, is_disputed=True)
    label(store, project, image, annotation(3, 3), dab)
    assert counted() == 5
    label(store, project, image, annotation(4, 4), NewLabel(region, cars))
    assert counted() == 5
    road = NewLabel(region, np.zeros((1, 4), np.uint8), share_beside=1.0)
    label(store, project, image, annotation(5, 5), road)
    assert counted() == 5
    label(store, project, image, annotation(6, 6, is_starred=True), road)
    assert counted() == 1
    label(store, project, image, annotation(7, 7, is_starred=True), NewLabel(region, None))
    assert counted() == 0


def test_a_later_sliver_takes_its_own_pixels_alone_from_who_painted_beside_the_suggested_regions(
    store: Store, project: Project, image: Image
):
    region, sliver = Region(0, 0, 1, 4), np.array([[1, VOID, VOID, VOID]], np.uint8)
    most = NewLabel(region, np.array([[0, 0, 0, VOID]], np.uint8), share_beside=0.75)
    label(store, project, image, annotation(1, 1), most)
    starred = annotation(2, 2, is_starred=True)
    label(store, project, image, starred, NewLabel(region, sliver, share_beside=0.25))
    labels = store.labels.of(project.id)
    mask = LabelMasks(store, project).whole((1, 4), labels)
    np.testing.assert_array_equal(mask, [[1, 0, 0, VOID]])
    assert [store.labels.class_pixels(project.id, index) for index in (0, 1)] == [3, 1]
    assert sum(it.is_closing for it in labels) == store.labels.count_regions(project.id) == 1


def test_a_region_that_several_labels_show_is_counted_as_they_show_it(
    store: Store, project: Project, image: Image
):
    region = Region(0, 0, 1, 4)
    cars = NewLabel(region, np.array([[1, 1, 1, VOID]], np.uint8), share_beside=0.75)
    spill = NewLabel(region, np.array([[0, VOID, VOID, 1]], np.uint8), share_beside=0.5)
    label(store, project, image, annotation(1, 1), cars)
    label(store, project, image, annotation(2, 2), spill)
    found, masks = store.labels.of(project.id), LabelMasks(store, project)
    (pixels,) = pixels_of_regions(masks, (1, 4), found, [region], 2)
    assert pixels.tolist() == [1, 3, 0]
    part = ImageLabels(image, (1, 4), found)
    of_classes = class_regions(masks, [part], project.class_names)["validation_class_regions"]
    assert list(of_classes.values())[:2] == [1, 1]


def test_slivers_over_skips_are_no_labelled_regions(store: Store, project: Project, image: Image):
    region, sliver = Region(0, 0, 1, 4), np.array([[1, VOID, VOID, VOID]], np.uint8)
    label(store, project, image, annotation(1, 1), NewLabel(region, None))
    label(store, project, image, annotation(2, 2), NewLabel(region, sliver, share_beside=0.25))
    found = store.labels.of(project.id)
    assert sum(it.is_closing for it in found) == store.labels.count_regions(project.id) == 0
    assert covered((4, 4), found)[region.slices].all()
