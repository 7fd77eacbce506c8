"""`ralis connect`: a project prepared and known to the backend."""

from __future__ import annotations

from typing import Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project
from ralis_backend.core.text import printable

Mode = Annotated[str | None, typer.Option(help="`crops` or `in-place`; default: RALIS_MODE.")]
BackendUrl = Annotated[
    str | None,
    typer.Option(
        help="Where Label Studio reaches the backend; default: RALIS_BACKEND_URL, or "
        "http://localhost:9090."
    ),
]


Background = Annotated[
    str | None,
    typer.Option(
        help="What unpainted pixels of a submitted region are: one of the labels, or a new name; "
        "empty: as usual."
    ),
]
NoBackground = Annotated[
    bool, typer.Option("--no-background", help="Unpainted pixels of a region say nothing.")
]


def connect(
    project: Project,
    mode: Mode = None,
    backend_url: BackendUrl = None,
    background: Background = None,
    no_background: NoBackground = False,
) -> None:
    """Prepare a project completely; safe to repeat."""
    from dataclasses import replace

    from ralis_backend.core.policy.registry import find_strategy
    from ralis_backend.labelstudio.doctor import DEFAULT_BACKEND_URL
    from ralis_backend.online.background import (
        Kept,
        background_of,
        class_names,
        described,
        said_choice,
    )
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import check_segmenter, create_setup, create_store, create_tool

    settings = load_settings(mode=mode, backend_url=backend_url)
    configure_logging("WARNING")
    if settings.backend_url is None:
        settings = load_settings(mode=mode, backend_url=DEFAULT_BACKEND_URL)
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
    pool = create_tool(settings).project(project)
    names = [label.name for label in pool.classes]
    chosen = _chosen(background, no_background)
    setup, store = create_setup(settings), create_store(settings)
    known = store.projects.find(pool.uid)
    choice = said_choice({**setup.extra_params(pool.id), **chosen}, names)
    before = known.background if known else None
    settled = background_of(
        names,
        before if isinstance(choice, Kept) else choice,
        settings.background_label,
        known.kept_background if known else None,
    )
    classes = class_names(names, settled)
    find_strategy(settings.strategy, settings.policies_dir, classes, settings.region_size)
    pool = replace(pool, background=settled and settled[0])
    setup.connect(pool, settings.mode, chosen)
    store.projects.register(
        pool.uid,
        pool.id,
        pool.label_config,
        pool.classes,
        pool.title,
        settings.background_label,
        choice,
    )
    store.close()
    title = printable(pool.title)
    typer.echo(f"project {pool.id} ({title}) is connected to {settings.backend_url}")
    typer.echo(f"background: {printable(described(settled, names))}")


def _chosen(background: str | None, no_background: bool) -> dict[str, str | bool | None]:
    """The choice as the connection's extra params have it; empty: none was made."""
    if background is not None and no_background:
        raise ValueError("--background and --no-background exclude each other; give one of them")
    if no_background:
        return {"background": False}
    return {} if background is None else {"background": background.strip() or None}
