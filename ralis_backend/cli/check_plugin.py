"""`ralis check-plugin`: what plug-ins bring along, tested."""

from __future__ import annotations

from typing import Annotated

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.core.text import printable_lines

Package = Annotated[
    str | None,
    typer.Argument(help="An installed package, by the name that pip knows; by default all."),
]


def check_plugin(package: Package = None) -> None:
    """Test what installed plug-ins bring along; exit code 1 if something fails."""
    from rich.console import Console
    from rich.markup import escape

    from ralis_backend.cli.conformance import findings

    configure_logging("CRITICAL")  # what a registry leaves out is said below
    console = Console(soft_wrap=True, highlight=False)
    num_things = num_failed = 0
    for finding in findings(package):
        num_things += 1
        num_failed += bool(finding.faults)
        mark = "[red]FAIL[/red]" if finding.faults else "[green]ok  [/green]"
        console.print(f"{mark} {escape(printable_lines(finding.title))}")
        for fault in finding.faults:
            console.print(f"     -> {escape(printable_lines(fault))}")
    if not num_things:
        console.print("no plug-in is installed")
    if num_failed:
        console.print(f"{num_failed} of {num_things} to repair")
        raise typer.Exit(1)
