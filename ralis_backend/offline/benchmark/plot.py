"""A summary -> a picture of its learning curves."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ralis_backend.core.files import write_bytes

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind people can tell apart; yellow is too pale for a line."""
LINES = ("-", "--", "-.", ":")
"""One for every seven strategies."""
MARKERS = "os^Dv"
MAX_BANDS = 5
"""Of more strategies the intervals are bars: bands would hide each other."""


def draw(content: Mapping[str, Any], path: Path) -> None:
    """The curves of a `summary` as a PNG, an interval at each budget, the best strategy on top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = sorted(content["strategies"].items(), key=lambda it: -it[1]["nauc"]["value"])
    figure = Figure(figsize=(9, 5.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (name, entry) in enumerate(entries):
        shift = 1 + 0.008 * (index - len(entries) / 2) * (len(entries) > MAX_BANDS)
        _draw_curve(axes, f"{name}  {entry['nauc']['value']:.3f}", entry["curve"], index, shift)
    axes.axhline(100 * content["all_labels_miou"], color="black", linewidth=1, linestyle=":")
    axes.annotate(
        "all labels", (0.01, 100 * content["all_labels_miou"]),
        xycoords=("axes fraction", "data"), fontsize=8, va="bottom",
    )  # fmt: skip
    axes.set_xscale("log")
    ticks = sorted({point["regions"] for _, entry in entries for point in entry["curve"]})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labelled regions")
    axes.set_ylabel("test mean IoU, %")
    axes.set_title(f"{content['dataset']}, {_seeds(content)}", loc="left", fontweight="bold")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, handlelength=3,
        title="area under the curve,\nshare of all labels", title_fontsize=8, alignment="left",
    )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())


def _draw_curve(axes: Any, label: str, curve: Any, index: int, shift: float) -> None:
    color = COLORS[index % len(COLORS)]
    line, marker = LINES[index // len(COLORS) % len(LINES)], MARKERS[index % len(MARKERS)]
    regions = [shift * point["regions"] for point in curve]
    means, low, high = ([100 * point[key] for point in curve] for key in ("miou", "low", "high"))
    axes.plot(
        regions, means, color=color, linestyle=line, marker=marker, markersize=4, label=label,
        linewidth=1.6, zorder=100 - index,
    )  # fmt: skip
    if shift == 1:
        axes.fill_between(regions, low, high, color=color, alpha=0.12, linewidth=0)
    else:
        axes.vlines(regions, low, high, color=color, alpha=0.45, linewidth=1)


def _seeds(content: Mapping[str, Any]) -> str:
    num_seeds = max(entry["seeds"] for entry in content["strategies"].values())
    return f"mean of {num_seeds} seeds, 95 % intervals" if num_seeds > 1 else "one seed"
