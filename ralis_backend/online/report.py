"""How a project's segmenter grew with its labels: the learning curve as a table and a picture.

Also in words: what versions score on the random slice, and whether a policy is trusted.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ralis_backend.core.files import write_bytes
from ralis_backend.online.further import (
    ALL_LABELS,
    CONTINUED,
    NOT_IN_USE,
    Further,
    continued_text,
    not_in_use_text,
)
from ralis_backend.online.paint_alone import LEARNED_FROM, NOT_YET, PAINT_ALONE
from ralis_backend.online.random_slice import pooled

HEADERS = ("version", "regions", "% of pool", "validation mIoU", "test mIoU")


@dataclass(frozen=True)
class CurvePoint:
    """One version: what had been labelled when it was trained, and its scores in [0, 1] or NaN."""

    version: str
    num_regions: int
    pool_share: float
    validation_miou: float
    test_miou: float


def curve_table(points: Sequence[CurvePoint]) -> list[tuple[str, ...]]:
    """The rows of the table under `HEADERS`, as text."""
    return [
        (
            point.version,
            str(point.num_regions),
            f"{100 * point.pool_share:.2f}",
            _percent(point.validation_miou),
            _percent(point.test_miou),
        )
        for point in points
    ]


def draw_curve(points: Sequence[CurvePoint], path: Path, title: str) -> None:
    """Write the curve as a PNG: mean IoU over labelled regions, with the share of the pool on top.

    Raises:
        ValueError: if there is no point.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not points:
        raise ValueError("no version has been evaluated yet; there is no curve to draw")
    figure = Figure(figsize=(8, 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    regions = [point.num_regions for point in points]
    series = (
        ("validation", [point.validation_miou for point in points], "#2563EB", "o"),
        ("test", [point.test_miou for point in points], "#EA580C", "s"),
    )
    for name, scores, color, marker in series:
        if any(not math.isnan(score) for score in scores):
            values = [100 * score for score in scores]
            axes.plot(regions, values, color=color, marker=marker, linewidth=2, label=name)
            axes.annotate(
                f"{values[-1]:.1f}", (regions[-1], values[-1]), xytext=(6, 4),
                textcoords="offset points", color=color,
            )  # fmt: skip
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("labelled regions")
    axes.set_ylabel("mean IoU, %")
    axes.set_xticks(regions)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="lower right")
    shares = axes.secondary_xaxis("top")
    shares.set_xticks(regions, [f"{100 * point.pool_share:.1f}" for point in points])
    shares.set_xlabel("% of the pool's pixels", fontsize=9)
    shares.tick_params(labelsize=8, length=0)
    shares.spines["top"].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())


def validation_text(metrics: Mapping[str, Any]) -> str:
    """Mean IoU on the held-out regions, and what it is without background; empty without any."""
    value = metrics.get("validation_miou")
    if value is None:
        return ""
    if "background" not in metrics:
        return f"{value:.3f}"
    foreground = metrics.get("validation_foreground_miou")
    without = "unknown" if foreground is None else f"{foreground:.3f}"
    return f"{value:.3f}, {without} without {metrics['background']}"


def class_text(metrics: Mapping[str, Any]) -> str:
    """The IoU of each class on the held-out regions; empty without any."""
    found = metrics.get("validation_iou") or {}
    shown = [
        f"{name} {'is not there' if value is None else f'{value:.3f}'}"
        for name, value in found.items()
    ]
    return f"IoU on {_regions(metrics.get('validation_regions', 0))} held out: {', '.join(shown)}"


def slice_text(metrics: Mapping[str, Any]) -> str:
    """Pixels that were right on random regions new to a version; empty without any.

    With a background, which most of them are, also the mean IoU of all other classes.
    """
    found = metrics.get("random_slice")
    if not found:
        return ""
    value, low, high = (100 * it for it in found["pixel_accuracy"])
    without = ""
    if "foreground_miou" in found:
        foreground = found["foreground_miou"]
        without = (
            ", nothing but background there"
            if foreground is None
            else f", mIoU without background {foreground:.3f}"
        )
    return f"{value:.1f} % [{low:.1f}, {high:.1f}], {_regions(found['regions'])}{without}"


