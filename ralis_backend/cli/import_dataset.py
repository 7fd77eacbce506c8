"""`ralis import`: a dataset as tasks and annotations of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project

DatasetFolder = Annotated[
    Path,
    typer.Option("--dataset", help="A folder in the layout of `--format png`, or of pictures."),
]


def import_dataset(dataset: DatasetFolder, project: Project) -> None:
    """Upload a dataset's images into a project, with its masks as whole-image annotations.

    Safe to repeat: images that the project has already, told by their pixels, are not uploaded
    again, and a task that has an annotation gets no second one.
    """
    from rich.console import Console

    from ralis_backend.cli.uploads import import_into
    from ralis_backend.offline.datasets import Dataset, plain_folder
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import create_client, create_tool

    settings = load_settings()
    configure_logging("WARNING")
    is_dataset = (dataset / "splits.json").is_file()
    source = Dataset.open(dataset) if is_dataset else plain_folder(dataset)
    client, tool = create_client(settings), create_tool(settings)
    target = tool.project(project)
    console = Console()
    with console.status("Uploading") as status:
        num_images, num_masks = import_into(client, tool, target, source, status.update)
    console.print(f"{num_images} images uploaded and {num_masks} annotated in project {project}")
