"""`ralis export`: a project's labels as a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project
from ralis_backend.cli.to_the_end import (
    AllLabels,
    UntilConverged,
    check_options,
    train_to_the_end,
)
from ralis_backend.core.text import printable

COCO_FORMATS = {"rle": "coco", "polygon": "coco-polygon"}
"""Formats by what `--coco-segmentation` says."""

Out = Annotated[Path, typer.Option(help="A folder that does not exist yet, or is empty.")]
Format = Annotated[str, typer.Option("--format", help="png, coco, yolo-seg, hf, or a plug-in's.")]
CocoSegmentation = Annotated[
    str | None,
    typer.Option(
        help="With `--format coco`: `rle` (the default), or `polygon` for readers without it."
    ),
]
Model = Annotated[
    bool, typer.Option("--model", help="Also the segmenter, as safetensors and ONNX, in OUT/model.")
]

ModelVersion = Annotated[
    str | None,
    typer.Option("--version", help="With `--model`: of this version instead of the one in use."),
]


def export(
    project: Project,
    out: Out,
    format_name: Format = "png",
    coco_segmentation: CocoSegmentation = None,
    model: Model = False,
    version: ModelVersion = None,
    until_converged: UntilConverged = False,
    all_labels: AllLabels = False,
) -> None:
    """Write what has been labelled so far as a dataset."""
    from rich.console import Console

    from ralis_backend.cli.worker import worker_config
    from ralis_backend.online.export import export_project, refuse_non_empty
    from ralis_backend.online.worker.catching_up import catch_up
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import create_tool, open_store

    format_name = _with_segmentation(format_name, coco_segmentation)
    number = _wanted(model, version, until_converged)
    check_options(until_converged, all_labels)
    settings = load_settings()
    configure_logging("WARNING")
    store = open_store(settings)
    found = store.projects.by_tool_id(project)
    tool = create_tool(settings)
    console = Console()
    if until_converged:
        with _refusals():
            refuse_non_empty(out)
        end = train_to_the_end(settings, store, found, console, all_labels=all_labels)
        number = end.to_export.number
    num_labelled = 0

    def told(done: int, total: int) -> None:
        nonlocal num_labelled
        num_labelled = total
        status.update(f"Exporting: {done} of {total} images")

    with console.status("Reading what is new") as status, _refusals():
        refuse_non_empty(out)
        missing = catch_up(store, tool, worker_config(settings, "cpu"), found)
        count = export_project(
            store,
            tool.image,
            found.uid,
            out,
            format_name,
            told,
            has_model=model,
            model_version=number,
        )
    console.print(
        printable(
            f"{count} images with their masks are in {out}; README.md there says how to load it"
        ),
        markup=False,
    )
    if count < num_labelled:
        console.print(
            f"{num_labelled - count} labelled images could not be read and are not in it, as said "
            "above; export again once they can",
            markup=False,
        )
    if missing:
        console.print(printable(missing), markup=False)


def _wanted(has_model: bool, version: str | None, until_converged: bool) -> int | None:
    """The number of the version that is named; `ValueError` where options do not go together."""
    if not has_model and (version is not None or until_converged):
        raise ValueError("--version and --until-converged go with --model, which exports one")
    if version is None:
        return None
    if until_converged:
        raise ValueError("--until-converged exports what it makes; leave --version out")
    match = re.fullmatch("v([0-9]{1,9})", version)
    if match is None:
        raise ValueError(f"--version is {version!r}, expected a version such as v3")
    return int(match[1])


def _with_segmentation(format_name: str, segmentation: str | None) -> str:
    """The name of the format that has this segmentation."""
    if segmentation is None:
        return format_name
    if segmentation not in COCO_FORMATS:
        raise ValueError(
            f"--coco-segmentation is {segmentation!r}, expected {' or '.join(COCO_FORMATS)}"
        )
    if format_name not in COCO_FORMATS.values():
        raise ValueError(
            f"--coco-segmentation goes with --format coco, not with {format_name!r}; leave it out"
        )
    return COCO_FORMATS[segmentation]


@contextmanager
def _refusals() -> Iterator[None]:
    """What the file system refuses is one line, not a traceback.

    What names the file stays an `OSError`: what was expected of that is said as well.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise ValueError(str(error)) from error
