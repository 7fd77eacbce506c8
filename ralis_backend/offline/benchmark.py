"""Strategies x seeds on a labelled dataset -> learning curves with intervals, paired by seed.

Every strategy of a seed begins with the same labelled regions, is offered pools drawn in the same
order, and trains with the same random numbers. One file per strategy and seed is written as it is
done; what is there already is not played again.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralis_backend.core.acquisition import PoolState, Strategy
from ralis_backend.core.metrics import ious, mean_iou
from ralis_backend.core.policy import RalisPolicy
from ralis_backend.offline.results import write_json
from ralis_backend.offline.simulation.fast import FastSimulation
from ralis_backend.offline.simulation.heads import HeadConfig, Heads
from ralis_backend.offline.simulation.point_features import RegionPoints

SHARES = (0.90, 0.95, 0.96)
INTERVAL = 0.95
NUM_BOOTSTRAPS = 2000


@dataclass(frozen=True)
class BenchmarkConfig:
    """The rules of a comparison.

    budgets: labelled regions at which a new segmenter is trained and measured.
    initial_regions: drawn at random and labelled first.
    regions_per_step, pool_size: K pools of N regions, the best of each is labelled.
    updates_per_step, initial_updates: gradient steps of the segmenter that ranks.
    final_updates: gradient steps of the one that is measured. all_labels_updates: of the one that
        learns from the whole pool.
    head: how heads learn.
    """

    budgets: tuple[int, ...] = (144, 240, 480, 960, 1440, 1920)
    initial_regions: int = 48
    regions_per_step: int = 24
    pool_size: int = 10
    updates_per_step: int = 60
    initial_updates: int = 200
    final_updates: int = 600
    all_labels_updates: int = 3000
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass(frozen=True)
class Arena:
    """What strategies are compared on: pool, state set and test set of one dataset."""

    name: str
    pool: RegionPoints
    state_set: RegionPoints
    test_set: RegionPoints


def check(config: BenchmarkConfig, num_regions: int) -> None:
    """Refuse rules that do not fit a pool, before anything is played.

    Raises:
        ValueError: saying which number is too large or small.
    """
    budgets = config.budgets
    if not budgets or sorted(set(budgets)) != list(budgets):
        raise ValueError(f"budgets {budgets} must rise, each once")
    if budgets[-1] > num_regions:
        raise ValueError(f"budget {budgets[-1]} exceeds the pool's {num_regions} regions; lower it")
    if not 1 <= config.initial_regions <= budgets[0]:
        raise ValueError(
            f"initial_regions is {config.initial_regions}, expected 1 to the least budget, "
            f"{budgets[0]}"
        )
    if min(config.regions_per_step, config.pool_size) < 1:
        raise ValueError("regions_per_step and pool_size must be at least 1")


def play(
    arena: Arena, strategy: Strategy, seed: int, config: BenchmarkConfig, device: str = "cpu"
) -> dict[str, Any]:
    """One strategy, one seed: its curve, what it labelled, and how long it took to choose."""
    check(config, len(arena.pool))
    rng = np.random.default_rng([seed, 0])
    # its scores are not asked for, so the smallest reward set will do
    simulation = FastSimulation(
        arena.pool, arena.state_set, arena.test_set.take(np.arange(1)), config.head, device
    )
    labelled = rng.choice(len(arena.pool), config.initial_regions, replace=False)
    simulation.begin(labelled, config.initial_updates, seed)
    curve, seconds = [], []
    for step in range(10**9):
        if len(labelled) in config.budgets:
            curve.append(_measured(arena, labelled, seed, config, device))
        if len(labelled) >= config.budgets[-1]:
            break
        due = min(budget for budget in config.budgets if budget > len(labelled)) - len(labelled)
        pools = _pools(arena, labelled, min(config.regions_per_step, due), seed, step, config)
        started = time.perf_counter()
        picked = _picked(simulation, strategy, labelled, pools, seed, step)
        seconds.append(time.perf_counter() - started)
        labelled = np.concatenate([labelled, picked])
        simulation.learn([labelled], config.updates_per_step, seed + step)
    return {
        "strategy": strategy.name,
        "seed": seed,
        "config": json.loads(json.dumps(asdict(config))),
        "curve": curve,
        "seconds_per_selection": round(float(np.median(seconds)), 4),
        "labelled": labelled.tolist(),
    }


def all_labels_miou(arena: Arena, config: BenchmarkConfig, device: str = "cpu") -> float:
    """Test mIoU of a segmenter that learned from every region of the pool."""
    matrix = _trained_matrix(
        arena, np.arange(len(arena.pool)), 0, config.all_labels_updates, config, device
    )
    return mean_iou(matrix)


def summary(
    runs: Sequence[Mapping[str, Any]], all_labels: float, dataset: str, seed: int = 0
) -> dict[str, Any]:
    """Curves, label counts and pairs of strategies, with intervals over seeds (bootstrap, 95 %).

    Args:
        runs: what `play` returned, for several strategies and seeds.
        all_labels: what `all_labels_miou` returned.
        dataset: its name.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(run["strategy"] for run in runs))
    by_name = {
        name: sorted((run for run in runs if run["strategy"] == name), key=lambda run: run["seed"])
        for name in names
    }
    return {
        "dataset": dataset,
        "all_labels_miou": round(all_labels, 5),
        "strategies": {name: _strategy(by_name[name], all_labels, rng) for name in names},
        "pairs": {
            name: {
                other: _pair(by_name[name], by_name[other], rng) for other in names if other != name
            }
            for name in names
        },
    }


