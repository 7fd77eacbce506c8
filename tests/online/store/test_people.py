"""Several annotations of one region: which of them counts."""

from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Annotation, Image, Project
from tests.online.store.conftest import LABELS, annotation, label

REGION = Region(0, 0, 1, 1)


def painted(value: int) -> NewLabel:
    return NewLabel(REGION, np.full((1, 1), value, np.uint8))


def strokes(name: str) -> dict[str, object]:
    return {"results": [{"id": name}]}


def counted(store: Store, project: Project) -> list[str]:
    return [found.annotator for found in store.labels.of(project.id)]


def test_a_star_wins_over_a_newer_annotation_and_is_followed_when_it_goes(
    store: Store, project: Project, image: Image
):
    ann = {"annotator": "ann", **strokes("a")}
    label(store, project, image, annotation(1, 1, **ann), painted(0))
    label(store, project, image, annotation(2, 2, annotator="bob", **strokes("b")), painted(1))
    assert counted(store, project) == ["bob"]
    newest = store.labels.newest_id(project.id)
    starred = annotation(1, 3, is_starred=True, **ann)
    assert store.annotations.put(project, "1.100", starred, image, None) is None
    assert counted(store, project) == ["ann"]
    assert store.labels.newest_id(project.id) == newest  # nothing was painted
    # Label Studio dates an annotation anew when its star goes: bob's paint is newer all the same.
    store.annotations.put(project, "1.100", annotation(1, 4, **ann), image, None)
    assert counted(store, project) == ["bob"]


def test_only_the_region_that_was_painted_is_painted_last(
    store: Store, project: Project, image: Image
):
    aside = Region(0, 1, 1, 1)
    beside = [NewLabel(aside, np.full((1, 1), value, np.uint8)) for value in (0, 1)]

    def put(number: int, seconds: int, *new: NewLabel) -> Annotation:
        source = annotation(number, seconds, annotator=f"{number}", **strokes(f"{seconds}"))
        return label(store, project, image, source, *new)

    def of(region: Region) -> list[str]:
        found = [it.annotator for it in store.labels.of(project.id) if it.region == region]
        counted = store.labels.class_pixels(project.id, 1)
        assert counted == sum(sum(it.pixels[1:2]) for it in store.labels.of(project.id))
        return found

    put(1, 1, painted(0), beside[0])
    put(2, 2, painted(1))
    row = put(1, 3, painted(0), beside[1])
    assert (of(REGION), of(aside)) == (["2"], ["1"])
    put(1, 4, painted(0), beside[1])  # nothing but a tick
    assert of(REGION) == ["2"]
    row = put(1, 5, painted(0), beside[1])
    store.labels.put(row, [NewLabel(REGION, np.full((1, 1), 2, np.uint8)), beside[1]], {})
    assert of(REGION) == ["2"], "what is read otherwise was not painted later"
    put(1, 6, painted(0), beside[1])
    assert of(REGION) == ["1"]


def test_of_several_stars_the_one_painted_last_counts(store: Store, project: Project, image: Image):
    for number, name in ((1, "ann"), (2, "bob"), (3, "cem")):
        source = annotation(
            number, number, annotator=name, is_starred=name != "cem", **strokes(name)
        )
        label(store, project, image, source, painted(0))
    assert counted(store, project) == ["bob"]


def test_a_starred_skip_hides_paint_that_nobody_starred(
    store: Store, project: Project, image: Image
):
    label(store, project, image, annotation(1, 1), painted(0))
    skip = annotation(2, 2, is_skipped=True)
    label(store, project, image, skip, NewLabel(REGION, None))
    assert [it.is_skipped for it in store.labels.of(project.id)] == [False]
    assert store.labels.count_regions(project.id) == 1
    label(store, project, image, annotation(4, 4, **strokes("bob's")), painted(1))
    assert store.labels.count(project.id) == 1, "a region counts once, whoever painted it"
    starred = annotation(2, 3, is_skipped=True, is_starred=True)
    store.annotations.put(project, "1.100", starred, image, None)
    assert [it.is_skipped for it in store.labels.of(project.id)] == [True]
    assert store.labels.count_regions(project.id) == 0


def test_overlapping_regions_show_the_starred_pixels(store: Store, project: Project, image: Image):
    wide = NewLabel(Region(0, 0, 1, 2), np.array([[0, 0]], np.uint8))
    source = annotation(1, 1, is_starred=True, **strokes("wide"))
    label(store, project, image, source, wide)
    label(store, project, image, annotation(2, 2, **strokes("one")), painted(1))
    mask = store.labels.image_mask((1, 2), store.labels.of(project.id))
    np.testing.assert_array_equal(mask, [[0, 0]])


BULK = {"is_machine": True, "lead_time_s": None}


def put_bulk(store: Store, project: Project, image: Image) -> Annotation:
    return label(store, project, image, annotation(1, 1, **BULK), painted(0), useful=True)


