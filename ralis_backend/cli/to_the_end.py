"""Training to the end, for the commands that offer it: progress, and the result in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ralis_backend.core.learning.course import Course
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Project
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
) -> Ending:
    """Train, and say what came of it."""
    from ralis_backend.cli.supervisor import stopping_on_signals
    from ralis_backend.cli.worker import worker_config
    from ralis_backend.online.worker.catching_up import catch_up
    from ralis_backend.online.worker.to_the_end import ToTheEnd
    from ralis_backend.wiring import create_tool, find_device

    config = worker_config(settings, find_device(settings.device))
    tool = create_tool(settings)
    with console.status("Reading what is new") as status:
        if missing := catch_up(store, tool, config, project):
            console.print(printable(missing), markup=False)
        status.update("Training")

        def on_look(course: Course, score: float) -> None:
            best = 0.0 if course.best_score is None else 100 * course.best_score
            status.update(
                f"Training: {course.updates} updates, mIoU {100 * score:.1f} % on what is held "
                f"out, {best:.1f} % at best, after {course.best_updates}"
            )

        project = store.projects.by_id(project.id)
        with stopping_on_signals() as stop:
            end = ToTheEnd(store, tool, config).train(
                project, has_all_labels=all_labels, should_stop=stop.is_set, on_look=on_look
            )
    console.print(_told(project, end), markup=False)
    return end


def _told(project: Project, end: Ending) -> str:
    told = _told_of_use(end)
    if end.is_stopped:
        told = f"Stopped before the end; the same command goes on from the best so far. {told}"
    if end.for_all is not None:
        told += (
            f"; {end.for_all.name} has learned from all labels, and is for export alone: "
            f"`ralis export --project {project.tool_id} --out DIR --model --version "
            f"{end.for_all.name}`"
        )
    return told


def _told_of_use(end: Ending) -> str:
    """Which version is in use, and why."""
    from ralis_backend.online.further import NOT_IN_USE, not_in_use_text

    name, start = end.version.name, end.start.name
    if why := end.version.metrics.get(NOT_IN_USE):
        return not_in_use_text(name, why)
    if end.is_better:
        return f"{name} is in use: it was best after {end.best_updates} more updates"
    if name != start:
        return (
            f"{name} stays in use, which came meanwhile: what was trained on from {start} is no "
            "better on what is held out"
        )
    if end.best_updates:
        return f"{name} stays in use: what was trained is not better by the gate's measure"
    return f"{name} stays in use: " + (
        "nothing was better yet" if end.is_stopped else "it had converged already"
    )
