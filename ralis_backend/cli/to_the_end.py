"""Training to the end, for the commands that offer it: progress, and the result in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ralis_backend.core.learning.course import Course
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Project, Version
    from ralis_backend.online.worker.to_the_end import Ending
    from ralis_backend.settings import Settings

UntilConverged = Annotated[
    bool,
    typer.Option(
        "--until-converged",
        help="Train here and now, until what is held out gains no more by it; takes minutes.",
    ),
]
AllLabels = Annotated[
    bool,
    typer.Option(
        "--all-labels",
        help="With --until-converged: then once more, on what is held out as well, for export.",
    ),
]


def check_options(until_converged: bool, all_labels: bool) -> None:
    """Refuse `--all-labels` alone: nothing would say when to stop."""
    if all_labels and not until_converged:
        raise ValueError("--all-labels goes with --until-converged, which finds when to stop")


def train_to_the_end(
    settings: Settings, store: Store, project: Project, console: Console, *, all_labels: bool
) -> Version:
    """Train, and say what came of it; the version to be exported."""
    from ralis_backend.cli.worker import worker_config
    from ralis_backend.online.worker.catching_up import catch_up
    from ralis_backend.online.worker.to_the_end import ToTheEnd
    from ralis_backend.wiring import create_tool, find_device

    config = worker_config(settings, find_device(settings.device))
    tool = create_tool(settings)
    with console.status("Reading what is new") as status:
        if missing := catch_up(store, tool, config, project):
            console.print(missing, markup=False)
        status.update("Training")

        def on_look(course: Course, score: float) -> None:
            best = 0.0 if course.best_score is None else 100 * course.best_score
            status.update(
                f"Training: {course.updates} updates, mIoU {100 * score:.1f} % on what is held "
                f"out, {best:.1f} % at best, after {course.best_updates}"
            )

        project = store.projects.by_id(project.id)
        end = ToTheEnd(store, tool, config).train(
            project, has_all_labels=all_labels, on_look=on_look
        )
    console.print(_told(project, end), markup=False)
    return end.for_all or end.version


def _told(project: Project, end: Ending) -> str:
    from ralis_backend.online.further import NOT_IN_USE, not_in_use_text

    name = end.version.name
    if not end.best_updates:
        told = f"{name} stays in use: it had converged already"
    elif why := end.version.metrics.get(NOT_IN_USE):
        told = not_in_use_text(name, why)
    else:
        told = f"{name} is in use: it was best after {end.best_updates} more updates"
    if end.for_all is not None:
        told += (
            f"; {end.for_all.name} has learned from all labels, and is for export alone: "
            f"`ralis export --project {project.tool_id} --out DIR --model --version "
            f"{end.for_all.name}`"
        )
    return told
