from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.intervals import bootstrap_draws, bootstrap_interval, mean_interval


def _coverage(num_values, interval):
    rng = np.random.default_rng(0)
    bounds = [interval(rng.normal(size=num_values), rng) for _ in range(400)]
    return np.mean([low < 0 < high for low, high in bounds])


@pytest.mark.parametrize("num_values", [2, 3, 8, 24])
def test_the_interval_of_a_mean_covers_it_as_often_as_it_says(num_values):
    assert 0.92 < _coverage(num_values, lambda values, rng: mean_interval(values)) < 0.98


@pytest.mark.parametrize("num_values", [8, 24])
def test_a_bootstrap_of_few_values_covers_as_often_as_it_says(num_values):
    def of_means(values, rng):
        drawn = values[bootstrap_draws(num_values, rng)].mean(axis=1)
        return bootstrap_interval(drawn, num_values)

    assert 0.92 < _coverage(num_values, of_means) < 0.98


def test_the_interval_of_a_mean_by_hand():
    low, high = mean_interval(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(low, [2 - 12.7062, 5], atol=1e-4)  # t of one degree of freedom
    np.testing.assert_allclose(high, [2 + 12.7062, 5], atol=1e-4)


def test_one_value_has_an_interval_of_no_width():
    assert mean_interval(np.array([0.4])) == (0.4, 0.4)
    assert bootstrap_interval(np.full(9, 0.4), 1) == (0.4, 0.4)
