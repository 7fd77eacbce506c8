"""What the demo is doing: a bar on a terminal, plain lines where nothing can be drawn over."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

SECONDS_BETWEEN_LINES = 15.0
"""A step whose numbers alone change is told of so often."""


class Step(Protocol):
    """One step while it is done."""

    def tell(self, text: str | None = None, completed: float | None = None) -> None:
        """Say what it does now, if that changed, and how far it is, if that is known."""


@contextmanager
def step(
    console: Console,
    text: str,
    total: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Step]:
    """A step that is shown while the block runs.

    Args:
        console: where it is shown.
        text: what is done.
        total: what `completed` is when it is done; None where nobody knows.
        clock: seconds, for what is no terminal.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(console, text, total, clock)
        return
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
    ]
    if total is not None:
        columns += [BarColumn(), TextColumn("{task.percentage:>3.0f}%")]
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as shown:
        yield _Bar(shown, text, total)


class _Bar:
    def __init__(self, shown: Progress, text: str, total: float | None) -> None:
        self._shown, self._line = shown, shown.add_task(text, total=total)

    def tell(self, text: str | None = None, completed: float | None = None) -> None:
        self._shown.update(self._line, description=text, completed=completed)


class _Lines:
    """A line when something else is done, and now and then how far it is."""

    def __init__(
        self, console: Console, text: str, total: float | None, clock: Callable[[], float]
    ) -> None:
        self._console, self._total, self._clock = console, total, clock
        self._text, self._kind, self._told_at = text, _kind(text), clock()
        self._console.print(f"{text} …", markup=False, soft_wrap=True)

    def tell(self, text: str | None = None, completed: float | None = None) -> None:
        self._text = text or self._text
        is_other = _kind(self._text) != self._kind
        if not is_other and self._clock() - self._told_at < SECONDS_BETWEEN_LINES:
            return
        self._kind, self._told_at = _kind(self._text), self._clock()
        share = "" if not self._total or completed is None else f" ({completed / self._total:.0%})"
        self._console.print(f"{self._text} …{share}", markup=False, soft_wrap=True)


def _kind(text: str) -> str:
    """The text without its numbers."""
    return re.sub(r"[\d.]+", "", text)
