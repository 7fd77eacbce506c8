from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.labels import (
    NewLabel,
    RegionLabel,
    covered,
    labelled_pixels,
    labels_by_image,
    newest,
    without_classes,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
HERE, THERE = Region(0, 0, 1, 2), Region(1, 1, 1, 2)


def region_label(
    number: int, image_id: int = 1, region: Region = HERE, is_skipped: bool = False
) -> RegionLabel:
    return RegionLabel(
        id=number, oldest_id=number, annotation_row_id=number, image_id=image_id, region=region,
        is_skipped=is_skipped, mask_key=None, pixels=() if is_skipped else (2,),
        annotator="ann", created_at=START, updated_at=START,
        lead_time_s=None, round=None, strategy=None, version=None,
    )  # fmt: skip


def numbers(labels: list[RegionLabel]) -> list[int]:
    return [label.id for label in labels]


def test_the_newest_label_of_each_region_of_each_image_counts():
    labels = [
        region_label(1), region_label(2, region=THERE), region_label(3, image_id=2),
        region_label(4),
    ]  # fmt: skip
    assert numbers(newest(labels)) == [2, 3, 4]


def test_paint_hides_a_skip_and_is_never_hidden_by_one():
    skipped_first = [region_label(1, is_skipped=True), region_label(2)]
    assert numbers(newest(skipped_first)) == [2]
    skipped_last = [region_label(1), region_label(2, is_skipped=True)]
    assert numbers(newest(skipped_last)) == [1]
    skipped_twice = [region_label(1, is_skipped=True), region_label(2, is_skipped=True)]
    assert numbers(newest(skipped_twice)) == [2]


def test_pixels_of_removed_classes_are_void_and_regions_of_nothing_else_are_left_out():
    labels = [
        replace(region_label(number, region=Region(0, 0, 2, 5)), pixels=pixels)
        for number, pixels in enumerate([(3, 4, 1), (0, 6), (2,)])
    ] + [region_label(3, is_skipped=True)]
    assert labelled_pixels(labels, 3).tolist() == [[3, 4, 1, 2], [0, 6, 0, 4], [2, 0, 0, 8]]
    assert labelled_pixels(labels, 3, (1,)).tolist() == [[3, 0, 1, 6], [2, 0, 0, 8]]
    assert labelled_pixels(labels, 3, (0, 1, 2)).tolist() == []


def test_a_label_of_removed_classes_alone_hides_no_other_paint():
    road, car = ({"pixels": (3, 0)}, {"pixels": (0, 3)})
    labels = [replace(region_label(1), **road), replace(region_label(2), **car)]
    assert numbers(newest(labels)) == [2]
    assert numbers(newest(labels, [1])) == [1]
    assert numbers(newest(labels[::-1], [0])) == [2]
    assert numbers(newest(labels, [0, 1])) == [2]
    both = replace(region_label(3), pixels=(1, 1))
    assert numbers(newest([*labels, both], [1])) == [3]
    skip = region_label(4, is_skipped=True)
    assert numbers(newest([labels[1], skip], [1])) == [2]
    assert numbers(newest([labels[0], replace(labels[1], is_starred=True)], [1])) == [2]


def test_little_paint_beside_the_regions_hides_skips_alone_and_is_hidden_by_starred_ones():
    asked, skip = region_label(1), region_label(2, is_skipped=True)
    whole, rest, more = (
        replace(region_label(number), share_beside=share)
        for number, share in ((3, 0.9), (4, 0.1), (5, 0.5))
    )
    starred_rest = replace(rest, is_starred=True)
    over_a_skip = replace(rest, was_asked=True)
    assert newest([asked, whole, starred_rest]) == [starred_rest, asked]
    assert newest([asked, rest]) == newest([rest, asked]) == [rest, asked]
    assert newest([whole, rest]) == [whole, rest]
    assert newest([rest, whole]) == [rest, whole]
    assert newest([more, rest]) == [more, rest]
    assert newest([rest, more]) == [rest, more]
    assert newest([starred_rest, more]) == [more, starred_rest]
    assert newest([starred_rest, whole]) == [whole, starred_rest]
    assert newest([skip, rest]) == [over_a_skip]
    assert newest([skip, rest, more]) == [over_a_skip, more]
    assert newest([skip, whole, rest]) == [whole, rest]
    starred_skip = replace(skip, is_starred=True)
    assert newest([whole, rest, starred_skip]) == [starred_skip]
    assert newest([rest, asked, starred_skip]) == [starred_skip]
    assert newest([skip, rest, asked]) == [over_a_skip, asked]
    disputed = replace(asked, is_disputed=True)
    assert newest([rest, disputed]) == [disputed, rest]
    there = region_label(6, region=THERE)
    assert newest([whole, there, rest]) == [whole, rest, there]


def test_a_starred_label_of_most_of_a_region_hides_what_others_were_asked_for():
    asked, skip = region_label(1), replace(region_label(2, is_skipped=True), is_starred=True)
    whole = replace(region_label(3), share_beside=0.9, is_starred=True)
    assert newest([whole, asked]) == [whole]
    assert newest([whole, skip]) == [whole]
    assert numbers(newest([whole, replace(asked, is_starred=True)])) == [1]
    assert numbers(newest([whole, replace(region_label(4, region=THERE))])) == [4, 3]
    assert newest([asked, replace(whole, is_starred=False)]) == [asked]


def test_paint_in_a_region_that_was_not_worth_it_hides_no_other_paint():
    disputed = replace(region_label(2), is_disputed=True)
    assert numbers(newest([region_label(1), disputed])) == [1]
    assert numbers(newest([replace(region_label(1), is_disputed=True), disputed])) == [2]
    assert numbers(newest([region_label(1, is_skipped=True), disputed])) == [2]
    assert numbers(newest([disputed, region_label(3, is_skipped=True)])) == [2]
    assert numbers(newest([region_label(1), replace(disputed, is_starred=True)])) == [2]


def test_doubtful_paint_lies_under_what_others_painted_in_an_overlapping_region():
    whole, disputed = region_label(1), replace(region_label(2, region=THERE), is_disputed=True)
    assert numbers(newest([whole, disputed])) == [2, 1]
    assert numbers(newest([whole, replace(disputed, is_starred=True)])) == [1, 2]
    skip = region_label(3, region=Region(2, 2, 1, 1), is_skipped=True)
    assert numbers(newest([whole, disputed, skip])) == [3, 2, 1]


def test_labels_are_found_by_their_image_in_order():
    labels = [region_label(1), region_label(2, image_id=7), region_label(3, region=THERE)]
    found = {image: numbers(own) for image, own in labels_by_image(labels).items()}
    assert found == {1: [1, 3], 7: [2]}


def test_what_was_labelled_or_skipped_is_covered():
    labels = [region_label(1), region_label(2, region=THERE, is_skipped=True)]
    expected = [[True, True, False], [False, True, True], [False, False, False]]
    np.testing.assert_array_equal(covered((3, 3), labels), expected)
    beside = [replace(labels[0], share_beside=0.5), replace(labels[0], share_beside=0.51)]
    beside.append(replace(beside[0], was_asked=True))
    assert [covered((3, 3), [it]).sum() for it in beside] == [0, 2, 2]


def test_the_pixels_of_a_removed_class_are_hidden_and_no_others():
    mask = np.array([[0, 1, 2], [VOID, 2, 0]], np.uint8)
    hidden = without_classes(mask, (2, 0))
    np.testing.assert_array_equal(hidden, [[VOID, 1, VOID], [VOID, VOID, VOID]])
    np.testing.assert_array_equal(without_classes(mask, ()), mask)
    assert hidden.dtype == np.uint8


def test_a_mask_that_is_not_of_its_regions_size_is_refused():
    with pytest.raises(ValueError, match=r"has \(8, 32\) pixels, expected \(32, 32\)"):
        NewLabel(Region(32, 0, 32, 32), np.zeros((8, 32), np.uint8))
