"""`ralis disconnect`: webhooks and ML backend taken off a project; labels stay."""

from __future__ import annotations

from typing import Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project
from ralis_backend.core.text import printable

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DeleteRegions = Annotated[
    bool,
    typer.Option(
        "--delete-regions-project",
        help="Also delete the regions project in Label Studio, if all in it has been read.",
    ),
]


def disconnect(project: Project, yes: Yes = False, delete_regions: DeleteRegions = False) -> None:
    """Take this backend off a project; its labels and versions stay in the data folder."""
    from ralis_backend.cli.connect import create_connector
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import open_store

    settings = load_settings()
    configure_logging("WARNING")
    store = open_store(settings)
    row = store.projects.by_tool_id(project)
    what = f"project {row.tool_id} ({row.title})"
    if delete_regions and row.regions_tool_id is not None:
        what += f", and delete project {row.regions_tool_id}, its regions, with their annotations"
    if not yes and not _agreed(printable(f"Take this backend off {what}?")):
        raise ValueError(
            f"project {row.tool_id} stays connected: nobody said yes; --yes does not ask"
        )
    for line in create_connector(settings, store).disconnect(row, deletes_regions=delete_regions):
        typer.echo(printable(line))
    typer.echo(
        f"what was labelled is kept: `ralis export --project {row.tool_id}` writes it, and "
        f"`ralis connect --project {row.tool_id}` goes on with it"
    )
    store.close()


def _agreed(question: str) -> bool:
    """Whether somebody says yes; where nobody can be asked, nobody does."""
    try:
        return typer.confirm(question)
    except typer.Abort as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise typer.Exit(130) from None
        return False
