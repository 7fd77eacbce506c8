"""What people submitted and does not count, as values: never silently, and never without end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ralis_backend.core.text import shortened

MOST_TEXTS = 20
"""Of one annotation; there may be thousands of strokes."""
MOST_CHARACTERS = 300
MOST_NAMED = 5
"""Annotations that a summary names."""


@dataclass(frozen=True)
class LeftOut:
    """A submitted annotation of which a part, or everything, does not count.

    annotation_id, task_id: in the labelling tool.
    tool_uid: of the tool's project that it stands in, the pool or its regions project.
    is_read: whether the rest of it counts as a label; False: nothing of it does.
    what: what is left out and why, one text per stroke; at least one.
    """

    annotation_id: int
    task_id: int
    tool_uid: str
    is_read: bool
    what: tuple[str, ...]


def bounded(texts: Sequence[str]) -> list[str]:
    """So many texts, and so much of each, as are kept of one annotation."""
    kept = [shortened(text, MOST_CHARACTERS) for text in texts[:MOST_TEXTS]]
    if len(texts) > MOST_TEXTS:
        kept.append(f"and {len(texts) - MOST_TEXTS} more")
    return kept


def summary(in_part: int, not_at_all: int, newest: Sequence[LeftOut]) -> str | None:
    """One sentence for people; None if everything counts.

    Args:
        in_part: annotations of which a part counts.
        not_at_all: annotations of which nothing counts.
        newest: some of them, to be named.
    """
    if not in_part + not_at_all:
        return None
    counted = [
        f"{number} {'annotation was' if number == 1 else 'annotations were'} {how}"
        for number, how in ((in_part, "read in part"), (not_at_all, "not read"))
        if number
    ]
    named = ", ".join(str(it.annotation_id) for it in newest[:MOST_NAMED])
    more = ", ..." if in_part + not_at_all > MOST_NAMED else ""
    return f"{' and '.join(counted)} (id {named}{more}); `ralis status` says why"
