from __future__ import annotations

import math

import numpy as np
import pytest

from ralis_backend.offline.benchmark.statistics import (
    area,
    first_reach,
    rare_classes,
    ratio_interval,
    resampled,
    spearman,
)

COSTS = np.array([100.0, 200.0, 400.0])


def test_the_area_weighs_by_the_logarithm_of_the_budget():
    assert area([100, 200, 400], np.array([0.2, 0.4, 0.5])) == pytest.approx((0.3 + 0.45) / 2)
    assert area([100, 1000], np.array([0.0, 1.0])) == pytest.approx(0.5)
    assert area([100], np.array([0.3])) == pytest.approx(0.3)


def test_the_first_reach_lies_on_a_line_over_the_logarithm():
    curves = np.array([[0.2, 0.4, 0.5], [0.3, 0.3, 0.3], [0.45, 0.5, 0.6], [0.4, 0.5, 0.1]])
    reached = first_reach(COSTS, curves, 0.45)
    np.testing.assert_allclose(reached, [200 * 2**0.5, np.inf, 100, 100 * 2**0.5])


def test_costs_may_differ_from_curve_to_curve():
    costs = np.array([[10.0, 100.0], [20.0, 200.0]])
    curves = np.array([[0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(first_reach(costs, curves, 0.5), [10 * 10**0.5, 20 * 10**0.5])


def test_resampled_means_by_hand():
    values = np.array([[1.0, 10.0], [3.0, 30.0]])
    draws = np.array([[0, 0], [0, 1], [1, 1]])
    np.testing.assert_allclose(resampled(values, draws), [[1, 10], [2, 20], [3, 30]])


def test_a_ratio_is_unbounded_where_a_side_never_arrives():
    some = np.array([100.0, 110.0, 120.0])
    never = np.full(3, np.inf)
    assert ratio_interval(some, 2 * some, 400, 400, 3) == (0.5, 0.5)
    assert ratio_interval(some, never, 400, 400, 3) == (None, 0.3)  # at most 120 of more than 400
    assert ratio_interval(never, some, 360, 400, 3) == (3.0, None)
    assert ratio_interval(never, never, 400, 400, 3) == (None, None)


def test_the_rarest_third_of_the_classes_that_occur():
    assert rare_classes(np.array([50, 3, 0, 20, 10, 40, 1])).tolist() == [1, 6]
    assert rare_classes(np.array([5, 3])).tolist() == [1]
    assert rare_classes(np.array([7])).tolist() == [0]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [2, 1, 4, 3], 0.6),  # 1 - 6 * 4 / (4 * 15)
        ([1, 1, 2], [1, 2, 3], math.sqrt(3) / 2),  # ranks 1.5, 1.5, 3
    ],
)
def test_spearman_by_hand(first, second, expected):
    assert spearman(np.array(first), np.array(second)) == pytest.approx(expected)


def test_spearman_of_equal_scores_is_not_defined():
    assert math.isnan(spearman(np.array([1, 1, 1]), np.array([1, 2, 3])))
