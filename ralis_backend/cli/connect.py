"""`ralis connect`, `ralis doctor` and `ralis versions`: one project and its surroundings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ralis_backend.settings import Settings

Project = Annotated[int, typer.Option(help="The pool project's number in Label Studio.")]
OptionalProject = Annotated[
    int | None, typer.Option("--project", help="Also check this project of Label Studio.")
]
Mode = Annotated[str | None, typer.Option(help="`crops` or `in-place`; default: RALIS_MODE.")]
BackendUrl = Annotated[
    str | None,
    typer.Option(
        help="Where Label Studio reaches the backend; default: RALIS_BACKEND_URL, or "
        "http://localhost:9090."
    ),
]
Rollback = Annotated[str | None, typer.Option(help="Use this version again, e.g. v2.")]


def connect(project: Project, mode: Mode = None, backend_url: BackendUrl = None) -> None:
    """Prepare a project completely; safe to repeat."""
    from ralis_backend.core.policy.registry import find_strategy
    from ralis_backend.labelstudio.doctor import DEFAULT_BACKEND_URL
    from ralis_backend.wiring import check_segmenter, create_store, create_tool

    settings = _settings(mode=mode, backend_url=backend_url)
    if settings.backend_url is None:
        settings = _settings(mode=mode, backend_url=DEFAULT_BACKEND_URL)
    if settings.api_key is None:
        raise ValueError(
            "LABEL_STUDIO_API_KEY is not set; copy a token from Label Studio's Account & Settings "
            "into .env"
        )
    if settings.auth_token is not None and settings.auth_password is None:
        raise ValueError(
            "Label Studio cannot send RALIS_AUTH_TOKEN; set RALIS_AUTH_USER and "
            "RALIS_AUTH_PASSWORD for it as well"
        )
    check_segmenter(settings)
    tool = create_tool(settings)
    names = [label.name for label in tool.project(project).classes]
    find_strategy(settings.strategy, settings.policies_dir, names, settings.region_size)
    pool = tool.connect(project, settings.mode)
    store = create_store(settings)
    store.register(pool.uid, pool.id, pool.label_config, pool.classes, pool.title)
    store.close()
    typer.echo(f"project {pool.id} ({pool.title}) is connected to {settings.backend_url}")


def doctor(project: OptionalProject = None) -> None:
    """Check everything that commonly fails, and say what to do; exit code 1 if something does."""
    from rich.console import Console
    from rich.markup import escape

    from ralis_backend.labelstudio.doctor import checks
    from ralis_backend.wiring import create_surroundings

    console = Console(soft_wrap=True, highlight=False)
    num_failed = 0
    for check in checks(create_surroundings(_settings("ERROR")), project):
        mark = "[green]ok  [/green]" if check.is_ok else "[red]FAIL[/red]"
        console.print(f"{mark} {check.name}: {escape(check.detail)}")
        if not check.is_ok:
            num_failed += 1
            console.print(f"     -> {escape(check.fix)}")
    if num_failed:
        console.print(f"{num_failed} to repair")
        raise typer.Exit(1)


def versions(project: Project, rollback: Rollback = None) -> None:
    """List the model's versions, or go back to one."""
    from rich.console import Console

    from ralis_backend.online.learner import Learner
    from ralis_backend.online.report import notes
    from ralis_backend.wiring import create_store, ranking_config

    settings = _settings()
    store = create_store(settings)
    uid = store.project_by_tool_id(project).uid
    learner = Learner(store, ranking_config(settings, "cpu"), image=None)
    if rollback is not None:
        learner.rollback(uid, rollback)
        typer.echo(f"project {project} goes back to {rollback}; the worker publishes it")
    made = learner.versions(uid)
    store.close()
    console = Console()
    console.print(_table(made))
    for line in notes([(version["version"], version["metrics"] or {}) for version in made]):
        console.print(line, markup=False)


def _settings(log_level: str = "WARNING", **overrides: Any) -> Settings:
    from ralis_backend.cli.serve import configure_logging
    from ralis_backend.settings import load_settings

    settings = load_settings(**overrides)
    configure_logging(log_level)
    return settings


def _table(versions: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    from ralis_backend.online.report import slice_text

    table = Table("", "version", "labelled regions", "validation mIoU")
    for name in ("pixels right on random regions", "strategy", "made", "accepted"):
        table.add_column(name)
    for version in versions:
        metrics = version["metrics"] or {}
        mean_iou = metrics.get("validation_miou")
        table.add_row(
            "→" if version["is_current"] else "",
            version["version"],
            str(version["labelled_regions"]),
            "" if mean_iou is None else f"{mean_iou:.3f}",
            slice_text(metrics),
            str(version["strategy"] or ""),
            version["created_at"][:16].replace("T", " "),
            "yes" if version["is_accepted"] else "no",
        )
    return table
