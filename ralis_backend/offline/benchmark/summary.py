"""Played games -> `summary.json`: curves, costs, label counts, pairs, each with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ralis_backend.core.intervals import bootstrap_draws, bootstrap_interval, mean_interval
from ralis_backend.offline.benchmark.statistics import (
    area,
    first_reach,
    rare_classes,
    ratio_interval,
    resampled,
)

SHARES = (0.90, 0.95, 0.96)
PAIR_SHARE = "0.96"


@dataclass(frozen=True)
class PoolCosts:
    """What is known of the pool whatever is played.

    class_pixels: (R, C + 1) true pixels of each class in each region, void last.
    clicks: (R,) clicks that label each region.
    background: index of the class that nobody looks for; None: there is none.
    """

    class_pixels: np.ndarray
    clicks: np.ndarray
    background: int | None = None

    def rare_classes(self) -> np.ndarray:
        """The rarest third of the classes that occur, without the background."""
        pixels = self.class_pixels[:, :-1].sum(axis=0)
        if self.background is None:
            return rare_classes(pixels)
        sought = np.where(np.arange(len(pixels)) == self.background, 0, pixels)
        return rare_classes(sought if sought.any() else pixels)


def summary(
    runs: Sequence[Mapping[str, Any]],
    all_labels: Sequence[float],
    dataset: str,
    pool: PoolCosts,
    label_costs: Mapping[str, int | None] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Curves, label counts and pairs of strategies, with 95 % intervals over seeds.

    Of means Student's t, of label counts and ratios the bootstrap (`core/intervals`).

    Args:
        runs: what `play` returned, for several strategies, the same seeds of each.
        all_labels: scores of segmenters that learned from every label, a seed each.
        dataset: its name.
        pool: what was played on.
        label_costs: labelled regions that each learned strategy was trained with; 0 where missing,
            None of an oracle.
        seed: of the bootstrap.

    Raises:
        ValueError: if strategies were played with other seeds or budgets.
    """
    by_name = _by_name(runs)
    first = next(iter(by_name.values()))
    draws = bootstrap_draws(len(first), np.random.default_rng(seed))
    ceiling, costs = float(np.mean(all_labels)), label_costs or {}
    rare = pool.rare_classes()
    curves = {name: _Curves.of(each, pool, rare, draws) for name, each in by_name.items()}
    strategies = {
        name: _strategy(by_name[name], each, ceiling, costs.get(name, 0))
        for name, each in curves.items()
    }
    _add_break_even(strategies)
    return {
        "dataset": dataset,
        "all_labels_miou": round(ceiling, 5),
        "all_labels": {"seeds": len(all_labels), "mious": [round(it, 5) for it in all_labels]},
        "seeds": [run["seed"] for run in first],
        "rare_classes": rare.tolist(),
        "strategies": strategies,
        "pairs": {
            name: {
                other: _pair(curves[name], curves[other], ceiling)
                for other in by_name
                if other != name
            }
            for name in by_name
        },
    }


@dataclass(frozen=True)
class _Curves:
    """One strategy's scores and costs at B budgets: of S seeds, and of D draws of the seeds."""

    regions: list[int]
    mious: np.ndarray  # (S, B)
    clicks: np.ndarray  # (S, B)
    rare: np.ndarray  # (S, B)
    drawn: np.ndarray  # (D, B)
    drawn_clicks: np.ndarray  # (D, B)

    @classmethod
    def of(
        cls, runs: Sequence[Mapping[str, Any]], pool: PoolCosts, rare: np.ndarray, draws: np.ndarray
    ) -> _Curves:
        regions = [int(point["regions"]) for point in runs[0]["curve"]]
        mious = np.array([[point["miou"] for point in run["curve"]] for run in runs])
        rare_ious = np.array(
            [[_mean_of(point["ious"], rare) for point in run["curve"]] for run in runs]
        )
        spent = [pool.clicks[run["labelled"]].cumsum() for run in runs]
        clicks = np.maximum(1, np.array([each[np.array(regions) - 1] for each in spent]))
        drawn = [resampled(each, draws) for each in (mious, clicks)]
        return cls(regions, mious, clicks, rare_ious, *drawn)

    def reach(self, wanted: float) -> tuple[float, np.ndarray]:
        """Regions at which the mean curve, and each draw's, reaches a score."""
        costs = np.array(self.regions, np.float64)
        mean = first_reach(costs, self.mious.mean(axis=0)[None], wanted)[0]
        return float(mean), first_reach(costs, self.drawn, wanted)

    def reach_in_clicks(self, wanted: float) -> tuple[float, np.ndarray]:
        """Clicks at which the mean curve, and each draw's, reaches a score."""
        mean = first_reach(self.clicks.mean(axis=0), self.mious.mean(axis=0)[None], wanted)[0]
        return float(mean), first_reach(self.drawn_clicks, self.drawn, wanted)


