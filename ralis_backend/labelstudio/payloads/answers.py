"""Questions to annotators -> controls of the labelling interface; results -> what was answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ralis_backend.labelstudio.payloads.label_config import REGION_LABEL
from ralis_backend.labelstudio.payloads.results import Result, name_of, objects_of
from ralis_backend.labelstudio.payloads.strokes import is_pasted
from ralis_backend.online.answers import ANSWER_KINDS, REST, USEFUL, AnswerKind, Choice


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


def read_answers(
    results: Sequence[Any], region_label: str = REGION_LABEL, *, is_asked: bool = False
) -> dict[str, Any]:
    """What an annotation's results answer, by kind; what is malformed answers nothing.

    What was ticked for a suggested region alone is an answer about that one; where it was ticked
    for every one of the annotation, it is one about the whole. Pasted ones are none of it where
    there are others.

    Args:
        results: of one annotation, in its order; whatever was sent.
        region_label: of the rectangles that are suggested regions.
        is_asked: whether regions are known without them: then no pasted one answers.
    """
    ticked = _ticked(results)
    objects, _ = without_pasted(objects_of(results)[0], region_label, is_asked=is_asked)
    boxes = [result_id(it) for it in objects if is_region_box(it, region_label)]
    about_boxes = [ticked.get(it, ()) for it in boxes]
    answers = {}
    for name, kind in ANSWER_KINDS.items():
        value = _answer(kind, ticked.get(None, ()))
        if value is None:
            first, *others = [_answer(kind, it) for it in about_boxes] or [None]
            value = first if all(other == first for other in others) else None
        if value is not None:
            answers[name] = value
    return answers


def read_ticks(results: Sequence[Any]) -> dict[str | None, bool]:
    """Whether a tick calls a result not worth labelling, by its id; None: all that is shown.

    Of a result that nobody ticked nothing is said. Where a rest was named it is worth it.
    """
    found = {}
    for about, ticks in _ticked(results).items():
        is_useful, rest = _answer(USEFUL, ticks), _answer(REST, ticks)
        if is_useful is not None or rest is not None:
            found[about] = is_useful is False and rest is None
    return found


_Ticks = Sequence[tuple[str, str]]
"""Ticked texts, each with its control."""


def _ticked(results: Sequence[Any]) -> dict[str | None, _Ticks]:
    """What was ticked, by the result that it is about; None: about the whole annotation.

    A tick for a result has that one's id.
    """
    objects, _ = objects_of(results)
    others = {result_id(it) for it in objects if it.get("type") != "choices"}
    found: dict[str | None, list[tuple[str, str]]] = defaultdict(list)
    for result in objects:
        value = result.get("value")
        choices = value.get("choices") if isinstance(value, Mapping) else None
        if result.get("type") == "choices" and isinstance(choices, list):
            control = str(result.get("from_name", "")).rstrip("_")  # as made unique
            name = result_id(result)
            about = name if name in others else None
            found[about] += ((control, text) for text in choices if isinstance(text, str))
    return dict(found)


def is_region_box(result: Result, region_label: str) -> bool:
    """Whether it is the rectangle of a suggested region, whatever its control is called."""
    value = result.get("value")
    labels = value.get("rectanglelabels") if isinstance(value, Mapping) else None
    is_labelled = isinstance(labels, list) and region_label in labels
    return result.get("type") == "rectanglelabels" and is_labelled


def without_pasted(
    objects: list[Result], region_label: str, *, is_asked: bool
) -> tuple[list[Result], list[str]]:
    """The results but for pasted rectangles, and what is said of these; all where none are own.

    is_asked: whether regions are known without them: then they all go.
    """
    is_box = [is_region_box(it, region_label) for it in objects]
    pasted = [box and is_pasted(it) for it, box in zip(objects, is_box, strict=True)]
    if not any(pasted) or (sum(pasted) == sum(is_box) and not is_asked):
        return objects, []
    why = "is a suggested region that was pasted from another annotation; delete it"
    sorted_out = list(zip(objects, pasted, strict=True))
    left_out = [f"result {name_of(it)} {why}" for it, was_pasted in sorted_out if was_pasted]
    return [it for it, was_pasted in sorted_out if not was_pasted], left_out


def result_id(result: Mapping[str, Any]) -> str | None:
    """The id of a result, None where it is no text."""
    value = result.get("id")
    return value if isinstance(value, str) else None


def _answer(kind: AnswerKind, ticks: _Ticks) -> Any | None:
    return kind.read({text for control, text in ticks if _is_asked_in(kind, control)})


def _is_asked_in(kind: AnswerKind, control: str) -> bool:
    """In the kind's own control; one that the project's owner made may use the same words."""
    return control == kind.control or (bool(kind.choices) and control not in questions())
