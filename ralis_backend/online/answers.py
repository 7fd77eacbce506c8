"""What annotators say about a region besides paint, and the registry of what they are asked.

A new question is one entry of `ANSWER_KINDS`, made here or by another package: it stands in the
regions project, its answers are stored, and the export has a column for them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ralis_backend.core.regions import Region
from ralis_backend.core.registry import Registry


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
        title: stands above its choices; empty: they say enough.
    """

    name: str
    choices: tuple[Choice, ...]
    control: str = "feedback"
    title: str = ""

    def asked(self, labels: Sequence[str], background: str | None) -> tuple[Choice, ...]:
        """The choices in a project with these labels, and this class for unpainted pixels."""
        return self.choices

    def titled(self, background: str | None) -> str:
        """The title in such a project."""
        return self.title

    def read(self, ticked: Collection[str]) -> Any | None:
        """The answer that these texts give, None for none; of several choices the last counts."""
        values = [choice.value for choice in self.choices if choice.text in ticked]
        return values[-1] if values else None


@dataclass(frozen=True)
class LabelQuestion(AnswerKind):
    """A question whose choices are the project's labels; the answer is a label's name.

    It is read from its own control alone, since anybody may use the words.
    """

    choices: tuple[Choice, ...] = ()

    def asked(self, labels: Sequence[str], background: str | None) -> tuple[Choice, ...]:
        """Each label but the background, which is the answer of who ticks nothing."""
        return tuple(Choice(name, "", name) for name in labels if name != background)

    def titled(self, background: str | None) -> str:
        """With what holds when nothing is ticked."""
        return f"{self.title} (else {background})" if background else self.title

    def read(self, ticked: Collection[str]) -> Any | None:
        """The text that was ticked, whatever it is: labels come and go."""
        return next(iter(sorted(ticked)), None)


USEFUL = AnswerKind(
    "useful", (Choice("Useful", "0", True), Choice("Not worth labelling", "n", False))
)
"""Whether a label in the region was worth the annotator's time."""

REST = LabelQuestion("rest", control="rest", title="All that is left unpainted is")
"""Which class the unpainted pixels of this one region are: nobody has to fill it with a brush."""

ANSWER_KINDS: Registry[AnswerKind] = Registry("answer", "ralis_backend.answers")
"""Kinds of answers by their names."""
for _each in (REST, USEFUL):
    ANSWER_KINDS.register(_each.name, _each)
