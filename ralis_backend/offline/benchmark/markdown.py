"""A summary -> `report.md`: what was done, by which rules, what came out, and what it is not."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ralis_backend import __version__
from ralis_backend.offline.benchmark.clicks import MIN_SEGMENT_PIXELS, TOLERANCE
from ralis_backend.offline.benchmark.summary import PAIR_SHARE


def machine() -> str:
    """Processor, cores, torch, versions, on one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or "unknown processor"
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, ralis-backend {__version__}"
    )


def report(
    content: Mapping[str, Any], class_names: Sequence[str], command: str, machine: str
) -> str:
    """The report in Markdown.

    Args:
        content: what `run` returned.
        class_names: of the dataset.
        command: that repeats it.
        machine: that it ran on.
    """
    lines = [
        f"# Label efficiency on {content['dataset']}",
        "",
        *_protocol(content, class_names),
        "",
        "## Scores",
        "",
        f"Test mIoU in %, mean over {len(content['seeds'])} paired seeds, in brackets the 95 % "
        f"interval. All labels give {100 * content['all_labels_miou']:.1f} (mean of "
        f"{content['all_labels']['seeds']} seeds: {_percents(content['all_labels']['mious'])}).",
        "",
        *_score_table(content),
        "",
        "![Learning curves](curves.png)",
        "",
        "## Labels needed",
        "",
        f"Regions, and clicks, until the mean curve reaches a share of the score of all labels; "
        f"in how many of {len(content['seeds'])} seeds the seed's own curve does. A dash: never, "
        "or no bound, within the largest budget.",
        "",
        *_label_table(content),
        "",
        "## Pairs",
        "",
        "Each cell: lead of the row over the column in points of mIoU (mean over the logarithm of "
        "the budget, 95 % interval), seeds won, and the ratios of the regions and of the clicks "
        f"that they need for {100 * float(PAIR_SHARE):.0f} %, row to column. An interval that "
        "holds 0 (of a ratio: 1) shows no difference. Who never arrives is taken to need at least "
        "what the largest budget cost.",
        "",
        *_pair_table(content),
        "",
        "## Classes and costs",
        "",
        f"Rare classes (the rarest third of those in the pool{_without_background(content)}, by "
        "pixels): "
        f"{_names(content['rare_classes'], class_names)}.",
        "",
        *_cost_table(content),
        "",
        *_break_even(content),
        "",
        "## Repeat it",
        "",
        f"```\n{command}\n```",
        "",
        f"It ran on: {machine}. Same seeds on the same machine give the same games, to the bit.",
        "",
        "## Caveats",
        "",
        *_caveats(content),
    ]
    return "\n".join(lines) + "\n"


def _protocol(content: Mapping[str, Any], class_names: Sequence[str]) -> Iterator[str]:
    rules, arena = content["config"], content["arena"]
    yield "## Protocol"
    yield ""
    yield (
        f"- The pool has {arena['pool_regions']} regions. The first {rules['initial_regions']} are "
        f"chosen by `{rules['initial']}` among those with an annotated pixel; then, "
        f"{rules['regions_per_step']} at a time, each strategy takes the best of as many pools of "
        f"{rules['pool_size']} regions. Regions that are all void may be picked, and count."
    )
    for name, own in content.get("stands_for", {}).items():
        yield f"- `{name}` = `{own}`."
    yield (
        "- All strategies of a seed begin with the same regions, are offered pools in the same "
        "order, and train with the same random numbers."
    )
    yield (
        f"- The segmenter that ranks starts with {rules['initial_updates']} updates and learns "
        f"{rules['updates_per_step']} more after each step. At each budget a new one, from the "
        f"same start, is trained for {rules['final_updates']} updates and measured once on the "
        "test set. No score on the test set chooses anything."
    )
    yield (
        f"- All labels: the same recipe, {rules['final_updates']} updates, on the whole pool. More "
        "updates raise it, and the largest budgets with it: `--updates` says how much."
    )
    yield (
        "- mIoU: one confusion matrix over the whole test set, mean over the classes that it "
        f"holds{_unscored(content, class_names)}{_absent(content, class_names)}. Rules, recipe and "
        "data of this run:"
    )
    yield ""
    yield "| constant | value |"
    yield "| --- | --- |"
    for name, value in _flat({**rules, **arena}):
        yield f"| {name} | {value} |"


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _without_background(content: Mapping[str, Any]) -> str:
    return "" if content["arena"].get("background") is None else ", without the background"


