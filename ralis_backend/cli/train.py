"""`ralis train`: a training asked for, as Label Studio's "Start Training" does."""

from __future__ import annotations

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project
from ralis_backend.cli.to_the_end import (
    AllLabels,
    UntilConverged,
    check_options,
    train_to_the_end,
)


def train(
    project: Project, until_converged: UntilConverged = False, all_labels: AllLabels = False
) -> None:
    """Ask for a training, or train to the end here; the newest labels are read first."""
    from rich.console import Console

    from ralis_backend.online.status import seconds_since_worker
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import open_store

    check_options(until_converged, all_labels)
    settings = load_settings()
    configure_logging("WARNING")
    store = open_store(settings)
    found = store.projects.by_tool_id(project)
    if found.is_deleted:
        raise ValueError(
            f"project {project} is not connected any more; run `ralis connect --project {project}`"
        )
    if until_converged:
        end = train_to_the_end(settings, store, found, Console(), all_labels=all_labels)
        store.close()
        if end.is_stopped:
            raise typer.Exit(130)
        return
    num_labelled = store.labels.count_regions(found.id)
    store.projects.request_training(found.id)
    is_worker_there = seconds_since_worker(store) is not None
    store.close()
    what = (
        f"the worker trains on {num_labelled} regions and whatever else has been submitted"
        if num_labelled
        else "the worker trains as soon as something is labelled"
    )
    typer.echo(f"project {found.tool_id}: {what}; `ralis status --project {project}` shows it")
    if not is_worker_there:
        typer.echo("no worker lives: start `ralis serve` or `ralis worker`")
