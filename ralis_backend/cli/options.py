"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Project = Annotated[int, typer.Option(help="The pool project's number in Label Studio.")]
