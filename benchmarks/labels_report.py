"""Results of `make reproduce-benchmark-long` -> one overview, and cards of policies for any labels.

Reads `summary.json` of each folder in `benchmarks/results/labels/long/`, and `policies/NAME.json`;
writes `benchmarks/results/labels/overview.md` and `policies/NAME.md`.

    python benchmarks/labels_report.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ralis_backend.core.files import write_bytes

ROOT = Path(__file__).resolve().parent.parent
LABELS = ROOT / "benchmarks" / "results" / "labels"
POLICIES = ROOT / "policies"
RUNS = {
    "camvid-weight-0": "CamVid, plain loss",
    "camvid-weight-0.5": "CamVid, class-weighted loss",
    "dubai_aerial-weight-0": "aerial, plain loss",
    "dubai_aerial-weight-0.5": "aerial, class-weighted loss",
    "camvid-strategies": "CamVid, plain loss, every strategy",
    "dubai_aerial-strategies": "aerial, plain loss, every strategy",
    "camvid-policies": "CamVid, plain loss, RALIS policies (steps of 24 regions)",
}
BEST_HEURISTIC = "bald-rarity"
SHARE = "0.96"
SETS = {"camvid": "CamVid", "dubai_aerial": "the aerial set"}
CARDS = {
    "any-set": (
        "any",
        "A network over the set of classes that corrects `bald-rarity`, evolved on whole games.",
    ),
    "any-camvid": ("any-camvid", "The same, trained without any image of the aerial set."),
    "any-aerial": ("any-aerial", "The same, trained without any image of CamVid."),
    "any-shuffled": (
        "placebo-shuffled",
        "A placebo: the same, but its rewards were dealt out at random. Not for labelling.",
    ),
    "linear": (
        "linear",
        "A weighted sum of the same inputs, fitted to the gain of single batches.",
    ),
}
"""Files -> the name of the strategy in the results, and what it is."""
CALLED = {"any-set": "any-set"}
"""Files -> today's name of the strategy, where another has taken the one in the results."""


def main() -> None:
    """Write overview and cards."""
    summaries = {
        folder: json.loads((LABELS / "long" / folder / "summary.json").read_text())
        for folder in RUNS
    }
    overview = ["# Regions that each strategy needs", "", *_explanation()]
    for folder, title in RUNS.items():
        overview += ["", f"## {title}", "", *_table(summaries[folder], folder)]
    write_bytes(LABELS / "overview.md", ("\n".join(overview) + "\n").encode())
    for file, (strategy, text) in CARDS.items():
        card = "\n".join(_card(file, strategy, text, summaries))
        write_bytes(POLICIES / f"{file}.md", card.encode())
        print(f"{file}: {strategy}")


def _explanation() -> list[str]:
    return [
        "Until the mean curve reaches 96 % of the test mIoU of all labels; ratios and leads are of",
        "paired seeds, with 95 % intervals. *Lead* is in points of mIoU over the curve",
        "(logarithmic budget). Oracles know the labels. Written by `benchmarks/labels_report.py`.",
    ]


