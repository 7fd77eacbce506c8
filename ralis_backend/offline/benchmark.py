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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.core.acquisition import Strategy
from ralis_backend.core.simulation.game import Arena, GameRules, all_labels_miou, check, play
from ralis_backend.core.simulation.oracles import Oracle
from ralis_backend.offline.results import write_json

SHARES = (0.90, 0.95, 0.96)
INTERVAL = 0.95
NUM_BOOTSTRAPS = 2000


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
    strategies: Mapping[str, Strategy | Oracle],
    seeds: Sequence[int],
    config: GameRules,
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
