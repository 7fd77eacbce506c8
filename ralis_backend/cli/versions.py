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

    from ralis_backend.online.advice import advice, held_out_lines
    from ralis_backend.online.learner import Learner
    from ralis_backend.online.report import notes, people_notes
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import create_store, ranking_config

    settings = load_settings()
    configure_logging("WARNING")
    store = create_store(settings)
    known = store.projects.by_tool_id(project)
    uid = known.uid
    learner = Learner(store, ranking_config(settings, "cpu"), image=None)
    if rollback is not None:
        learner.rollback(uid, rollback)
        typer.echo(f"project {project} goes back to {rollback}; the worker publishes it")
    made = learner.versions(uid)
    store.close()
    console = Console()
    console.print(_table(made))
    named = [(version["version"], version["metrics"] or {}) for version in made]
    trained = [(name, metrics) for name, metrics in named if "steps" in metrics]
    lines = notes(named)
    for name, metrics in trained[-1:]:
        lines += held_out_lines(name, metrics)
    lines += [*people_notes(known.people), advice([metrics for _, metrics in trained])]
    for line in lines:
        console.print(printable(line), markup=False)


def _table(versions: list[dict[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from ralis_backend.online.report import slice_text, validation_text

    table = Table("", "version", "labelled regions", "validation mIoU")
    for name in ("pixels right on random regions", "strategy", "made", "accepted"):
        table.add_column(name)
    for version in versions:
        metrics = version["metrics"] or {}
        table.add_row(
            "→" if version["is_current"] else "",
            version["version"],
            str(version["labelled_regions"]),
            escape(printable(validation_text(metrics))),
            slice_text(metrics),
            escape(printable(version["strategy"] or "")),
            version["created_at"][:16].replace("T", " "),
            "yes" if version["is_accepted"] else "no",
        )
    return table
