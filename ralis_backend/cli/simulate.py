"""`ralis simulate`: strategies compared on what one project has labelled so far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project, strategy_names
from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from rich.table import Table

Strategies = Annotated[
    str | None,
    typer.Option(
        help="Separated by commas, a name with a comma in quotes; default: the project's own and "
        "entropy. coverage, clasp-pe and random are always played beside them."
    ),
]
Games = Annotated[
    int, typer.Option(min=2, help="Games a strategy plays; more narrow the interval.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")]


def simulate(
    project: Project, strategies: Strategies = None, games: Games = 16, json_file: Json = None
) -> None:
    """Replay a project's labels: which strategy would have chosen better among them?"""
    from rich.console import Console

    from ralis_backend.core.files import write_json
    from ralis_backend.core.policy.registry import find_strategy, own_name
    from ralis_backend.online.trust import replay_project
    from ralis_backend.settings import load_settings
    from ralis_backend.simulation.verdict import BASELINE, HEURISTICS, ReplayRules
    from ralis_backend.wiring import create_tool, find_device, open_store, ranking_config

    settings = load_settings()
    configure_logging("ERROR")
    config = ranking_config(settings, find_device(settings.device))
    store = open_store(settings)
    row = store.projects.by_tool_id(project)
    default = [row.strategy or config.strategy, "entropy"]
    asked = strategy_names(strategies) if strategies else default
    names = [own_name(name) for name in asked]  # the numbers are kept, and `default` may change
    chosen = {
        name: find_strategy(name, config.policies_dir, row.class_names, config.region_size)
        for name in dict.fromkeys([*names, *HEURISTICS, BASELINE])
    }
    console = Console(highlight=False)
    with console.status("Reading the labelled images") as status:
        played = replay_project(
            store,
            create_tool(settings).image,
            row,
            chosen,
            config,
            ReplayRules(num_games=games),
            lambda done, total: status.update(f"Playing: {done} of {total} curves"),
        )
    version = store.versions.find(row.id, row.current_version or 0)
    store.close()
    results = {name: played.verdict(name).to_json() for name in chosen}
    console.print(_table(results))
    console.print(
        f"{games} games on {played.num_regions} labelled regions of {played.num_images} images, "
        f"{played.seconds:.0f} s. Points of mIoU with 95 % intervals over the games; what the "
        "project's images hold beyond the labelled regions is not in them."
    )
    if version is not None and (manner := version.metrics.get("manner")):
        text = f"{version.name} is ranked by {version.strategy}, which {manner}."
        console.print(printable(text), markup=False)
    if json_file is not None:
        content = {
            "project": project,
            "games": games,
            "regions": played.num_regions,
            "images": played.num_images,
            "seconds": round(played.seconds, 1),
            "strategies": results,
        }
        write_json(json_file, content)


def _table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("strategy", "mean mIoU, %", "lead over the best heuristic", "lead over random")
    table.add_column("verdict")
    for name, entry in sorted(results.items(), key=lambda item: -item[1]["score"]):
        against = f" ({escape(printable(entry['heuristic']))})" if entry["heuristic"] else ""
        table.add_row(
            escape(printable(name)),
            f"{entry['score']:.1f}",
            _lead(entry["over_heuristic"]) + against,
            _lead(entry["over_random"]),
            entry["verdict"],
        )
    return table


def _lead(lead: Mapping[str, float] | None) -> str:
    if lead is None:
        return ""
    return f"{lead['mean']:+.1f} \\[{lead['low']:+.1f}, {lead['high']:+.1f}]"
