"""Results of trainings and of the comparison -> cards of the shipped policies, and their pictures.

Reads `benchmarks/results/policies/`: a file for each training (`<config>-s<seed>.json`, as
`ralis train-policy` writes it) and `choice.json`, `summary.json` of `ralis benchmark` on d_r; and
the comparison on the test set, `benchmarks/results/labels/long/camvid-policies/`. Writes
`policies/<name>.md` and `docs/images/`.

    python benchmarks/policy_report.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ralis_backend.core.files import write_bytes
from ralis_backend.offline.benchmark.plot import draw

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "policies"
COMPARISON = ROOT / "benchmarks" / "results" / "labels" / "long" / "camvid-policies"
IMAGES = ROOT / "docs" / "images"
CONFIGS = {
    "faithful": ("ralis-camvid-faithful", "faithful configuration, mIoU"),
    "miou": ("ralis-camvid", "repaired, mIoU reward"),
    "wiou": ("ralis-camvid-wiou", "repaired, weighted IoU reward"),
}
WINDOW = 10


def main() -> None:
    """Write cards and pictures."""
    trainings = {
        config: [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{config}-s*.json"))]
        for config in CONFIGS
    }
    choice = json.loads((RESULTS / "choice.json").read_text())
    comparison = json.loads((COMPARISON / "summary.json").read_text())
    _draw_training(trainings, IMAGES / "policy-training.png")
    draw(comparison, IMAGES / "policies.png")
    for config, (name, title) in CONFIGS.items():
        chosen = max(
            trainings[config],
            key=lambda run: choice["strategies"][f"{config}-s{run['seed']}"]["nauc"]["value"],
        )
        card = _card(name, config, title, chosen, trainings[config], choice, comparison)
        write_bytes(ROOT / "policies" / f"{name}.md", card.encode())
        print(f"{name}: seed {chosen['seed']}")


def _draw_training(trainings: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Episodes' rewards and last scores, a thin line per seed, their running mean thick."""
    figure = Figure(figsize=(10, 5.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(CONFIGS), sharex="col")
    for column, (config, (_, title)) in enumerate(CONFIGS.items()):
        panels[0, column].set_title(title, loc="left", fontsize=10)
        for row, (key, factor, label) in enumerate(
            (("reward", 1, "sum of rewards"), ("score", 100, "score at the end, %"))
        ):
            axes = panels[row, column]
            for run in trainings[config]:
                values = np.array([factor * it[key] for it in run["episodes"]])
                axes.plot(np.arange(1, len(values) + 1), values, linewidth=0.5, alpha=0.5)
                window = min(WINDOW, len(values))
                running = np.convolve(values, np.ones(window) / window, "valid")
                axes.plot(
                    np.arange(window, len(values) + 1), running,
                    color=axes.lines[-1].get_color(), linewidth=2, label=f"seed {run['seed']}",
                )  # fmt: skip
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_ylabel(label)
            if row:
                axes.set_xlabel("episode")
    for axes in panels[0]:
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _card(
    name: str,
    config: str,
    title: str,
    chosen: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    choice: Mapping[str, Any],
    comparison: Mapping[str, Any],
) -> str:
    images = chosen["num_images"]
    regions = chosen["num_regions"]["state_set"] // images["d_s"]
    cost = images["d_s"] + images["d_t"] + images["d_r"]
    rules = chosen["config"]["environment"]
    strategy = {"faithful": "ralis-faithful", "miou": "ralis", "wiou": "ralis-wiou"}[config]
    areas = {
        run["seed"]: choice["strategies"][f"{config}-s{run['seed']}"]["nauc"]["value"]
        for run in runs
    }
    chances = ", ".join(f"seed {seed}: {area:.4f}" for seed, area in areas.items())
    lines = [
        f"# {name}",
        "",
        f"A RALIS query policy for CamVid ({title}): use it with `RALIS_STRATEGY={strategy}`.",
        "",
        "- **For:** projects with exactly the classes "
        f"{', '.join(chosen['classes'])}, and regions of "
        f"{chosen['config']['region_size'][0]} x {chosen['config']['region_size'][1]} pixels "
        "(height x width). It is refused elsewhere.",
        f"- **Trained** on CamVid's `d_t` ({images['d_t']} images), state set `d_s` "
        f"({images['d_s']}), reward on `d_r` ({images['d_r']}), in the fast simulation, on a CPU: "
        f"{chosen['config']['episodes']} episodes, seed {chosen['seed']}, kept after episode "
        f"{chosen['kept_episode']}, {chosen['seconds'] / 60:.0f} minutes.",
        f"- **What it cost in labels:** {cost} fully labelled images, {cost * regions} regions. "
        "That is more than it can save on one dataset of this size.",
        f"- **Chosen** among {len(runs)} seeds by the area under the learning curve on `d_r` with "
        f"`d_t` as the pool ({chances}); the test set was not looked at."
        if len(runs) > 1
        else "- **Not chosen** among several: one seed was trained.",
        f"- **Rules of the game:** budget {rules['budget']}, K = {rules['regions_per_step']}, "
        f"N = {rules['pool_size']}, {rules['initial_regions']} random regions at the start, reward "
        f"{rules['reward']}, credit {rules['credit']}, features {rules['variant']}. Every setting "
        f"stands in `{name}.json`.",
        "",
        "## Scores",
        "",
        f"Fast simulation, pool `d_v`, pools of {comparison['config']['pool_size']}, from "
        f"{comparison['config']['initial_regions']} random regions; test mIoU in %, mean over "
        f"{comparison['strategies'][strategy]['seeds']} paired seeds with a 95 % "
        f"interval; all labels: {100 * comparison['all_labels_miou']:.1f}.",
        "",
        *_table(comparison),
        "",
        _lead(strategy, comparison),
        "",
        "![Learning curves of all strategies](../docs/images/policies.png)",
        "",
        "![Rewards and scores of the trainings](../docs/images/policy-training.png)",
        "",
        "## What it is not good for",
        "",
        "- Any other label set, region size or number of state regions: the network's shape "
        "depends on them.",
        "- Saving labels on CamVid itself, see its cost above; it exists to be compared with.",
        "- A segmenter much better or worse than those it was trained with; it was never trained "
        f"beyond {rules['budget']} labelled regions, nor on a fully trained network.",
        "- `d_r` holds every second frame of seven seconds of one sequence: rewards measured there "
        "favour what helps in that street.",
    ]
    return "\n".join(lines) + "\n"


def _table(comparison: Mapping[str, Any]) -> list[str]:
    strategies = comparison["strategies"]
    budgets = [point["regions"] for point in next(iter(strategies.values()))["curve"]]
    rows = [
        "| strategy | " + " | ".join(str(budget) for budget in budgets) + " | regions to 96 % |",
        "| --- " * (len(budgets) + 2) + "|",
    ]
    for name, entry in strategies.items():
        points = [
            f"{100 * it['miou']:.1f} ({100 * it['low']:.1f}–{100 * it['high']:.1f})"
            for it in entry["curve"]
        ]
        reached = entry["regions_to"]["0.96"]["value"]
        count = "not reached" if reached is None else f"{reached:.0f}"
        rows.append(f"| {name} | {' | '.join(points)} | {count} |")
    return rows


def _lead(strategy: str, comparison: Mapping[str, Any]) -> str:
    parts = [
        f"{pair['lead']:+.2f} points against {other} ({pair['low']:+.2f} to {pair['high']:+.2f}, "
        f"ahead in {pair['wins']} of {pair['seeds']} seeds)"
        for other, pair in comparison["pairs"][strategy].items()
    ]
    return "Mean lead over the curve (logarithmic budget): " + "; ".join(parts) + "."


if __name__ == "__main__":
    main()
