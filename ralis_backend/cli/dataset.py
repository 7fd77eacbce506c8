"""`ralis export` and `ralis import`: a project's labels as a dataset, and a dataset as labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Project = Annotated[int, typer.Option(help="The pool project's number in Label Studio.")]
Out = Annotated[Path, typer.Option(help="A folder that does not exist yet, or is empty.")]
Format = Annotated[str, typer.Option("--format", help="png, coco, yolo-seg or hf.")]
Model = Annotated[
    bool, typer.Option("--model", help="Also the segmenter, as safetensors and ONNX, in OUT/model.")
]
DatasetFolder = Annotated[
    Path,
    typer.Option("--dataset", help="A folder in the layout of `--format png`, or of pictures."),
]


def export(project: Project, out: Out, format_name: Format = "png", model: Model = False) -> None:
    """Write what has been labelled so far as a dataset."""
    from rich.console import Console

    from ralis_backend.cli.serve import configure_logging
    from ralis_backend.online.export import export_project
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import create_store, create_tool

    settings = load_settings()
    configure_logging("WARNING")
    store = create_store(settings)
    uid = store.projects.by_tool_id(project).uid
    tool = create_tool(settings)
    console = Console()
    with console.status("Exporting") as status, _refusals():
        count = export_project(
            store,
            tool.image,
            uid,
            out,
            format_name,
            lambda done, total: status.update(f"Exporting: {done} of {total} images"),
            has_model=model,
        )
    console.print(f"{count} images with their masks are in {out}")


def import_dataset(dataset: DatasetFolder, project: Project) -> None:
    """Upload a dataset's images into a project, with its masks as whole-image annotations.

    Safe to repeat: images that the project has already are not uploaded again, and a task that
    has an annotation gets no second one.
    """
    from rich.console import Console

    from ralis_backend.cli.serve import configure_logging
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


@contextmanager
def _refusals() -> Iterator[None]:
    """What the file system refuses is one line, not a traceback."""
    try:
        yield
    except OSError as error:
        raise ValueError(str(error)) from error
