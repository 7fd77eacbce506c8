"""`ralis bench`: our implementation against the numbers of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check our implementation against others.", no_args_is_help=True)

GoldenFile = Annotated[
    Path, typer.Argument(metavar="FILE.npz", help="Numbers of the RALIS authors' code.")
]
Tolerance = Annotated[
    float, typer.Option(min=0, help="Largest difference allowed, except of histograms.")
]
HistogramTolerance = Annotated[
    float, typer.Option(min=0, help="Largest mean total variation of histograms allowed.")
]


@app.callback()
def bench() -> None:
    """Check our implementation against others."""


@app.command("golden")
def golden(
    file: GoldenFile, tolerance: Tolerance = 1e-4, histogram_tolerance: HistogramTolerance = 1e-3
) -> None:
    """Compare our RALIS features and query network with the authors', as JSON.

    Exit code 1 if a block differs by more than the tolerance.
    """
    from ralis_backend.offline.golden import compare

    differences = compare(file, tolerance, histogram_tolerance)
    passed = all(difference.is_within for difference in differences)
    blocks = {
        difference.block: {
            "max_difference": difference.max_difference,
            "mean_total_variation": difference.mean_total_variation,
            "tolerance": difference.tolerance,
            "is_within": difference.is_within,
        }
        for difference in differences
    }
    typer.echo(json.dumps({**blocks, "passed": passed}, indent=2))
    if not passed:
        raise typer.Exit(1)
