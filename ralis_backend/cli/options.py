"""Options that several commands have."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

LARGEST_ID = 2**31 - 1
"""That a column of ids holds; Label Studio counts from 1."""
Project = Annotated[
    int, typer.Option(min=1, max=LARGEST_ID, help="The pool project's number in Label Studio.")
]

LARGEST_SEED = 2**32 - 1
"""As of `RALIS_SEED`; every generator takes it."""
MOST_AT_ONCE = 1024
"""Threads or processes: more than machines have cores, fewer than end them for want of memory."""


def strategy_names(text: str) -> list[str]:
    """Names between commas; one that has a comma stands in quotes.

    Raises:
        ValueError: if there is none, or a quote is not closed.
    """
    try:
        (row,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise ValueError(
            f"--strategies {text!r} is no list ({error}); expected names with commas in between, "
            'those with a comma in quotes: random,"presence:Car, red"'
        ) from error
    names = [name.strip() for name in row if name.strip()]
    if not names:
        raise ValueError("no strategy is named; give some, as random,entropy")
    return names


def without_suffix(out: Path) -> Path:
    """The path, where it names no single file.

    Raises:
        ValueError: if it has no name, or ends in the suffix of one of the files that are written.
    """
    if out.name in ("", ".."):
        raise ValueError(
            f"--out {str(out)!r} has no name that files could begin with; expected a path such as "
            f"{out / 'NAME'}"
        )
    if out.suffix in (".safetensors", ".json"):
        raise ValueError(
            f"--out {out}: two files are written, NAME.safetensors and NAME.json; leave out "
            f"{out.suffix}"
        )
    return out
