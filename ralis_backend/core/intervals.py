"""Values of a few seeds, games or regions -> 95 % intervals that few values do not make too narrow.

The plain percentile bootstrap does: its interval held the true mean of 4 normal values in 79 % of
trials, that of 8 in 88 %.
"""

from __future__ import annotations

import numpy as np
from scipy import special  # scipy.stats takes a second longer to import

LEVEL = 0.95
NUM_BOOTSTRAPS = 2000


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of the mean along the first axis.

    Args:
        values: (S, ...) independent values; of one value, the interval has no width.

    Returns:
        Lower and upper bound, (...).
    """
    mean = values.mean(axis=0)
    if len(values) < 2:
        return mean, mean
    half = _quantile(len(values)) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return mean - half, mean + half


def bootstrap_draws(
    num_values: int, rng: np.random.Generator, num_draws: int = NUM_BOOTSTRAPS
) -> np.ndarray:
    """(D, S) indices of values, drawn with replacement."""
    return rng.integers(num_values, size=(num_draws, num_values))


def bootstrap_interval(drawn: np.ndarray, num_values: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of bootstrap statistics along the first axis, further out for fewer values.

    The expanded percentile interval of Hesterberg, "What Teachers Should Know About the Bootstrap",
    The American Statistician 69 (2015). Bounds are values that were drawn, so that of up to four
    values it is their range at most, and still too narrow.

    Args:
        drawn: (D, ...) a statistic of each draw.
        num_values: how many values were drawn from.
    """
    tail = 0.0
    if num_values > 1:
        expanded = _quantile(num_values) * np.sqrt(num_values / (num_values - 1))
        tail = float(special.ndtr(-expanded))
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0, method="nearest")
    return low, high


def _quantile(num_values: int) -> float:
    return float(special.stdtrit(num_values - 1, (1 + LEVEL) / 2))
