"""Harm that is known and not mended yet: step, kind and what comes of it. Empty is the aim."""

from __future__ import annotations

from fnmatch import fnmatch

from tests.faults.endure import Outcome

KNOWN: tuple[tuple[str, str, str], ...] = (
    # A publishing that is repeated after the new order was noted takes other tasks out.
    ("publish", "*", "differs"),
    # What cannot be read for a moment is left out of one training or ranking, and learned later.
    ("train", "memory", "differs"),
    ("train", "eio", "differs"),
    ("rank", "memory", "differs"),
    ("rank", "eio", "differs"),
)


def is_known(outcome: Outcome) -> bool:
    """Whether all that came of a fault is known."""
    place = (outcome.case.point.step, outcome.case.fault.kind)
    effects = {problem.split(":")[0] for problem in outcome.problems}
    return all(
        any(all(map(fnmatch, (*place, effect), pattern)) for pattern in KNOWN) for effect in effects
    )