def _by_name(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_name.setdefault(run["strategy"], []).append(run)
    ordered = {run["strategy"]: by_name[run["strategy"]] for run in runs}
    played = {
        name: ([run["seed"] for run in each], [[p["regions"] for p in r["curve"]] for r in each])
        for name, each in ordered.items()
    }
    (first, wanted), *others = played.items()
    for name, facts in others:
        if facts != wanted:
            raise ValueError(
                f"{name} was played with seeds {facts[0]} and {first} with {wanted[0]}, or at "
                "other budgets; pairs need the same: play what is missing"
            )
    return ordered


def _strategy(
    runs: Sequence[Mapping[str, Any]], curves: _Curves, ceiling: float, label_cost: int | None
) -> dict[str, Any]:
    mious, regions = curves.mious, curves.regions
    low, high = mean_interval(mious)
    entropy = np.array([[point["class_entropy"] for point in run["curve"]] for run in runs])
    areas = area(regions, mious) / ceiling
    return {
        "seeds": len(runs),
        "curve": [
            {
                "regions": count,
                "miou": round(float(mious[:, index].mean()), 5),
                "low": round(float(low[index]), 5),
                "high": round(float(high[index]), 5),
            }
            for index, count in enumerate(regions)
        ],
        "regions_to": {f"{share:.2f}": _regions_to(curves, share * ceiling) for share in SHARES},
        "clicks_to": {
            f"{share:.2f}": _reached(*curves.reach_in_clicks(share * ceiling), len(runs), 0)
            for share in SHARES
        },
        "nauc": _mean(areas),
        "seed_mious": {
            str(run["seed"]): [round(float(it), 5) for it in mious[index]]
            for index, run in enumerate(runs)
        },
        "class_entropy": [round(float(it), 4) for it in entropy.mean(axis=0)],
        "rare_iou": [_mean(of_budget) for of_budget in curves.rare.T],
        "clicks": [round(float(it), 1) for it in curves.clicks.mean(axis=0)],
        "seconds_per_selection": round(
            float(np.median([run["seconds_per_selection"] for run in runs])), 4
        ),
        "seconds_per_game": round(float(np.mean([run["seconds"] for run in runs])), 1),
        "label_cost": label_cost,
    }


def _regions_to(curves: _Curves, wanted: float) -> dict[str, Any]:
    value, drawn = curves.reach(wanted)
    of_seeds = first_reach(np.array(curves.regions, np.float64), curves.mious, wanted)
    reached = _reached(value, drawn, len(of_seeds), 1)
    return reached | {"reached": int(np.isfinite(of_seeds).sum())}


def _pair(ours: _Curves, theirs: _Curves, ceiling: float) -> dict[str, Any]:
    """Lead in area, points of mIoU, and ratios of regions and clicks, over the same seeds."""
    lead = 100 * (area(ours.regions, ours.mious) - area(theirs.regions, theirs.mious))
    low, high = mean_interval(lead)
    wanted = float(PAIR_SHARE) * ceiling
    return {
        "seeds": len(lead),
        "wins": int((lead > 0).sum()),
        "lead": round(float(lead.mean()), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "regions_ratio": {
            PAIR_SHARE: _ratio(
                ours.reach(wanted),
                theirs.reach(wanted),
                ours.regions[-1],
                theirs.regions[-1],
                len(lead),
            )
        },
        "clicks_ratio": {
            PAIR_SHARE: _ratio(
                ours.reach_in_clicks(wanted),
                theirs.reach_in_clicks(wanted),
                ours.clicks.mean(axis=0)[-1],
                theirs.clicks.mean(axis=0)[-1],
                len(lead),
            )
        },
    }


def _ratio(
    ours: tuple[float, np.ndarray],
    theirs: tuple[float, np.ndarray],
    our_largest: float,
    their_largest: float,
    num_seeds: int,
) -> dict[str, float | None]:
    low, high = ratio_interval(ours[1], theirs[1], our_largest, their_largest, num_seeds)
    is_known = bool(np.isfinite(ours[0]) and np.isfinite(theirs[0]))
    return {
        "value": round(ours[0] / theirs[0], 4) if is_known else None,
        "low": None if low is None else round(low, 4),
        "high": None if high is None else round(high, 4),
    }


def _add_break_even(strategies: dict[str, dict[str, Any]]) -> None:
    """How many datasets like this one repay the labels that a learned strategy was trained with.

    It saves what the best strategy that cost no label needs more; None where it saves nothing.
    """
    reached = {name: entry["regions_to"][PAIR_SHARE]["value"] for name, entry in strategies.items()}
    free = {
        name: value
        for name, value in reached.items()
        if value is not None and strategies[name]["label_cost"] == 0
    }
    best = min(free, key=lambda name: free[name]) if free else None
    for name, entry in strategies.items():
        if not entry["label_cost"]:
            continue
        ours = reached[name]
        saved = free[best] - ours if best is not None and ours is not None else None
        entry["break_even"] = {
            "against": best,
            "regions_saved": None if saved is None else round(saved, 1),
            "datasets": round(entry["label_cost"] / saved, 1) if saved and saved > 0 else None,
        }


def _mean(values: np.ndarray) -> dict[str, Any]:
    """The mean of (S,) values with its interval."""
    return _finite(float(values.mean()), *mean_interval(values), digits=5)


def _reached(value: float, drawn: np.ndarray, num_seeds: int, digits: int) -> dict[str, Any]:
    """A cost with its interval, from (D,) draws."""
    return _finite(value, *bootstrap_interval(drawn, num_seeds), digits=digits)


def _finite(value: float, low: Any, high: Any, *, digits: int) -> dict[str, Any]:
    """Rounded; None where not finite."""
    return {
        name: round(float(it), digits) if np.isfinite(it) else None
        for name, it in (("value", value), ("low", low), ("high", high))
    }


def _mean_of(ious: Sequence[float | None], classes: np.ndarray) -> float:
    """Mean IoU of some classes, of those that the test set holds; NaN where it holds none."""
    known = [it for index in classes if (it := ious[index]) is not None]
    return float(np.mean(known)) if known else float("nan")
