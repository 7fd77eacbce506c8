from __future__ import annotations

import re
from typing import Any

import pytest

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads.answers import (
    read_answers,
    read_ticks,
)
from ralis_backend.labelstudio.payloads.boxes import read_boxes, read_refusals
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.regions_config import asks_everything, regions_config
from ralis_backend.labelstudio.payloads.strokes import OWNER
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


def rectangle(name: str, label: str) -> dict[str, Any]:
    return {"id": name, "type": "rectanglelabels", "value": {"rectanglelabels": [label]}}


def interface() -> str:
    control = '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels>'
    config = f'<View><Image name="image" value="$image"/>{control}</View>'
    return regions_config(parse_label_config(config))


def test_the_interface_asks_whether_a_region_was_useful_in_the_words_that_it_always_had():
    assert interface().count("<Choices") == 2
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


def test_what_is_ticked_for_one_rectangle_is_no_answer_about_the_others():
    boxes = [rectangle(name, "Suggested region") for name in ("a", "b")]
    refusals = [ticked("Not worth labelling") | {"id": name} for name in ("a", "b")]
    assert read_answers([*boxes, refusals[0]]) == {}
    assert read_ticks([*boxes, refusals[0]]) == {"a": True}
    assert read_answers([*boxes, *refusals]) == {"useful": False}
    assert read_answers([*boxes, refusals[0], ticked("Useful") | {"id": "b"}]) == {}
    assert read_answers([*boxes, refusals[0], ticked("Useful")]) == {"useful": True}
    assert read_answers([*boxes, refusals[0] | {"id": ["a"]}]) == {"useful": False}
    rest = ticked("Soil", control="rest") | {"id": "a"}
    assert read_ticks([*boxes, refusals[0], rest]) == {"a": False}
    assert read_ticks([*boxes, ticked("Useful") | {"id": "b"}, ticked("Not worth labelling")]) == {
        "b": False,
        None: True,
    }


def test_a_pasted_box_takes_no_answer_from_the_regions_that_were_suggested():
    value = {"rectanglelabels": ["Suggested region"]}
    own, pasted = (
        {"id": name, "type": "rectanglelabels", "value": value, "meta": {OWNER: "own"}}
        for name in ("own", "pasted")
    )
    sky = ticked("sky", control="rest")
    assert read_answers([own, sky | {"id": "own"}, pasted]) == {"rest": "sky"}
    assert read_answers([own, pasted, sky | {"id": "pasted"}]) == {}
    assert read_answers([pasted, sky | {"id": "pasted"}]) == {"rest": "sky"}
    assert read_answers([pasted, sky | {"id": "pasted"}], is_asked=True) == {}


def test_a_rectangle_that_is_no_suggested_region_is_answered_for_itself_alone():
    own, refusal = rectangle("a", "Object"), ticked("Not worth labelling") | {"id": "a"}
    assert read_answers([own, refusal]) == {}
    assert read_answers([own, refusal], "Object") == {"useful": False}
    suggested = rectangle("b", "Suggested region")
    assert read_answers([own, refusal, suggested, ticked("Useful") | {"id": "b"}]) == {
        "useful": True
    }


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


def field(*names: str, background: str | None = None) -> str:
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    control = f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'
    pool = f'<View><Image name="image" value="$image"/>{control}</View>'
    return regions_config(parse_label_config(pool), background)


def choices(xml: str, control: str) -> list[str]:
    found = re.search(f'<Choices name="{control}".*?</Choices>', xml, re.DOTALL)
    return re.findall('<Choice value="(.*?)"', found[0]) if found else []


def test_the_rest_of_a_region_is_asked_in_the_project_s_own_labels():
    shown = field("Soil", "Crop", "Weed")
    assert choices(shown, "rest") == ["Soil", "Crop", "Weed"]
    assert '<Header value="All that is left unpainted is" size="6" />' in shown
    with_background = field("Soil", "Crop", background="Soil")
    assert choices(with_background, "rest") == ["Crop"]
    assert 'value="All that is left unpainted is (else Soil)"' in with_background
    assert choices(field("Crack", background="Background"), "rest") == ["Crack"]
    assert 'layout="select"' in field("a", "b", "c", "d", "e")


def test_the_interface_is_made_anew_when_labels_or_background_change():
    def config(*names: str) -> Any:
        labels = "".join(f'<Label value="{name}"/>' for name in names)
        control = f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'
        return parse_label_config(f'<View><Image name="image" value="$image"/>{control}</View>')

    shown = field("Soil", "Crop", background="Soil")
    assert asks_everything(shown, config("Soil", "Crop"), "Soil")
    assert not asks_everything(shown, config("Soil", "Crop"), None)
    assert not asks_everything(shown, config("Soil", "Crop", "Weed"), "Soil")


def test_the_rest_is_read_from_its_own_control_alone():
    assert read_answers([ticked("Soil", control="rest")]) == {"rest": "Soil"}
    assert read_answers([ticked("Soil", control="rest_")]) == {"rest": "Soil"}
    assert read_answers([ticked("Soil", control="mine"), ticked("Soil")]) == {}


def test_a_region_whose_rest_is_named_is_labelled_even_if_it_was_not_worth_it():
    results = [ticked("Not worth labelling")]
    assert read_ticks(results) == {None: True}
    assert read_ticks([*results, ticked("Soil", control="rest")]) == {None: False}


@pytest.mark.parametrize("odd", [[], {}, 7, None])
def test_a_suggested_region_is_read_though_its_id_is_no_text(odd):
    config = parse_label_config(
        '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
        '<Label value="road"/><Label value="car"/></BrushLabels></View>'
    )
    box = {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": [config.region_label]}
    results = [{"id": odd, "type": "rectanglelabels", "value": box}, ticked("Not worth labelling")]
    found = read_boxes(results, config, (8, 8)).regions
    assert found == (Region(0, 0, 4, 4),)
    assert read_refusals(results, config, (8, 8), found).refused == set(found)
