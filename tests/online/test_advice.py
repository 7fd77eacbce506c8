from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ralis_backend.online.advice import (
    advice,
    advice_on,
    built_on,
    gain_over,
    held_out_lines,
    held_out_metrics,
    held_out_score,
    of_rounds,
    refused_since,
    unjudged_since,
)
from ralis_backend.online.further import AWAITED, NOT_IN_USE
from ralis_backend.online.store.tables import Version
from ralis_backend.online.worker.promotion import is_worth_publishing


def measured(gain: tuple[float, float, float] | None, **values: Any) -> dict[str, Any]:
    metrics = {
        "validation_miou": 0.485,
        "validation_regions": 24,
        "validation_images": 6,
        "validation_iou": {"road": 0.9, "car": 0.31, "sky": None},
        **values,
    }
    return metrics if gain is None else {**metrics, "validation_gain": list(gain)}


BIG, CHANCE, SMALL = (0.03, 0.01, 0.05), (0.03, -0.01, 0.07), (0.002, -0.004, 0.006)
WIDE = (0.009, -0.03, 0.059)
AWAY = {"validation_regions": 0, AWAITED: 12}


@pytest.mark.parametrize(
    ("trained", "begins", "says"),
    [
        ([], "Label on", "nothing has been trained"),
        ([{"validation_regions": 0}], "Label on", "every fifth labelled image is held out"),
        ([measured(BIG, validation_miou=None)], "Label on", "no painted region is held out yet"),
        ([AWAY], "Label on", "12 regions are held out, of which 0 can be read now"),
        ([measured(BIG), AWAY], "Label on", "12 regions are held out, of which 0 can be read now"),
        (
            [measured(None, validation_regions=2, awaited_regions=10)],
            "Label on",
            "12 regions are held out, of which 2 can be read now",
        ),
        ([measured(BIG, validation_regions=9)], "Label on", "9 held-out regions in 6 images are"),
        ([measured(BIG, validation_images=1)], "Label on", "24 held-out regions in 1 image are"),
        ([measured(None)], "Label on", "a gain takes two"),
        ([measured(BIG)], "Label on", "+3.0 [+1.0, +5.0] points"),
        ([measured(SMALL), measured(CHANCE)], "Label another round", "may be chance"),
        ([measured(BIG), measured(SMALL)], "Label another round", "+0.2 [-0.4, +0.6]"),
        ([measured(SMALL)], "Label another round", "may be chance"),
        ([measured(SMALL), measured(SMALL)], "You may stop", "weakest class is car with an IoU of"),
        ([measured(SMALL), measured(WIDE)], "Label another round", "up to 6.1 points"),
        ([measured(WIDE), measured(SMALL)], "Label another round", "6 images cannot tell"),
        (
            [measured(SMALL), measured(SMALL, validation_images=4)],
            "Label another",
            "4 images canno",
        ),
        ([measured(SMALL, validation_images=4), measured(SMALL)], "Label another", "may be chance"),
        ([measured(SMALL, validation_regions=9), measured(SMALL)], "Label another", "may be chan"),
    ],
)
def test_one_sentence_says_whether_to_go_on(trained, begins, says):
    sentence = advice(trained)
    assert sentence.startswith(begins)
    assert says in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def matrices(*rights: float) -> np.ndarray:
    """Of each image 100 pixels of two classes, so many per cent of them right."""
    return (
        np.array([[[50 * r, 50 * (1 - r)], [50 * (1 - r), 50 * r]] for r in rights])
        .round()
        .astype(int)
    )


def test_the_interval_holds_the_score_and_is_wide_for_images_that_differ():
    alike = held_out_metrics(None, matrices(0.8, 0.8, 0.8, 0.8))
    assert alike["validation_interval"] == pytest.approx([2 / 3, 2 / 3], abs=1e-4)
    apart = held_out_metrics(None, matrices(1.0, 0.6, 1.0, 0.6))
    low, high = apart["validation_interval"]
    assert low < 0.5 < 0.8 < high
    assert "validation_gain" not in apart


def test_the_gain_is_of_the_same_images_and_surer_than_both_scores():
    before, after = matrices(0.9, 0.5, 0.9, 0.5), matrices(1.0, 0.6, 1.0, 0.6)
    found = held_out_metrics(before, after)
    value, low, high = found["validation_gain"]
    assert low <= value <= high
    assert low > 0
    width = found["validation_interval"][1] - found["validation_interval"][0]
    assert high - low < width


