from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.offline.training.rewards import (
    SCORES,
    balanced_regions,
    class_weights,
    cvar,
    find_score,
    log_pixels,
    miou,
    reward,
    wiou,
)

FREQUENT_WRONG = np.array([[50, 50, 0], [0, 10, 0], [0, 0, 1]])


FREQUENCIES = np.array([0.36, 0.1, 0.01, 0.001])  # as in Cityscapes: from road to motorcycle


def test_wiou_with_the_constant_of_enet_gives_rarer_classes_more_weight():
    weights = class_weights(FREQUENCIES)
    assert (np.diff(weights) > 0).all()
    np.testing.assert_allclose(weights[[0, 3]], [3.1, 48], rtol=0.02)


def test_the_printed_formula_does_the_opposite():
    weights = np.abs(class_weights(FREQUENCIES, epsilon=1e-6))
    assert (np.diff(weights) < 0).all()
    np.testing.assert_allclose(weights[[0, 3]], [0.98, 0.145], rtol=0.01)


def test_losing_the_rare_class_costs_more_in_wiou_than_in_miou():
    lost = np.array([[100, 0], [1, 0]])
    assert wiou(lost) < miou(lost) < wiou(lost, epsilon=1e-6)


def test_wiou_by_hand():
    matrix = np.array([[60, 20], [0, 20]])
    weights = 1 / np.log(np.array([0.8, 0.2]) + 1.02)
    expected = (weights * [0.75, 0.5]).sum() / weights.sum()
    assert wiou(matrix) == pytest.approx(expected)


def test_a_weight_that_is_infinite_is_refused():
    with pytest.raises(ValueError, match="infinite"):
        wiou(np.array([[50, 0], [0, 50]]), epsilon=0.5)


def test_miou_and_cvar_by_hand():
    ious = [0.5, 10 / 60, 1.0]
    assert miou(FREQUENT_WRONG) == pytest.approx(np.mean(ious))
    assert cvar(FREQUENT_WRONG, share=0.3) == pytest.approx(10 / 60)
    assert cvar(FREQUENT_WRONG, share=0.7) == pytest.approx(np.mean([0.5, 10 / 60]))


def test_log_pixels_by_hand():
    matrix = np.array([[99, 0], [0, 0]])
    assert log_pixels(matrix) == pytest.approx(1)
    matrix = np.array([[9, 90], [0, 9]])
    assert log_pixels(matrix) == pytest.approx((np.log(10) / np.log(100) + 1) / 2)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_one_pixel_of_a_class_that_is_absent_counts_for_little(name):
    before = np.array([[800, 200, 0], [50, 150, 0], [0, 0, 0]])
    after = np.array([[899, 100, 1], [50, 150, 0], [0, 0, 0]])
    assert reward(name, before, after) > 0


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_reward_is_positive_where_the_segmenter_became_better(name):
    worse = np.array([[60, 40, 0], [5, 5, 0], [1, 0, 1]])
    better = np.array([[90, 10, 0], [1, 9, 0], [0, 0, 2]])
    rise = reward(name, worse, better)
    assert rise == pytest.approx(-reward(name, better, worse))
    assert reward(name, worse, worse) == 0
    assert rise > 0


def test_an_unknown_reward_lists_those_there_are():
    with pytest.raises(ValueError, match=r"'f1'.*miou, wiou"):
        reward("f1", np.eye(2), np.eye(2))


def test_a_balanced_reward_set_is_drawn_without_repetition_and_is_more_balanced():
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.integers(50, 100, 300), np.zeros(300), np.zeros(300)], axis=1)
    pixels[:40, 1] = 30
    pixels[30:45, 2] = 5
    chosen = balanced_regions(pixels, 60, rng)
    assert len(set(chosen.tolist())) == 60

    def rarest_share(rows: np.ndarray) -> float:
        return float(rows.sum(axis=0).min() / rows.sum())

    assert rarest_share(pixels[chosen]) > 3 * rarest_share(pixels)


def test_a_balanced_reward_set_goes_on_where_no_region_has_a_label():
    pixels = np.zeros((5, 2))
    pixels[0, 0] = 3
    chosen = balanced_regions(pixels, 9, np.random.default_rng(0))
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4]


def test_the_background_is_left_out_of_scores_unless_there_is_nothing_else():
    assert miou(FREQUENT_WRONG, 0) == pytest.approx(np.mean([10 / 60, 1.0]))
    assert cvar(FREQUENT_WRONG, 1, share=0.3) == pytest.approx(0.5)
    assert log_pixels(np.array([[9, 90], [0, 9]]), 0) == pytest.approx(1)
    assert wiou(np.array([[60, 20], [0, 20]]), 0) == pytest.approx(0.5)
    for score in SCORES.values():
        assert score(np.array([[3, 1], [0, 0]]), 0) == score(np.array([[3, 1], [0, 0]]))


def test_a_reward_that_cannot_leave_the_background_out_is_refused_where_there_is_one(monkeypatch):
    monkeypatch.setitem(SCORES, "accuracy", lambda matrix: 0.5)
    assert find_score("accuracy")(np.eye(2)) == 0.5
    with pytest.raises(ValueError, match=r"'accuracy' has no parameter 'background'.*as miou has"):
        find_score("accuracy", background=0)
