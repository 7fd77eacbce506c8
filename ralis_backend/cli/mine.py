"""`ralis mine`: more of one class, begun, looked at and ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import Project
from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ralis_backend.online.choosing import RankingConfig
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Project as ProjectRow
    from ralis_backend.online.wanted import Wanted

Class = Annotated[str | None, typer.Option("--class", help="The class to find more of.")]
Count = Annotated[
    int | None, typer.Option(help="Mined regions to be labelled; without it, until --stop.")
]
Share = Annotated[float | None, typer.Option(help="Of each round, from 0.001 to 1 (default).")]
Strategy = Annotated[
    str | None, typer.Option(help="What looks for the class; see docs/mining.md for the choice.")
]
Example = Annotated[
    list[str] | None,
    typer.Option(
        "--example",
        help="task:ID of a picture or region that shows the class; may be given several times.",
    ),
]
Like = Annotated[str | None, typer.Option(help="A labelled class that the sought one looks like.")]
Stop = Annotated[
    bool, typer.Option("--stop", help="End the search; labels stay, tasks that nobody began leave.")
]


def mine(
    project: Project,
    class_name: Class = None,
    count: Count = None,
    share: Share = None,
    strategy: Strategy = None,
    example: Example = None,
    like: Like = None,
    stop: Stop = False,
) -> None:
    """Find more of one class, say how the search stands, or end it."""
    from ralis_backend.online.wanted import Wanted
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import open_store, ranking_config

    others = {
        "--count": count,
        "--share": share,
        "--strategy": strategy,
        "--example": example or None,
        "--like": like,
    }
    _check_options(class_name, [name for name, it in others.items() if it is not None], stop)
    settings = load_settings()
    configure_logging("ERROR")
    store = open_store(settings)
    found = store.projects.by_tool_id(project)
    if class_name is not None:
        wanted = Wanted(
            class_name, count, 1.0 if share is None else share, strategy, example or (), like
        )
        lines = _begun(store, found, wanted, ranking_config(settings, "cpu"))
    else:
        lines = _ended(store, found) if stop else _standing(store, found)
    for line in lines:
        typer.echo(printable(line))
    store.close()


def _check_options(class_name: str | None, others: Sequence[str], stop: bool) -> None:
    if stop and (class_name is not None or others):
        given = ["--class", *others] if class_name is not None else others
        raise ValueError(f"--stop ends a search; leave out {', '.join(given)}")
    if class_name is None and others:
        raise ValueError(f"{', '.join(others)} need --class, the name of the class to find more of")


def _begun(
    store: Store, project: ProjectRow, wanted: Wanted, config: RankingConfig
) -> Iterator[str]:
    from ralis_backend.online.status import seconds_since_worker
    from ralis_backend.online.wanted import check_known, make_wish, remarks

    number = project.tool_id
    if project.is_deleted:
        raise ValueError(
            f"project {number} is not connected any more; run `ralis connect --project {number}`"
        )
    wish = make_wish(store, project, wanted, config)
    check_known(store, project, wish)
    told = list(remarks(store, project, wish, config))
    before = store.wishes.standing(project.id)
    store.wishes.begin(wish)
    if before is not None:
        yield f"project {number} does not look for {before.class_name} any more"
    regions = "until it is ended" if wish.count is None else f"{wish.count} regions"
    yield f"project {number} looks for {wish.class_name}, {regions}"
    yield from told
    yield (
        "the worker looks at the pool once more, without a training, and then makes the tasks; "
        f"`ralis status --project {number} --watch` shows it"
    )
    if seconds_since_worker(store) is None:
        yield "no worker lives: start `ralis serve` or `ralis worker`"


def _ended(store: Store, project: ProjectRow) -> Iterator[str]:
    from ralis_backend.online.hits import wish_lines, wish_status
    from ralis_backend.online.store.wishes import STOPPED

    wish = store.wishes.standing(project.id)
    if wish is None:
        raise ValueError(f"project {project.tool_id} looks for no class: there is nothing to stop")
    store.wishes.end(wish.id, STOPPED)
    yield f"project {project.tool_id} does not look for {wish.class_name} any more"
    version = store.versions.find(project.id, project.current_version)
    status = wish_status(project, version, wish, store.labels.of(project.id))
    yield from (f"  {line}" for line in wish_lines(status))
    yield "the worker takes out the mined tasks that nobody has begun; what is labelled stays"


def _standing(store: Store, project: ProjectRow) -> Iterator[str]:
    from ralis_backend.online.hits import wish_lines, wish_status

    every = store.wishes.all(project.id)
    if not every:
        yield (
            f"project {project.tool_id} has looked for no class so far; `ralis mine --project "
            f"{project.tool_id} --class NAME --count 200` finds more of one"
        )
    version = store.versions.find(project.id, project.current_version)
    labels = store.labels.of(project.id)
    for wish in every:
        first, *others = wish_lines(wish_status(project, version, wish, labels))
        state = "now" if wish.ended_at is None else f"until {wish.ended_at:%Y-%m-%d %H:%M} UTC"
        yield f"{wish.begun_at:%Y-%m-%d %H:%M} UTC, {state}: {first}"
        yield from (f"  {line}" for line in others)
