"""One thing that the doctor looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and what to do if it is wrong."""

    name: str
    is_ok: bool
    detail: str
    fix: str = ""


def tried(name: str, look: Callable[[], str], fix: str) -> Check:
    """A check that passes with what `look` says, and fails with what it raises."""
    try:
        return Check(name, True, look())
    except Exception as error:
        return Check(name, False, str(error), fix)