def test_what_was_not_measured_is_left_out():
    assert held_out_metrics(None, None) == {}
    assert held_out_metrics(None, np.zeros((2, 3, 3), int)) == {}
    assert held_out_metrics(None, matrices(0.8))["validation_images"] == 1


def test_the_score_is_told_with_its_classes_and_what_to_believe():
    metrics = measured(
        BIG,
        validation_interval=[0.41, 0.552],
        validation_class_regions={"road": 20, "car": 1, "sky": 0},
        random_slice={"regions": 5},
    )
    score, classes, belief = held_out_lines("v3", metrics)
    assert score == (
        "v3: mIoU 48.5 % [41.0, 55.2] on 24 held-out regions in 6 images, +3.0 [+1.0, +5.0] "
        "points more than before its round"
    )
    assert "road 90 (20 regions), car 31 (1 region), sky - (0 regions)" in classes
    assert "believe mIoU for rare classes" in belief
    assert held_out_lines("v1", {}) == []
    assert held_out_lines("v1", {"validation_miou": 0.5, "validation_regions": 3}) == [
        "v1: mIoU 50.0 % on 3 held-out regions"  # as versions were stored before
    ]


def test_what_comes_of_continued_training_stands_for_its_round():
    first, second = measured(None), measured(SMALL)
    better = measured(BIG, continued={"from": 2})
    assert of_rounds([first, second, better]) == [first, better]
    assert of_rounds([better]) == [better]
    assert advice([measured(SMALL), measured(SMALL)]).startswith("You may stop")
    assert advice([measured(SMALL), measured(SMALL), better]).startswith("Label on: the last round")


def test_a_training_without_new_labels_is_no_round():
    rounds = [measured(BIG, newest_label_id=5), measured(SMALL, newest_label_id=9)]
    again = measured(SMALL, newest_label_id=9)
    assert of_rounds([*rounds, again, again]) == rounds
    assert advice([*rounds, again, again]).startswith("Label another round")


@pytest.mark.parametrize("unjudged", [AWAY, measured(None, validation_regions=2, **{AWAITED: 10})])
def test_what_is_judged_late_stands_for_its_round_in_place_of_what_nothing_judged(unjudged):
    labels = {"steps": 1, "newest_label_id": 80, "newest_region_id": 80, "labelled_regions": 60}
    kept_aside = {"validation_regions": 0, NOT_IN_USE: "0 can be read"}
    caught_up, judged = measured(BIG), measured(SMALL)
    versions = [
        Version(number=number, parent=parent, is_accepted=is_accepted, metrics=labels | metrics)
        for number, parent, is_accepted, metrics in (
            (1, 0, True, unjudged),
            (2, 1, False, kept_aside),
            (3, 1, True, caught_up),
            (4, 3, True, judged),
        )
    ]
    assert of_rounds(built_on(versions, 4)) == [labels | caught_up]
    assert advice_on(versions, 4).startswith("Label on: the last round gained +3.0")
    next_round = measured(CHANCE, steps=1, newest_region_id=90)
    assert of_rounds([*built_on(versions, 4), next_round]) == [labels | caught_up, next_round]
    assert of_rounds([labels | unjudged, labels | AWAY]) == [labels | AWAY], "as it is now"


def test_a_refused_version_is_no_round():
    steps = [(None, BIG), (1, CHANCE), (2, SMALL), (2, SMALL)]
    versions = [
        Version(number=number, parent=parent, metrics=measured(gain, steps=1))
        for number, (parent, gain) in enumerate(steps, start=1)
    ]
    first, second, _, fourth = (version.metrics for version in versions)
    assert built_on(versions, 4) == [first, second, fourth]
    assert built_on(versions, 0) == []


def test_the_gain_over_another_version_has_the_error_of_the_images_it_differs_in():
    """IoU of both classes: 2/3 at 80 % right, 9/11 at 90 %; one image gains, the other does not."""
    gain, error = gain_over(matrices(0.8, 0.8), matrices(0.9, 0.9))
    assert gain == pytest.approx(9 / 11 - 2 / 3)
    assert error == pytest.approx(0)
    gain, error = gain_over(matrices(0.8, 0.8), matrices(0.9, 0.8))
    assert gain == pytest.approx(0.85 / 1.15 - 2 / 3)
    # A quarter of the draws hold the first image twice, a quarter the other one.
    draws = np.array([9 / 11 - 2 / 3, 0, gain, gain])
    assert error == pytest.approx(draws.std(), rel=0.15)


