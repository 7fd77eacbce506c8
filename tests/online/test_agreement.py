from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.agreement import by_region, compare, lines, people_notes, scores, summary
from ralis_backend.online.labels import RegionLabel
from tests.online.conftest import make_label

REGION = Region(0, 0, 1, 4)
NAMES = ("road", "car", "sky")


def labels(*people: str, **values: object) -> list[RegionLabel]:
    return [
        make_label(1, REGION, id=number, annotator=name, **values)
        for number, name in enumerate(people, start=1)
    ]


def compared(masks: dict[str, list[int]]) -> dict:
    group = labels(*masks)
    by_id = {label.id: np.array([masks[label.annotator]], np.uint8) for label in group}
    return summary(compare([group], lambda label: by_id[label.id], len(NAMES)), NAMES)


def test_agreement_worked_out_by_hand():
    # alike in 3 of 4 pixels; chance: (2/4)(1/4) + (2/4)(3/4) = 1/2
    found = compared({"ann": [0, 0, 1, 1], "bob": [0, 1, 1, 1]})
    assert (found["regions"], found["pixels"]) == (1, 4)
    assert found["pixel_agreement"] == 0.75
    assert found["kappa"] == pytest.approx((0.75 - 0.5) / 0.5)
    assert found["iou"] == {"road": 0.5, "car": 0.6667, "sky": None}


def test_it_is_the_same_whoever_comes_first():
    masks = {"ann": [0, 0, 1, 2], "bob": [0, 1, 1, 1]}
    turned = {"ann": masks["bob"], "bob": masks["ann"]}
    one, other = compared(masks), compared(turned)
    for name in ("pixel_agreement", "kappa", "iou"):
        assert one[name] == other[name]


def test_pixels_that_one_of_them_left_unpainted_are_not_compared():
    found = compared({"ann": [0, VOID, 1, VOID], "bob": [0, 1, VOID, VOID]})
    assert (found["pixels"], found["pixel_agreement"]) == (1, 1.0)
    assert found["kappa"] is None  # one class alone: chance agrees as well
    nothing = compared({"ann": [VOID] * 4, "bob": [0] * 4})
    assert (nothing["pixels"], nothing["pixel_agreement"], nothing["kappa"]) == (0, None, None)
    assert "without a pixel that both painted" in lines(nothing)[0]


def test_kappa_is_zero_for_chance_and_negative_below():
    assert scores(np.array([[1, 1], [1, 1]])) == (0.5, 0.0)
    assert scores(np.array([[0, 1], [1, 0]])) == (0.0, -1.0)


def test_each_persons_newest_mask_of_a_region_counts_and_skips_do_not():
    first = make_label(1, REGION, id=1, annotator="ann")
    newer = make_label(1, REGION, id=2, annotator="ann")
    bob = make_label(1, REGION, id=3, annotator="bob")
    skip = make_label(1, REGION, id=4, annotator="cem", is_skipped=True)
    elsewhere = make_label(1, Region(1, 0, 1, 4), id=5, annotator="cem")
    ran_over = make_label(1, REGION, id=6, annotator="ann", share_beside=0.1)
    assert by_region([first, newer, bob, skip, elsewhere, ran_over]) == [[newer, bob]]
    assert by_region([first, newer]) == []


def test_three_people_are_compared_two_by_two():
    found = compared({"cem": [0, 0, 1, 1], "ann": [0, 0, 1, 1], "bob": [1, 1, 0, 0]})
    assert [pair["annotators"] for pair in found["pairs"]] == [
        ["ann", "bob"], ["ann", "cem"], ["bob", "cem"],
    ]  # fmt: skip
    assert [pair["kappa"] for pair in found["pairs"]] == [-1.0, 1.0, -1.0]
    assert (found["regions"], found["pixels"]) == (1, 12)
    assert len(lines(found)) == 4


def test_a_mask_that_cannot_be_read_is_left_out():
    group = labels("ann", "bob", "cem")
    masks = {1: np.zeros((1, 4), np.uint8), 2: None, 3: np.zeros((1, 4), np.uint8)}
    (only,) = compare([group], lambda label: masks[label.id], 1)
    assert only.annotators == ("ann", "cem")


def test_without_shared_regions_nothing_is_said():
    assert summary([], NAMES) == {}
    assert lines({}) == []


def test_what_people_left_is_said_in_words():
    assert people_notes({}) == []
    agreement = {
        "regions": 2, "pixels": 4, "pixel_agreement": 0.75, "kappa": 0.5,
        "iou": {"road": 0.5, "car": None}, "pairs": [{}],
    }  # fmt: skip
    shared, bulk, double = people_notes(
        {"agreement": agreement, "bulk_annotations": 1, "double_images": 2}
    )
    assert shared == (
        "people who painted the same region: 75.0 % of the pixels alike, kappa 0.50, 2 regions; "
        "IoU in %: road 50"
    )
    assert bulk.endswith("updates or stars them: 1 annotation")
    assert double.endswith("regions are asked once: 2 tasks")