def _unscored(content: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The background, unless the test set holds nothing else to score, or none of it."""
    background, absent = content["arena"].get("background"), content["absent_classes"]
    if background in (None, *absent) or len(absent) == len(class_names) - 1:
        return ""
    return f", without the background, {class_names[background]}"


def _absent(content: Mapping[str, Any], class_names: Sequence[str]) -> str:
    absent = content["absent_classes"]
    return f" (absent and not counted: {_names(absent, class_names)})" if absent else ""


def _score_table(content: Mapping[str, Any]) -> Iterator[str]:
    entries = _sorted(content)
    budgets = [point["regions"] for point in entries[0][1]["curve"]]
    yield f"| strategy | {' | '.join(map(str, budgets))} | area |"
    yield "| --- " * (len(budgets) + 2) + "|"
    for name, entry in entries:
        points = [
            f"{100 * it['miou']:.1f} ({100 * it['low']:.1f}–{100 * it['high']:.1f})"
            for it in entry["curve"]
        ]
        yield f"| {name} | {' | '.join(points)} | {_bounds(entry['nauc'], 3)} |"


def _label_table(content: Mapping[str, Any]) -> Iterator[str]:
    entries = _sorted(content)
    shares = list(entries[0][1]["regions_to"])
    heads = [f"{100 * float(share):.0f} %" for share in shares]
    yield (
        f"| strategy | {' | '.join(f'regions to {it} | seeds' for it in heads)} | "
        f"{' | '.join(f'clicks to {it}' for it in heads)} |"
    )
    yield "| --- " * (3 * len(shares) + 1) + "|"
    for name, entry in entries:
        cells = []
        for share in shares:
            reach = entry["regions_to"][share]
            cells += [_bounds(reach, 0), f"{reach['reached']} of {entry['seeds']}"]
        cells += [_bounds(entry["clicks_to"][share], 0) for share in shares]
        yield f"| {name} | {' | '.join(cells)} |"


def _pair_table(content: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name, _ in _sorted(content)]
    yield f"| | {' | '.join(names)} |"
    yield "| --- " * (len(names) + 1) + "|"
    for name in names:
        cells = [_pair_cell(content["pairs"][name].get(other)) for other in names]
        yield f"| {name} | {' | '.join(cells)} |"


def _pair_cell(pair: Mapping[str, Any] | None) -> str:
    if pair is None:
        return ""
    return (
        f"{pair['lead']:+.2f} ({pair['low']:+.2f} to {pair['high']:+.2f}), "
        f"{pair['wins']}/{pair['seeds']}, regions x {_bounds(pair['regions_ratio'][PAIR_SHARE], 2)}"
        f", clicks x {_bounds(pair['clicks_ratio'][PAIR_SHARE], 2)}"
    )


def _cost_table(content: Mapping[str, Any]) -> Iterator[str]:
    entries = _sorted(content)
    last = entries[0][1]["curve"][-1]["regions"]
    yield (
        f"| strategy | rare-class IoU at {last}, % | class entropy of the labels at {last}, nats | "
        f"clicks for {last} | seconds a selection | minutes a game | regions to train it |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, entry in entries:
        rare = {
            key: None if value is None else 100 * value
            for key, value in entry["rare_iou"][-1].items()
        }
        yield (
            f"| {name} | {_bounds(rare, 1)} | {entry['class_entropy'][-1]:.2f} | "
            f"{entry['clicks'][-1]:.0f} | {entry['seconds_per_selection']:.2f} | "
            f"{entry['seconds_per_game'] / 60:.1f} | {_shown_cost(entry['label_cost'])} |"
        )


def _shown_cost(label_cost: int | None) -> str:
    return "knows all labels: an upper bound" if label_cost is None else str(label_cost)


def _break_even(content: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in _sorted(content):
        if "break_even" not in entry:
            continue
        against, saved = entry["break_even"]["against"], entry["break_even"]["regions_saved"]
        datasets = entry["break_even"]["datasets"]
        cost = f"- Break-even of `{name}`: training it used {entry['label_cost']} labelled regions"
        if saved is None:
            yield f"{cost}; what it saves is unknown, for a curve does not reach the share."
        elif datasets is None:
            yield f"{cost}; it saves none against `{against}` ({saved:+.0f}): never."
        else:
            yield (
                f"{cost}; it saves {saved:.0f} against `{against}`, and repays them after "
                f"{datasets:.1f} datasets like this one."
            )


def _caveats(content: Mapping[str, Any]) -> Iterator[str]:
    num_seeds = len(content["seeds"])
    if content["arena"]["fidelity"] == "fast":
        yield (
            "- The segmenter is a small head on a frozen encoder. Whether strategies rank alike "
            "under a trained network is measured by `--fidelity full` and "
            "`benchmarks/fidelity_agreement.py`, not here."
        )
    yield (
        f"- Intervals are of {num_seeds} seeds: Student's t of scores and leads, expanded "
        "percentiles of a bootstrap of label counts and ratios; the latter are still too narrow "
        "for fewer than five. They speak of other seeds on this dataset, not of other datasets. "
        "With one seed there is none."
    )
    yield (
        "- The share of all labels is of their mean score, taken as exact. Segmenters that learned "
        "from a balanced choice can score above all labels."
    )
    yield (
        "- Nothing corrects for the number of comparisons: of twenty pairs without a difference, "
        "one shows one."
    )
    yield (
        f"- Clicks are of polygons fitted to the masks (tolerance {TOLERANCE:g} pixels, segments "
        f"from {MIN_SEGMENT_PIXELS} pixels on, the largest of a region filled by one click); they "
        "compare strategies, and are no annotator's time."
    )
    yield (
        "- Labels of the state set are not used by strategies. The labels that trained a policy "
        "are counted above, those that its settings were tuned with are not."
    )


def _sorted(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(content["strategies"].items(), key=lambda it: -it[1]["nauc"]["value"])


def _bounds(entry: Mapping[str, Any], digits: int) -> str:
    value, low, high = (
        "–" if entry[key] is None else f"{entry[key]:.{digits}f}"
        for key in ("value", "low", "high")
    )
    return value if value == low == high else f"{value} ({low} to {high})"


def _percents(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in values)


def _names(indices: Sequence[int], class_names: Sequence[str]) -> str:
    return ", ".join(class_names[index] for index in indices)