def test_a_machines_annotation_counts_for_nothing(store: Store, project: Project, image: Image):
    label(store, project, image, annotation(2, 0, **strokes("b")), painted(1))
    put_bulk(store, project, image)  # newer, of the same region
    assert [it.pixels for it in store.labels.of(project.id)] == [(0, 1)]
    assert store.labels.count(project.id) == store.labels.count_regions(project.id) == 1
    assert len(store.labels.every(project.id)) == 1
    assert store.annotations.count_machine(project.id) == 1
    assert store.annotations.count("1.100") == 2  # as the tool counts


def test_a_machines_annotation_does_not_use_up_a_turn_of_the_held_out_fifth(
    store: Store, project: Project, image: Image
):
    put_bulk(store, project, image)
    assert store.images.get(image.id).is_validation is None


def test_a_machines_annotation_that_a_person_confirms_is_a_new_label(
    store: Store, project: Project, image: Image
):
    put_bulk(store, project, image)
    before = store.labels.newest_id(project.id)
    row = store.annotations.put(project, "1.100", annotation(1, 2, lead_time_s=4.0), image, None)
    assert row is not None
    store.labels.put(row, [painted(0)], {})
    (found,) = store.labels.of(project.id)
    assert found.id > before
    assert store.annotations.count_machine(project.id) == 0


def test_a_machines_annotation_stays_one_when_its_prediction_is_dropped(
    store: Store, project: Project, image: Image
):
    put_bulk(store, project, image)
    forgotten = annotation(1, 1, lead_time_s=None)  # nothing names the prediction any more
    assert store.annotations.put(project, "1.100", forgotten, image, None) is None
    assert store.labels.of(project.id) == []


def test_a_star_makes_a_machines_annotation_count_until_it_goes(
    store: Store, project: Project, image: Image
):
    put_bulk(store, project, image)
    starred = annotation(1, 2, is_starred=True, lead_time_s=None)
    row = store.annotations.put(project, "1.100", starred, image, None)
    assert row is not None
    store.labels.put(row, [painted(0)], {})
    assert len(store.labels.of(project.id)) == 1


def test_an_annotator_whose_account_is_gone_is_still_named(
    store: Store, project: Project, image: Image
):
    label(store, project, image, annotation(1, 1, annotator="7"), painted(0))
    gone = annotation(1, 1, annotator="")
    assert store.annotations.put(project, "1.100", gone, image, None) is None
    assert counted(store, project) == ["7"]


@pytest.mark.parametrize("is_skip", [True, False])
def test_a_region_that_is_read_in_another_way_is_not_a_new_one(
    store: Store, project: Project, image: Image, is_skip: bool
):
    label(store, project, image, annotation(1), NewLabel(REGION, None) if is_skip else painted(0))
    before = store.labels.newest_id(project.id)
    store.projects.register("1.100", 1, "<View/>", LABELS, "streets", default_background="car")
    label(store, project, image, annotation(1), painted(1))
    assert store.labels.newest_id(project.id) > before, "versions learn it"
    assert store.labels.first_ids(project.id) == [before]


def test_a_region_is_new_once_it_is_painted_instead_of_skipped(
    store: Store, project: Project, image: Image
):
    label(store, project, image, annotation(1, is_skipped=True), NewLabel(REGION, None))
    skip = store.labels.newest_id(project.id)
    label(store, project, image, annotation(1, 1, **strokes("a")), painted(0))
    (new,) = store.labels.first_ids(project.id)
    label(store, project, image, annotation(1, 2, **strokes("b")), painted(1))
    assert store.labels.first_ids(project.id) == [new]
    assert new > skip
    assert store.labels.of(project.id)[0].id > new


def test_a_tick_that_is_taken_back_makes_no_new_region(
    store: Store, project: Project, image: Image
):
    label(store, project, image, annotation(1), painted(0))
    (first,) = store.labels.first_ids(project.id)
    label(store, project, image, annotation(1, 1, **strokes("tick")), NewLabel(REGION, None))
    label(store, project, image, annotation(1, 2), painted(0))
    assert store.labels.first_ids(project.id) == [first]


def test_newer_paint_leaves_a_region_as_old_as_its_first_label(
    store: Store, project: Project, image: Image
):
    other = NewLabel(Region(0, 1, 1, 1), np.full((1, 1), 1, np.uint8))
    label(store, project, image, annotation(1, 1), painted(0))
    label(store, project, image, annotation(2, 2, **strokes("b")), painted(1))
    (first,) = store.labels.first_ids(project.id)
    assert first < store.labels.newest_id(project.id)
    label(store, project, image, annotation(1, 3, **strokes("more")), painted(0), other)
    assert store.labels.count(project.id, since_id=store.labels.newest_id(project.id) - 1) == 1
    assert sorted(store.labels.first_ids(project.id)) == [
        first,
        store.labels.newest_id(project.id),
    ]
