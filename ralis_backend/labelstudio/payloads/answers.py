"""Questions to annotators -> controls of the labelling interface; results -> what was answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ralis_backend.online.answers import ANSWER_KINDS, AnswerKind, Choice


@dataclass
class Question:
    """One control for answers: what stands above it, and what can be ticked."""

    title: str = ""
    choices: list[Choice] = field(default_factory=list)


def questions(labels: Sequence[str] = (), background: str | None = None) -> dict[str, Question]:
    """The controls that the interface of regions has for answers, by name, in order.

    Args:
        labels: of the project, for questions that offer them.
        background: the class of unpainted pixels.
    """
    controls: dict[str, Question] = {}
    for kind in ANSWER_KINDS.values():
        question = controls.setdefault(kind.control, Question())
        question.title = question.title or kind.titled(background)
        question.choices += kind.asked(labels, background)
    return controls


def read_answers(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What an annotation's results answer, by kind; what is malformed answers nothing."""
    ticked = list(_ticked(results))
    answers = {}
    for name, kind in ANSWER_KINDS.items():
        texts = {text for control, text in ticked if _is_asked_in(kind, control)}
        value = kind.read(texts)
        if value is not None:
            answers[name] = value
    return answers


def _ticked(results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Each ticked text with its control."""
    for result in results:
        value = result.get("value")
        choices = value.get("choices") if isinstance(value, Mapping) else None
        if result.get("type") == "choices" and isinstance(choices, list):
            control = str(result.get("from_name", "")).rstrip("_")  # as made unique
            yield from ((control, text) for text in choices if isinstance(text, str))


def _is_asked_in(kind: AnswerKind, control: str) -> bool:
    """In the kind's own control; one that the project's owner made may use the same words."""
    return control == kind.control or (bool(kind.choices) and control not in questions())
