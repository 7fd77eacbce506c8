from __future__ import annotations

import re
from typing import Any

import pytest

from ralis_backend.labelstudio.payloads.answers import read_answers
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.regions_config import regions_config
from ralis_backend.online.answers import ANSWER_KINDS, AnswerKind, Choice

QUESTIONS = """\
      <Choices name="feedback" toName="image" choice="single" showInline="true">
        <Choice value="Useful" hotkey="0" />
        <Choice value="Not worth labelling" hotkey="n" />
      </Choices>
    </View>
  </View>
"""


def ticked(*texts: str, control: str = "feedback") -> dict[str, Any]:
    return {"id": "f", "from_name": control, "type": "choices", "value": {"choices": [*texts]}}


def interface() -> str:
    control = '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels>'
    config = f'<View><Image name="image" value="$image"/>{control}</View>'
    return regions_config(parse_label_config(config))


def test_the_interface_asks_whether_a_region_was_useful_in_the_words_that_it_always_had():
    assert interface().count("<Choices") == 1
    assert QUESTIONS in interface()


def test_what_was_ticked_is_read_by_kind():
    stroke = {"id": "s", "type": "brushlabels", "value": {"rle": []}}
    assert read_answers([stroke, ticked("Useful")]) == {"useful": True}
    assert read_answers([stroke, ticked("Not worth labelling")]) == {"useful": False}
    assert read_answers([stroke]) == {}


def test_a_control_that_had_to_be_renamed_and_one_of_the_project_s_owner_are_read():
    assert read_answers([ticked("Useful", control="feedback__")]) == {"useful": True}
    assert read_answers([ticked("Not worth labelling", control="mine")]) == {"useful": False}
    nameless = {"type": "choices", "value": {"choices": ["Useful"]}}
    assert read_answers([nameless]) == {"useful": True}


@pytest.mark.parametrize("value", [None, 3, {}, {"choices": None}, {"choices": [None, {}, 1]}])
def test_a_malformed_choice_answers_nothing(value):
    assert read_answers([{"type": "choices", "value": value}]) == {}


def test_a_question_of_another_package_is_asked_and_read(monkeypatch: pytest.MonkeyPatch):
    choices = (Choice("Right", "y", True), Choice("Useful", "z", False))
    monkeypatch.setitem(ANSWER_KINDS, "right", AnswerKind("right", choices, "verdict"))
    assert '<Choices name="verdict" toName="image" choice="single"' in interface()
    assert '<Choice value="Right" hotkey="y" />' in interface()
    assert read_answers([ticked("Useful"), ticked("Right", control="verdict")]) == {
        "useful": True,
        "right": True,
    }
    assert read_answers([ticked("Useful", control="verdict")]) == {"right": False}


def test_labels_leave_their_keys_to_questions(monkeypatch: pytest.MonkeyPatch):
    choices = (Choice("Sharp", "2", True), Choice("Blurred", "y", False))
    monkeypatch.setitem(ANSWER_KINDS, "sharp", AnswerKind("sharp", choices, "sharpness"))
    labels = "".join(f'<Label value="class {index}"/>' for index in range(30))
    pool = f'<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i">{labels}'
    shown = regions_config(parse_label_config(f"{pool}</BrushLabels></View>"))
    keys = re.findall('hotkey="(.)"', shown)
    assert len(keys) == len(set(keys))
    assert {"1", "2", "y"} < set(keys)
    assert '<Label value="class 1" background' in shown
    assert re.search('value="class 1" [^>]*hotkey="3"', shown)