def curves_csv(runs: Sequence[Mapping[str, Any]]) -> str:
    """A line per strategy, seed and budget."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["strategy", "seed", "regions", "miou"])
    for run in runs:
        for point in run["curve"]:
            writer.writerow([run["strategy"], run["seed"], point["regions"], point["miou"]])
    return text.getvalue()


def draw(content: Mapping[str, Any], path: Path) -> None:
    """The curves of a `summary` as a PNG, a band for each interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, entry in content["strategies"].items():
        regions = [point["regions"] for point in entry["curve"]]
        means = [100 * point["miou"] for point in entry["curve"]]
        (line,) = axes.plot(regions, means, marker="o", markersize=4, label=name)
        low = [100 * point["low"] for point in entry["curve"]]
        high = [100 * point["high"] for point in entry["curve"]]
        axes.fill_between(regions, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.axhline(100 * content["all_labels_miou"], color="black", linewidth=1, linestyle=":")
    axes.set_xscale("log")
    ticks = sorted(
        {point["regions"] for it in content["strategies"].values() for point in it["curve"]}
    )
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labelled regions")
    axes.set_ylabel("test mean IoU, %")
    axes.set_title(f"{content['dataset']}; dotted: all labels", loc="left", fontweight="bold")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def run(
    arena: Arena,
    strategies: Mapping[str, Strategy],
    seeds: Sequence[int],
    config: BenchmarkConfig,
    out: Path,
    *,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Play what is missing in `out`, and write `curves.csv`, `curves.png` and `summary.json`.

    Raises:
        ValueError: if the rules do not fit the pool, or files in `out` are of other rules.
    """
    check(config, len(arena.pool))
    rules = json.loads(json.dumps(asdict(config)))
    runs = []
    for seed in seeds:
        for name, strategy in strategies.items():
            path = out / "runs" / f"{name}-{seed}.json"
            if not path.is_file():
                report(f"{name}, seed {seed}")
                played = play(arena, strategy, seed, config, device) | {"strategy": name}
                write_json(path, played)
            played = json.loads(path.read_text())
            if played["config"] != rules:
                raise ValueError(f"{path} was played by other rules; choose another folder")
            runs.append(played)
    path = out / "all-labels.json"
    if not path.is_file():
        report("all labels")
        write_json(path, {"config": rules, "miou": all_labels_miou(arena, config, device)})
    content = summary(runs, json.loads(path.read_text())["miou"], arena.name)
    content["config"] = rules
    (out / "curves.csv").write_text(curves_csv(runs))
    draw(content, out / "curves.png")
    write_json(out / "summary.json", content)
    return content


def _pools(
    arena: Arena,
    labelled: np.ndarray,
    num_pools: int,
    seed: int,
    step: int,
    config: BenchmarkConfig,
) -> np.ndarray:
    """(K, N) unlabelled regions: the first ones in an order that all strategies of a seed share."""
    order = np.random.default_rng([seed, 1, step]).permutation(len(arena.pool))
    is_open = np.ones(len(arena.pool), bool)
    is_open[labelled] = False
    left = order[is_open[order]]
    size = max(1, min(config.pool_size, len(left) // num_pools))
    pools: np.ndarray = left[: num_pools * size].reshape(num_pools, size)
    return pools


def _picked(
    simulation: FastSimulation,
    strategy: Strategy,
    labelled: np.ndarray,
    pools: np.ndarray,
    seed: int,
    step: int,
) -> np.ndarray:
    """(K,) the best region of each pool."""
    is_policy = isinstance(strategy, RalisPolicy)
    unlabelled = None
    if isinstance(strategy, RalisPolicy) and strategy.spec.variant == "repaired":
        others = np.setdiff1d(np.arange(len(simulation.class_pixels)), labelled)
        unlabelled = simulation.class_counts(others)
    state = PoolState(
        simulation.class_pixels[labelled],
        simulation.embeddings(labelled),
        len(pools),
        np.random.default_rng([seed, 2, step]),
        simulation.describe_state() if is_policy else None,
        unlabelled,
    )
    scores = strategy.scores(state, simulation.describe(pools.reshape(-1))).reshape(pools.shape)
    picked: np.ndarray = pools[np.arange(len(pools)), scores.argmax(axis=1)]
    return picked


def _measured(
    arena: Arena, labelled: np.ndarray, seed: int, config: BenchmarkConfig, device: str
) -> dict[str, Any]:
    """A point of the curve: a new segmenter trained on what is labelled, on the test set."""
    matrix = _trained_matrix(arena, labelled, seed, config.final_updates, config, device)
    shares = arena.pool.class_pixels[labelled, :-1].sum(axis=0)
    shares = shares / max(1, shares.sum())
    known = shares[shares > 0]
    return {
        "regions": len(labelled),
        "miou": round(mean_iou(matrix), 6),
        "ious": [None if math.isnan(it) else round(float(it), 5) for it in ious(matrix)],
        "class_entropy": round(float(-(known * np.log(known)).sum()), 5),
    }


def _trained_matrix(
    arena: Arena,
    labelled: np.ndarray,
    seed: int,
    num_updates: int,
    config: BenchmarkConfig,
    device: str,
) -> np.ndarray:
    num_features = arena.pool.points.features.shape[2]
    num_classes = arena.pool.class_pixels.shape[1] - 1
    heads = Heads.fresh(num_features, num_classes, config.head, [seed], torch.device(device))
    trained = heads.trained(arena.pool.points, [labelled], num_updates, seed)
    matrix: np.ndarray = trained.confusion_matrices(arena.test_set.points)[0]
    return matrix


def _strategy(
    runs: Sequence[Mapping[str, Any]], all_labels: float, rng: np.random.Generator
) -> dict[str, Any]:
    regions = [point["regions"] for point in runs[0]["curve"]]
    mious = np.array(
        [[point["miou"] for point in run["curve"]] for run in runs]
    )  # (seeds, budgets)
    drawn = mious[rng.integers(len(runs), size=(NUM_BOOTSTRAPS, len(runs)))].mean(axis=1)
    low, high = _interval(drawn)
    area = _area(regions, drawn) / all_labels
    entropy = np.array([[point["class_entropy"] for point in run["curve"]] for run in runs])
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
        "regions_to": {
            f"{share:.2f}": _regions_to(regions, mious, drawn, share * all_labels)
            for share in SHARES
        },
        "nauc": {
            "value": round(float(_area(regions, mious.mean(axis=0)) / all_labels), 5),
            "low": round(float(np.quantile(area, (1 - INTERVAL) / 2)), 5),
            "high": round(float(np.quantile(area, (1 + INTERVAL) / 2)), 5),
        },
        "class_entropy": [round(float(it), 4) for it in entropy.mean(axis=0)],
        "seconds_per_selection": round(
            float(np.median([run["seconds_per_selection"] for run in runs])), 4
        ),
    }


def _pair(
    runs: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """How much more area under the curve, in points of mIoU, over the seeds that both played."""
    areas = {
        run["seed"]: _area(
            [point["regions"] for point in run["curve"]],
            np.array([point["miou"] for point in run["curve"]]),
        )
        for run in runs
    }
    lead = np.array(
        [
            100 * float(areas[run["seed"]] - _area(
                [point["regions"] for point in run["curve"]],
                np.array([point["miou"] for point in run["curve"]]),
            ))
            for run in others
            if run["seed"] in areas
        ]
    )  # fmt: skip
    if not len(lead):
        return {"seeds": 0, "wins": 0, "lead": None, "low": None, "high": None}
    drawn = lead[rng.integers(len(lead), size=(NUM_BOOTSTRAPS, len(lead)))].mean(axis=1)
    low, high = _interval(drawn[:, None])
    return {
        "seeds": len(lead),
        "wins": int((lead > 0).sum()),
        "lead": round(float(lead.mean()), 3),
        "low": round(float(low[0]), 3),
        "high": round(float(high[0]), 3),
    }


def _interval(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.quantile(drawn, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], axis=0)
    return low, high


def _area(regions: Sequence[int], mious: np.ndarray) -> np.ndarray:
    """Mean mIoU over the logarithm of the budget."""
    if len(regions) == 1:
        return np.asarray(mious[..., 0])
    place = np.log(regions)
    return np.asarray(np.trapezoid(mious, place, axis=-1) / (place[-1] - place[0]))


def _regions_to(
    regions: Sequence[int], mious: np.ndarray, drawn: np.ndarray, wanted: float
) -> dict[str, float | None]:
    """Regions at which the mean curve first reaches `wanted`; None where it never does."""
    reached = np.array([_first_reach(regions, curve, wanted) for curve in drawn])
    low, high = np.quantile(reached, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], method="nearest")
    value = _first_reach(regions, mious.mean(axis=0), wanted)
    return {
        name: None if math.isinf(it) else round(float(it), 1)
        for name, it in (("value", value), ("low", low), ("high", high))
    }


def _first_reach(regions: Sequence[int], curve: np.ndarray, wanted: float) -> float:
    place = np.log(regions)
    for index, value in enumerate(curve):
        if value < wanted:
            continue
        if index == 0:
            return float(regions[0])
        share = (wanted - curve[index - 1]) / (value - curve[index - 1])
        return float(np.exp(place[index - 1] + share * (place[index] - place[index - 1])))
    return math.inf
