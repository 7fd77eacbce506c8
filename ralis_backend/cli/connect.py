"""`ralis connect`: a project prepared and known to the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project
from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from ralis_backend.labelstudio.connection import Connected, Connector
    from ralis_backend.online.store import Store
    from ralis_backend.online.tool import ToolProject
    from ralis_backend.settings import Settings

Mode = Annotated[str | None, typer.Option(help="`crops` or `in-place`; default: RALIS_MODE.")]
BackendUrl = Annotated[
    str | None,
    typer.Option(
        help="Where Label Studio reaches the backend; default: RALIS_BACKEND_URL, or "
        "http://localhost:9090."
    ),
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        help="A model version of predictions that the project has: annotators begin with its masks "
        "until a version of our own exists. '' for none."
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
    start_from: StartFrom = None,
    background: Background = None,
    no_background: NoBackground = False,
) -> None:
    """Prepare a project completely; safe to repeat."""
    from dataclasses import replace

    from ralis_backend.labelstudio.connection import Wishes
    from ralis_backend.labelstudio.doctor import DEFAULT_BACKEND_URL
    from ralis_backend.online.background import (
        Kept,
        background_of,
        class_names,
        described,
        said_choice,
    )
    from ralis_backend.online.wanted import fitting_strategy
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import (
        check_segmenter,
        create_client,
        create_setup,
        create_store,
        ranking_config,
    )

    chosen = _chosen(background, no_background)
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
    create_client(settings).whoami()  # nothing is made for a Label Studio that does not answer
    store = create_store(settings)
    connector = create_connector(settings, store)
    pool = connector.pool(project)
    names = [label.name for label in pool.classes]
    known = store.projects.find(pool.uid)
    extra_params = create_setup(settings).extra_params(pool.id)
    choice = said_choice({**extra_params, **chosen}, names)
    before = known.background if known else None
    settled = background_of(
        names,
        before if isinstance(choice, Kept) else choice,
        settings.background_label,
        known.kept_background if known else None,
    )
    classes = class_names(names, settled)
    fitting_strategy(extra_params, classes, ranking_config(settings, "cpu"))
    if start_from:
        connector.check_version(pool, start_from)
    pool = replace(pool, background=settled and settled[0])
    wishes = Wishes(settings.mode, start_from, chosen, settings.background_label, choice)
    connected = connector.connect(pool, wishes)
    lines = _told(settings, store, pool, connected)
    lines.insert(1, f"background: {described(settled, names)}")
    for line in lines:
        typer.echo(printable(line))
    store.close()


def create_connector(settings: Settings, store: Store) -> Connector:
    """What connects and disconnects projects, and tells on standard error what it waits for."""
    from ralis_backend.labelstudio.connection import Connector
    from ralis_backend.wiring import create_client, create_setup, create_tool

    return Connector(
        store,
        create_client(settings),
        create_tool(settings),
        create_setup(settings),
        tell=lambda text: typer.echo(printable(text), err=True),
    )


def _told(settings: Settings, store: Store, pool: ToolProject, connected: Connected) -> list[str]:
    """What was done, where annotators label, when the first tasks come, and what to do next."""
    from ralis_backend.online.status import seconds_since_worker

    number = pool.id
    lines = [
        f"project {number} ({pool.title}) is connected to {settings.backend_url}",
        *connected.notes,
    ]
    if not connected.is_complete:
        lines.append(
            "a worker is at a long step of this project; it brings webhooks and the rest in order "
            "when that is done"
        )
    place = connected.regions_id if settings.mode == "crops" else number
    if place is None:
        lines.append("the worker makes the regions project; `ralis status` names it then")
    else:
        address = settings.label_studio_public_url or settings.label_studio_url
        lines.append(f"annotators label in project {place}: {address}/projects/{place}/data")
    if connected.project.start_from:
        lines.append(
            f"they begin with the masks of {connected.project.start_from}, until a version of our "
            "own exists"
        )
    if seconds_since_worker(store) is None:
        lines.append("next: start `ralis serve` (no worker lives), then")
    images = "the images" if pool.num_tasks is None else f"{pool.num_tasks} images"
    lines += [
        f"the first tasks come when the worker has looked at {images}: about half a minute for "
        f"50 of them; `ralis status --project {number} --watch` shows it",
        f"after {settings.regions_per_round} labelled regions the first training begins by itself",
    ]
    return lines


def _chosen(background: str | None, no_background: bool) -> dict[str, str | bool | None]:
    """The choice as the connection's extra params have it; empty: none was made."""
    if background is not None and no_background:
        raise ValueError("--background and --no-background exclude each other; give one of them")
    if no_background:
        return {"background": False}
    return {} if background is None else {"background": background.strip() or None}
