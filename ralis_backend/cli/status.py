"""`ralis status`: what goes on with the projects, from the data folder alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import LARGEST_ID
from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from ralis_backend.online.store import Store

WATCH_S = 2.0

OptionalProject = Annotated[
    int | None,
    typer.Option("--project", min=1, max=LARGEST_ID, help="Only this project of Label Studio."),
]
Watch = Annotated[bool, typer.Option("--watch", help="Show each change until Ctrl-C.")]


def status(project: OptionalProject = None, watch: Watch = False) -> None:
    """Queue, labels, model, what the worker does, and what was left out."""
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import open_store

    settings = load_settings()
    configure_logging("WARNING")
    store = open_store(settings)
    shown: list[str] = []
    try:
        while True:
            lines = _lines(store, project, settings.regions_per_round)
            if lines != shown:
                typer.echo("\n".join(([""] if shown else []) + lines))
                shown = lines
            if not watch:
                return
            time.sleep(WATCH_S)
    finally:
        store.close()


def _lines(store: Store, number: int | None, regions_per_round: int) -> list[str]:
    from ralis_backend.online.status import project_status, seconds_since_worker, status_lines

    projects = store.projects.all() if number is None else [store.projects.by_tool_id(number)]
    lines = [
        "no worker lives: start `ralis serve` or `ralis worker`"
        if seconds_since_worker(store) is None
        else "a worker lives"
    ]
    if not projects:
        lines.append("no project is connected; `ralis connect --project N` connects one")
    for found in projects:
        lines += ["", *status_lines(project_status(store, found), regions_per_round)]
    return [printable(line) for line in lines]
