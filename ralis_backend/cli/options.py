"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Project = Annotated[int, typer.Option(help="The pool project's number in Label Studio.")]


def without_suffix(out: Path) -> Path:
    """The path, where it names no single file.

    Raises:
        ValueError: if it ends in the suffix of one of the files that are written.
    """
    if out.suffix in (".safetensors", ".json"):
        raise ValueError(
            f"--out {out}: two files are written, NAME.safetensors and NAME.json; leave out "
            f"{out.suffix}"
        )
    return out