def _table(summary: Mapping[str, Any], folder: str) -> Iterator[str]:
    strategies, pairs = summary["strategies"], summary["pairs"]
    config = summary["config"]
    yield (
        f"{len(summary['seeds'])} seeds, from {config['initial_regions']} random regions; all "
        f"labels: {100 * summary['all_labels_miou']:.1f} % mIoU. "
        f"[Report](long/{folder}/report.md), [curves](long/{folder}/curves.png)."
    )
    yield ""
    yield (
        "| strategy | regions | of what random needs | of what bald-rarity needs "
        "| lead over bald-rarity | class entropy |"
    )
    yield "| --- " * 6 + "|"
    for name in sorted(strategies, key=lambda it: -strategies[it]["nauc"]["value"]):
        entry = strategies[name]
        reached = entry["regions_to"][SHARE]
        cells = [
            _interval(reached, "{:.0f}") if reached["value"] is not None else "not reached",
            _ratio(pairs, name, "random"),
            _ratio(pairs, name, BEST_HEURISTIC),
            _lead(pairs, name, BEST_HEURISTIC),
            f"{entry['class_entropy'][-1]:.2f}",
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def _card(
    file: str, strategy: str, text: str, summaries: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    results = json.loads((POLICIES / f"{file}.json").read_text())
    config, cost = results["config"], results["labelled_regions"]
    trained_on = " and ".join(SETS[name] for name in cost)
    scored = ""
    if "scored_classes" not in results:
        scored = (
            "; a class that the held-out images do not show, and that was predicted, counted as "
            "one with an IoU of 0, which trainings no longer do"
        )
    yield f"# {file}"
    yield ""
    yield f"{text} Use it with `RALIS_STRATEGY={CALLED.get(file, strategy)}`."
    yield ""
    yield "- **For:** any label set with at least two classes, any region size, any state."
    if "curve" in results:
        yield (
            f"- **Trained** on `d_t` of {trained_on}, by evolution strategies: "
            f"{len(results['curve'])} games, each with {config['pairs']} antithetic pairs, of "
            "random images, first labels, losses, and subsets or merges of the classes; reward: "
            f"mean mIoU over the game on images held out of it{scored}; seed "
            f"{results['seed']}, in the fast simulation."
        )
    else:
        yield (
            f"- **Fitted** on `d_t` of {trained_on}: the mIoU that batches add in "
            f"{config['linear_games']} games is explained by their mean inputs (ridge "
            f"regression){scored}; seed {results['seed']}, in the fast simulation."
        )
    yield (
        f"- **What it cost in labels:** {sum(cost.values())} regions of "
        f"{config.get('region_size', [90, 80])[0]} x {config.get('region_size', [90, 80])[1]} "
        "pixels. Every setting stands in "
        f"`{file}.json`; the ranges of its inputs in training, for the drift check, in the file."
    )
    yield "- **Not chosen** among several: one seed was trained."
    yield ""
    yield "## Scores"
    yield ""
    yield (
        "Test mIoU over the curve against others, in points (paired seeds, 95 % "
        "interval), and the regions it needs for 96 % of all labels. Positive: this policy is "
        "ahead. A dash: not played there."
    )
    yield ""
    others = ("random", "entropy", BEST_HEURISTIC, "oracle-coverage")
    yield f"| run | seeds | regions | {' | '.join(others)} |"
    yield "| --- " * (3 + len(others)) + "|"
    for folder, title in RUNS.items():
        summary = summaries[folder]
        if strategy not in summary["strategies"]:
            continue
        entry = summary["strategies"][strategy]
        cells = [_lead(summary["pairs"], strategy, other) for other in others]
        reached = entry["regions_to"][SHARE]
        yield (
            f"| {title} | {entry['seeds']} | "
            f"{'not reached' if reached['value'] is None else _interval(reached, '{:.0f}')} "
            f"| {' | '.join(cells)} |"
        )
    yield ""
    yield "## What it is not good for"
    yield ""
    yield (
        f"- Replacing `bald-rarity` unseen: {_standing(strategy, summaries)}. The backend lets it "
        "rank a project only after it has held its own on that project's labels."
    )
    yield (
        "- A trained network's behaviour: it learned on small heads over frozen features, from "
        f"{config['initial_regions'][0]} to "
        f"{config['initial_regions'][1] + config['steps'] * config['regions_per_step']} labelled "
        "regions."
    )
    yield ""


def _standing(strategy: str, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the intervals of its leads over the best heuristic lie."""
    where: dict[str, list[str]] = {"ahead on": [], "behind on": [], "not told apart on": []}
    for folder, title in RUNS.items():
        pair = summaries[folder]["pairs"].get(strategy, {}).get(BEST_HEURISTIC)
        if pair is None:
            continue
        is_ahead, is_behind = pair["low"] > 0, pair["high"] < 0
        side = "ahead on" if is_ahead else "behind on" if is_behind else "not told apart on"
        where[side].append(title)
    return "; ".join(f"{side} {' and '.join(titles)}" for side, titles in where.items() if titles)


def _ratio(pairs: Mapping[str, Any], name: str, other: str) -> str:
    found = pairs[name].get(other, {}).get("regions_ratio", {}).get(SHARE)
    return "" if found is None else _interval(found, "{:.2f}")


def _lead(pairs: Mapping[str, Any], name: str, other: str) -> str:
    found = pairs[name].get(other)
    if found is None:
        return ""
    return f"{found['lead']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


def _interval(found: Mapping[str, Any], form: str) -> str:
    value, low, high = (
        "–" if found[key] is None else form.format(found[key]) for key in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