def test_a_gain_on_one_image_has_no_standard_error_and_is_worth_no_other_queue():
    gain, error = gain_over(matrices(0.5), matrices(0.9))
    assert gain > 0.3
    assert np.isnan(error)
    assert not is_worth_publishing(gain, error, 1e6, 0.0)


def test_the_score_leaves_the_background_out_unless_there_is_nothing_else():
    both = matrices(0.8)
    assert held_out_score(both) == pytest.approx(2 / 3)
    uneven = np.array([[[90, 10], [0, 0]]])
    assert held_out_score(uneven, background=0) == pytest.approx(0.9)
    lopsided = np.array([[[90, 10], [10, 10]]])
    assert held_out_score(lopsided, background=0) == pytest.approx(1 / 3)


def test_a_training_after_a_skip_alone_is_no_round():
    rounds = [
        measured(SMALL, newest_label_id=5, labelled_regions=24),
        measured(SMALL, newest_label_id=9, labelled_regions=24),
    ]
    assert of_rounds(rounds) == rounds[:1]
    assert advice(rounds).startswith("Label another round")


def trained(
    num_regions: int, newest: int, gain: tuple[float, float, float] | None
) -> dict[str, Any]:
    """Of a version that 24 new regions were labelled for, the newest label of all `newest`."""
    return measured(
        gain,
        steps=1,
        labelled_regions=num_regions,
        newest_label_id=newest,
        newest_region_id=newest,
        new_regions=24,
    )


def test_a_round_is_told_by_its_new_regions_though_others_were_deleted():
    rounds = [trained(100, 100, None), trained(124, 124, SMALL), trained(148, 148, SMALL)]
    assert advice(rounds).startswith("You may stop")
    for num_deleted in (0, 23, 24, 30):
        gained = trained(148 - num_deleted + 24, 172, BIG)
        assert advice([*rounds, gained]).startswith("Label on: the last round gained")
    repainted = measured(
        SMALL, steps=1, labelled_regions=148, newest_label_id=190, newest_region_id=148
    )
    assert of_rounds([*rounds, repainted]) == rounds


def test_refused_versions_of_new_regions_are_told_though_others_were_deleted():
    in_use = trained(148, 148, SMALL)
    refused = trained(142, 172, SMALL)
    versions = [
        Version(number=3, is_accepted=True, metrics=in_use),
        Version(number=4, parent=3, is_accepted=False, metrics=refused),
    ]
    assert refused_since(versions, 3) == [refused]
    said = advice([in_use], [refused])
    assert said.startswith("Label another round: 24 regions labelled since did not make it better")


def test_regions_that_made_no_version_better_are_told_and_no_old_gain():
    in_use = measured(BIG, steps=1, labelled_regions=48)
    versions = [Version(number=1, is_accepted=True, metrics=in_use)] + [
        Version(
            number=number,
            parent=1,
            is_accepted=False,
            metrics=measured(SMALL, steps=1, labelled_regions=regions),
        )
        for number, regions in ((2, 48), (3, 60), (4, 84))
    ]
    refused = refused_since(versions, 1)
    assert len(refused) == 2, "without another region a training says nothing of labels"
    versions[-1].metrics = {**versions[-1].metrics, NOT_IN_USE: "nothing could be read"}
    assert refused_since(versions, 1) == refused[:1], "nothing could judge what was kept aside"
    assert advice_on(versions, 1) == (
        "Label another round: 36 regions labelled since are not judged yet: of what is held out "
        "too little can be read."
    )
    versions.append(Version(number=5, parent=1, is_accepted=False, metrics=refused[-1]))
    assert unjudged_since(versions, 1) is None, "the same labels were judged since"
    once = advice([in_use], refused[:1])
    assert once.startswith("Label another round: 12 regions labelled since did not make it better")
    often = advice([in_use], refused)
    assert often.startswith("Label another round: 36 regions labelled since")
    assert "in 2 trainings" in often
    assert "weakest class is car" in often
    assert "last round" not in once + often
