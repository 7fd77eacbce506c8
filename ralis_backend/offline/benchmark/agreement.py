"""Two summaries of the same strategies -> how alike they rank them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ralis_backend.core.intervals import bootstrap_draws, bootstrap_interval
from ralis_backend.offline.benchmark.statistics import area, resampled, spearman


def rank_agreement(
    first: Mapping[str, Any], second: Mapping[str, Any], seed: int = 0
) -> dict[str, Any]:
    """Spearman's rank correlation of strategies at each common budget, and of areas under curves.

    The interval resamples the seeds of each summary, the same ones for all of its strategies.
    1: the same order, 0: none in common, -1: the reverse; None where it is not defined.

    Args:
        first: a `summary.json`, as of `--fidelity fast`.
        second: another, as of `--fidelity full`.
        seed: of the bootstrap.

    Raises:
        ValueError: if fewer than three strategies, or no budget, are in both.
    """
    names = [name for name in first["strategies"] if name in second["strategies"]]
    budgets = [
        count for count in _budgets(first, names[:1]) if count in _budgets(second, names[:1])
    ]
    if len(names) < 3 or not budgets:
        raise ValueError(
            f"the summaries share the strategies {names} and the budgets {budgets}; ranks need at "
            "least three strategies and one budget in both"
        )
    rng = np.random.default_rng(seed)
    means, draws = zip(
        *(_scores(each, names, budgets, rng) for each in (first, second)), strict=True
    )
    num_seeds = min(len(each["seeds"]) for each in (first, second))
    at_budgets = {
        str(count): _correlation(num_seeds, *(it[:, :, index] for it in (*means, *draws)))
        for index, count in enumerate(budgets)
    }
    areas = _correlation(num_seeds, *(area(budgets, it) for it in (*means, *draws)))
    return {"strategies": names, "spearman": at_budgets, "spearman_of_areas": areas}


def _budgets(content: Mapping[str, Any], names: list[str]) -> list[int]:
    return [point["regions"] for name in names for point in content["strategies"][name]["curve"]]


def _scores(
    content: Mapping[str, Any], names: list[str], budgets: list[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(1, A, B) mean scores of A strategies, and (D, A, B) of resampled seeds."""
    place = [_budgets(content, names[:1]).index(count) for count in budgets]
    scores = np.array([list(content["strategies"][name]["seed_mious"].values()) for name in names])[
        :, :, place
    ]  # (A, S, B)
    draws = bootstrap_draws(scores.shape[1], rng)
    drawn = np.stack([resampled(each, draws) for each in scores], axis=1)
    return scores.mean(axis=1)[None], drawn


def _correlation(
    num_seeds: int, first: np.ndarray, second: np.ndarray, drawn: np.ndarray, others: np.ndarray
) -> dict[str, float | None]:
    values = np.array([spearman(*pair) for pair in zip(drawn, others, strict=True)])
    known = values[~np.isnan(values)]
    value = spearman(first[0], second[0])
    low, high = bootstrap_interval(known, num_seeds) if len(known) else (np.nan, np.nan)
    return {
        name: None if np.isnan(it) else round(float(it), 4)
        for name, it in (("value", value), ("low", low), ("high", high))
    }
