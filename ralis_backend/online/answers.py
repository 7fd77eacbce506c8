"""What annotators say about a region besides paint, and the registry of what they are asked.

A new question is one entry of `ANSWER_KINDS`, made here or by another package: it stands in the
regions project, its answers are stored, and the export has a column for them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ralis_backend.core.regions import Region


@dataclass(frozen=True)
class Answer:
    """One answer, with where it came from.

    `value` is a JSON value that its kind gives a meaning to. `region` is None where the whole image
    was shown; `version` is that of the mask that was shown, None without one. `seconds` is what the
    whole annotation took, None if unknown.
    """

    kind: str
    value: Any
    image_id: int
    region: Region | None
    annotation_row_id: int
    annotator: str
    answered_at: datetime
    seconds: float | None
    version: int | None


@dataclass(frozen=True)
class Choice:
    """One thing to tick: the text and the key that annotators have for it, and what it means."""

    text: str
    hotkey: str
    value: Any


@dataclass(frozen=True)
class AnswerKind:
    """A question that is answered by ticking one of its choices.

    Args:
        name: under which its answers are stored and exported.
        choices: in the order in which they are shown.
        control: the tool's control that the choices stand in; kinds may share one.
    """

    name: str
    choices: tuple[Choice, ...]
    control: str = "feedback"

    def read(self, ticked: Collection[str]) -> Any | None:
        """The answer that these texts give, None for none; of several choices the last counts."""
        values = [choice.value for choice in self.choices if choice.text in ticked]
        return values[-1] if values else None


USEFUL = AnswerKind(
    "useful", (Choice("Useful", "0", True), Choice("Not worth labelling", "n", False))
)
"""Whether a label in the region was worth the annotator's time."""

ANSWER_KINDS: dict[str, AnswerKind] = {kind.name: kind for kind in (USEFUL,)}
