"""`ralis doctor`: one project and its surroundings, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.core.text import printable_lines

if TYPE_CHECKING:
    from ralis_backend.labelstudio.doctor import Check, Surroundings
    from ralis_backend.online.store import Store
    from ralis_backend.settings import Settings

OptionalProject = Annotated[
    int | None, typer.Option("--project", help="Also check this project of Label Studio.")
]


OptionalConfig = Annotated[
    Path | None,
    typer.Option(
        "--label-config",
        help="Check this label config alone, an XML file, before anything is connected; no server "
        "is needed.",
    ),
]


def doctor(project: OptionalProject = None, label_config: OptionalConfig = None) -> None:
    """Check everything that commonly fails, and say what to do; exit code 1 if something does."""
    from ralis_backend.labelstudio.config_check import label_config_checks, read_label_config
    from ralis_backend.labelstudio.doctor import checks
    from ralis_backend.settings import load_settings

    settings = load_settings()
    configure_logging("ERROR")
    if label_config is not None:
        xml = read_label_config(label_config)
        _show(label_config_checks(xml, settings.region_label, settings.background_label))
    else:
        _show(checks(create_surroundings(settings, project), project))


def _show(checks: Iterable[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)
    num_failed = 0
    for check in checks:
        mark = "[green]ok  [/green]" if check.is_ok else "[red]FAIL[/red]"
        console.print(f"{mark} {check.name}: {escape(printable_lines(check.detail))}")
        if not check.is_ok:
            num_failed += 1
            console.print(f"     -> {escape(printable_lines(check.fix))}")
    if num_failed:
        console.print(f"{num_failed} to repair")
        raise typer.Exit(1)


def create_surroundings(settings: Settings, project: int | None = None) -> Surroundings:
    """What the checks look at, of a project as well."""
    from ralis_backend import wiring
    from ralis_backend.core.policy.registry import check_usable, unused_policies
    from ralis_backend.labelstudio.doctor import Surroundings
    from ralis_backend.online.wanted import fitting_strategy

    setup, device = wiring.create_setup(settings), _device(settings.device)
    store = wiring.find_store(settings)

    def database() -> str:
        if not wiring.may_have_store(settings):
            return f"{settings.database_file} is not there yet; `ralis connect` makes it"
        wiring.open_store(settings).close()
        return "opens, and its tables are of this release"

    def known_strategy() -> str:
        check_usable(settings.strategy, settings.policies_dir)
        return "; ".join([settings.strategy, *unused_policies(settings.policies_dir)])

    def strategy(class_names: Sequence[str]) -> str:
        said = {} if project is None else setup.extra_params(project)
        return fitting_strategy(said, class_names, wiring.ranking_config(settings, device))

    return Surroundings(
        client=wiring.create_client(settings),
        tool=wiring.create_tool(settings),
        setup=setup,
        backend_url=settings.backend_url,
        headers=wiring.webhook_headers(settings),
        data_dir=settings.data_dir,
        spec=wiring.segmenter_spec(settings),
        background_label=settings.background_label,
        device=device,
        strategy=strategy,
        known_strategy=known_strategy,
        store=store,
        database=database,
        pictures=lambda uid: _pictures(store, uid),
    )


def _device(name: str) -> str:
    """Where segmenters are; one that cannot be used is for the check of the segmenter to tell."""
    from ralis_backend.wiring import find_device

    try:
        return find_device(name)
    except ValueError:
        return name


def _pictures(store: Store | None, uid: str) -> str:
    """How a project's pictures are shown, as the worker has stored it."""
    from ralis_backend.online.pictures import describe_rule

    project = None if store is None else store.projects.find(uid)
    return "the worker has not read them yet" if project is None else describe_rule(project)