def notes(versions: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """What is to be said below a table of versions: name and metrics of each, oldest first."""
    lines = []
    judged = [each for each in versions if each[1].get("validation_iou")]
    for name, metrics in judged[-1:]:
        lines.append(f"{name}: {class_text(metrics)}")
    for name, metrics in versions:
        trust = metrics.get("trust")
        if why := metrics.get("weights_error"):
            lines.append(f"{name} cannot be used any more: {why}")
        if why := metrics.get(NOT_IN_USE):
            lines.append(not_in_use_text(name, why))
        if continued := metrics.get(CONTINUED):
            lines.append(f"{name}: {continued_text(metrics, continued)}")
        if metrics.get(ALL_LABELS):
            lines.append(f"{name} has learned from what is held out, too: it is for export alone")
        if why := metrics.get(NOT_YET):
            lines.append(f"{name} has learned from paint alone: {why}")
        if alone := metrics.get(PAINT_ALONE):
            is_later = LEARNED_FROM in metrics or NOT_YET in metrics
            what = "what follows learns" if is_later else "has learned"
            lines.append(f"{name}{':' if is_later else ''} {what} from paint alone: {alone['why']}")
        for facts, when in (
            (metrics, "in mid-training"),
            (Further.of(metrics).facts, "while it was trained on"),
        ):
            lines += [f"{name}: {note}" for note in _unlabelled_notes(facts, when)]
        lines += [f"{name} has not learned from {what}" for what in metrics.get("left_out", [])]
        if note := metrics.get("strategy_note"):
            lines.append(f"{name}: {note}")
        elif trust and trust.get("games"):
            lines.append(f"{name}: {trust['policy']}, {trust['verdict']}: {replay_text(trust)}")
        if manner := metrics.get("manner"):
            lines.append(f"{name}: its ranking {manner}")
        if mining := metrics.get("mining"):
            lines += _mining_notes(name, mining)
    everything = pooled(
        metrics["random_slice"] for _, metrics in versions if metrics.get("random_slice")
    )
    if everything:
        value, low, high = (100 * it for it in everything["pixel_accuracy"])
        lines.append(
            f"random slice: {value:.1f} % [{low:.1f}, {high:.1f}] of the pixels right, on "
            f"{_regions(everything['regions'])} before they were trained on, all versions together"
        )
    return lines


def _unlabelled_notes(facts: Mapping[str, Any], when: str) -> Iterator[str]:
    """What came of learning from pixels that nobody labelled, where nothing did."""
    learned = facts.get("unlabelled", {})
    if learned.get("has_collapsed"):
        yield (
            f"what nobody labelled was left off {when}, the model said nearly everywhere the same "
            "of it"
        )
    if learned.get("is_all_labelled"):
        yield "people labelled every pixel: there was nothing to learn from others"


def _mining_notes(name: str, mining: Mapping[str, Any]) -> list[str]:
    """Who looked for a class in a version's ranking, where that is not as a matter of course."""
    looked, trust = mining["strategy"] or "nobody", mining.get("trust")
    if note := mining["note"]:
        return [f"{name}: {looked} looks for the class: {note}"]
    return [f"{name}: miner {trust['policy']}, {trust['verdict']}"] if trust else []


def replay_text(trust: Mapping[str, Any]) -> str:
    """The numbers of a replay on a project's labels in a few words."""
    leads = [
        f"{lead['mean']:+.1f} [{lead['low']:+.1f}, {lead['high']:+.1f}] against {name}"
        for name, lead in (
            (trust["heuristic"], trust["over_heuristic"]),
            ("random", trust["over_random"]),
        )
        if lead
    ]
    return f"replay on {_regions(trust['regions'])}, points of mIoU: {', '.join(leads)}"


def _regions(count: int) -> str:
    return f"{count} region{'' if count == 1 else 's'}"


def _percent(score: float) -> str:
    return "" if math.isnan(score) else f"{100 * score:.1f}"
