"""`ralis versions`: the versions of a project's model, and the way back to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project
from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from rich.table import Table

Rollback = Annotated[str | None, typer.Option(help="Use this version again, e.g. v2.")]


def versions(project: Project, rollback: Rollback = None) -> None:
    """List the model's versions, or go back to one."""
    from rich.console import Console

    from ralis_backend.online.advice import advice_on, held_out_lines
    from ralis_backend.online.agreement import people_notes
    from ralis_backend.online.learner import Learner
    from ralis_backend.online.report import notes
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import open_store, ranking_config

    settings = load_settings()
    configure_logging("WARNING")
    store = open_store(settings)
    known = store.projects.by_tool_id(project)
    uid = known.uid
    learner = Learner(store, ranking_config(settings, "cpu"), image=None)
    if rollback is not None:
        learner.rollback(uid, rollback)
        typer.echo(f"project {project} goes back to {rollback}; the worker publishes it")
    made = learner.versions(uid)
    in_use = store.projects.get(uid).current_version
    every = store.versions.all(known.id)
    advised = advice_on(every, in_use)
    left_out = store.annotations.left_out_note(known.id)
    store.close()
    console = Console()
    console.print(_table(made))
    named = [(version["version"], version["metrics"] or {}) for version in made]
    trained = [(name, metrics) for name, metrics in named if "steps" in metrics]
    lines = notes(named)
    for name, metrics in trained[-1:]:
        lines += held_out_lines(name, metrics)
    lines += [*people_notes(known.people), advised]
    for line in [*lines, *filter(None, [left_out])]:
        console.print(printable(line), markup=False)


def _table(versions: list[dict[str, Any]]) -> Table:
    """Fits 80 columns: cells of several lines rather than words that are cut."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from ralis_backend.online.report import slice_text, validation_text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("version", no_wrap=True)
    table.add_column("labelled\nregions", justify="right", no_wrap=True)
    table.add_column("validation\nmIoU")
    table.add_column("right on\nrandom\nregions")
    table.add_column("strategy", overflow="fold")
    for name in ("made", "accepted"):
        table.add_column(name, no_wrap=True)
    for version in versions:
        metrics = version["metrics"] or {}
        table.add_row(
            f"{'→' if version['is_current'] else ' '} {version['version']}",
            str(version["labelled_regions"]),
            escape(printable(validation_text(metrics))),
            slice_text(metrics),
            escape(printable(version["strategy"] or "")),
            version["created_at"][:16].replace("T", "\n"),
            "yes" if version["is_accepted"] else "no",
        )
    return table
