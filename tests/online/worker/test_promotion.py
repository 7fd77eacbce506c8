from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.promotion import can_judge, is_promoted, validation_metrics


def confusion(right: int) -> np.ndarray:
    """Of two classes with ten pixels each, `right` of them found."""
    return np.array([[right, 10 - right], [10 - right, right]])


@pytest.mark.parametrize(
    ("right_before", "right_after", "num_regions", "expected"),
    [(8, 9, 5, True), (8, 8, 5, True), (9, 2, 5, False), (9, 2, 4, True)],
)
def test_the_promotion_gate_refuses_what_is_worse_on_enough_held_out_regions(
    right_before, right_after, num_regions, expected
):
    before, after = confusion(right_before), confusion(right_after)
    assert is_promoted(before, after, num_regions, tolerance=0.01) is expected


def test_a_version_may_be_worse_by_the_tolerance_and_no_more():
    before, after = confusion(9), confusion(8)  # 9/11 = 0.8182 and 8/12 = 0.6667
    assert is_promoted(before, after, 5, tolerance=0.16)
    assert not is_promoted(before, after, 5, tolerance=0.15)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, confusion(0)),  # the first version
        (None, None),  # nothing is held out
        (confusion(9), np.zeros((2, 2), int)),  # nothing is painted in what is held out
    ],
)
def test_a_version_that_cannot_be_compared_passes(before, after):
    assert is_promoted(before, after, 5, tolerance=0.01)


def test_the_metrics_tell_what_the_gate_compared():
    assert validation_metrics(confusion(9), confusion(8), ("dark", "bright")) == {
        "validation_miou": 0.6667,
        "validation_iou": {"dark": 0.6667, "bright": 0.6667},
        "validation_miou_before": 0.8182,
    }
    assert "validation_miou_before" not in validation_metrics(None, confusion(8), ("a", "b"))
    assert validation_metrics(confusion(9), None, ("a", "b")) == {}


def test_a_class_that_occurs_nowhere_has_no_iou():
    only_first = np.array([[10, 0], [0, 0]])
    metrics = validation_metrics(None, only_first, ("dark", "bright"))
    assert metrics["validation_iou"] == {"dark": 1.0, "bright": None}
    nothing = validation_metrics(None, np.zeros((2, 2), int), ("dark", "bright"))
    assert nothing["validation_miou"] is None


NOTHING = np.array([[0, 0], [0, 1000]])
"""Cracks (class 0) neither there nor seen, all background."""


def test_a_few_wrong_pixels_of_a_class_that_is_not_there_do_not_stop_a_version():
    false_alarm = np.array([[0, 0], [3, 997]])
    for background in (None, 1):
        assert is_promoted(NOTHING, false_alarm, 5, 0.01, background)
        assert is_promoted(false_alarm, NOTHING, 5, 0.01, background)
    flood = np.array([[0, 0], [500, 500]])
    assert not is_promoted(NOTHING, flood, 5, 0.01, 1)


def test_what_finds_less_is_not_promoted_for_a_better_background():
    before = np.array([[60, 40], [60, 9840]])  # crack 60 / 160
    after = np.array([[50, 50], [40, 9860]])  # 50 / 140, background better
    assert is_promoted(before, after, 5, 0.01)
    assert not is_promoted(before, after, 5, 0.01, 1)


def test_the_metrics_tell_what_is_not_background():
    before = np.array([[0, 100], [0, 9900]])
    after = np.array([[60, 40], [60, 9840]])
    metrics = validation_metrics(before, after, ("Crack", "Background"), 1)
    assert metrics["background"] == "Background"
    assert metrics["validation_foreground_miou"] == 0.375
    assert metrics["validation_foreground_miou_before"] == 0.0
    assert metrics["validation_iou"] == {"Crack": 0.375, "Background": 0.9899}
    nothing = validation_metrics(before, NOTHING, ("Crack", "Background"), 1)
    assert nothing["validation_foreground_miou"] is None
    false_alarm = validation_metrics(None, np.array([[0, 0], [3, 997]]), ("Crack", "Rest"), 1)
    assert false_alarm["validation_iou"] == {"Crack": None, "Rest": 0.997}


def test_an_update_that_lowers_the_score_by_more_than_a_point_is_refused_by_default():
    before = np.diag([1000, 1000])
    tolerance = WorkerConfig.promotion_tolerance
    # 0.8 and 1.2 points
    slightly, clearly = (before + np.array([[-few, few], [few, -few]]) for few in (4, 6))
    assert can_judge(5)
    assert is_promoted(before, slightly, 5, tolerance)
    assert not is_promoted(before, clearly, 5, tolerance)
    assert not can_judge(4)
