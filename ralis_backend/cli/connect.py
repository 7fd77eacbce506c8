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


def connect(project: Project, mode: Mode = None, backend_url: BackendUrl = None) -> None:
    """Prepare a project completely; safe to repeat."""
    from ralis_backend.core.policy.registry import find_strategy
    from ralis_backend.labelstudio.doctor import DEFAULT_BACKEND_URL
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
    find_strategy(settings.strategy, settings.policies_dir, names, settings.region_size)
    create_setup(settings).connect(pool, settings.mode)
    store = create_store(settings)
    store.projects.register(pool.uid, pool.id, pool.label_config, pool.classes, pool.title)
    store.close()
    title = printable(pool.title)
    typer.echo(f"project {pool.id} ({title}) is connected to {settings.backend_url}")
