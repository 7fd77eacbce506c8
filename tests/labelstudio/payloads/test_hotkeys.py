from __future__ import annotations

import random
from xml.etree.ElementTree import Element, fromstring, tostring

import pytest

from ralis_backend.labelstudio.payloads.hotkeys import (
    LABEL_STUDIO_HOTKEYS,
    TOOL_HOTKEYS,
    hotkey,
    with_hotkeys,
)
from ralis_backend.labelstudio.payloads.label_config import (
    KEPT_CLASS,
    LabelConfig,
    parse_label_config,
    parse_xml,
)
from ralis_backend.labelstudio.payloads.regions_config import is_like, regions_config
from ralis_backend.online.answers import ANSWER_KINDS, AnswerKind, Choice

KEYS = (*"123459qyn0-=[];',./abe", "shift+1", "Shift+Q", "shift+r", "shift+3", "ctrl+x", "N")


def _pool(*keys: str, control: str = "brush", tag: str = "BrushLabels") -> LabelConfig:
    """A class for each key; an empty one is none."""
    labels = "".join(
        f'<Label value="c{index}"{f""" hotkey="{key}" """ if key else ""}/>'
        for index, key in enumerate(keys)
    )
    return parse_label_config(
        '<View><Image name="image" value="$image"/>'
        f'<{tag} name="{control}" toName="image">{labels}</{tag}></View>'
    )


def _keys(xml: str) -> list[str]:
    """Of what is in sight."""
    root = parse_xml(xml)
    hidden = {it for view in root if view.get("className") == KEPT_CLASS for it in view.iter()}
    return [hotkey(it) for it in root.iter() if it.tag in ("Label", "Choice") and it not in hidden]


def _with_key(xml: str, value: str, key: str, within: str = "Label") -> str:
    """As somebody, or an earlier release, would have written it."""
    root = fromstring(xml)
    found = [it for it in root.iter(within) if it.get("value") == value]
    found[0].set("hotkey", key)
    return tostring(root, encoding="unicode")


def test_what_is_ours_never_has_a_key_of_label_studio_along_a_chain_of_interfaces():
    chance = random.Random(3)
    for _ in range(12):
        before = None
        for _ in range(3):
            chosen = [chance.choice(("", *KEYS)) for _ in range(chance.choice((1, 2, 9, 30)))]
            pool = _pool(*chosen, control=chance.choice(("brush", "pen")))
            made = regions_config(pool, chance.choice((None, "c0")), before)
            ours = [key for key in _keys(made) if key and key not in chosen]
            assert not {key.lower() for key in ours} & LABEL_STUDIO_HOTKEYS
            near = [key for key in ours if "+f1" not in key]
            assert len(set(near)) == len(near)
            assert with_hotkeys(made, pool) == made
            before = made


def test_the_zoom_and_the_brush_s_size_are_among_the_keys_of_tools():
    assert {"shift+1", "shift+2", "[", "]", "e"} < set(TOOL_HOTKEYS) < LABEL_STUDIO_HOTKEYS


def test_questions_whose_keys_are_the_owners_get_none_of_the_brush_s_size():
    made = regions_config(_pool(*"1234567890n-="))
    assert _keys(made)[-2:] == [";", "'"]


def test_the_rest_s_keys_begin_behind_those_of_the_zoom():
    made = regions_config(_pool("", "", ""))
    assert _keys(made) == ["1", "2", "3", "shift+3", "shift+4", "shift+5", "0", "n"]


def test_keys_that_an_earlier_release_gave_are_given_anew_where_they_are_label_studio_s():
    pool = _pool("", "")
    made = regions_config(pool)
    old = _with_key(made, "c0", "shift+r")
    for value, key in (("c0", "shift+1"), ("c1", "shift+2"), ("Not worth labelling", "]")):
        old = _with_key(old, value, key, "Choice")
    assert _keys(old) == ["shift+r", "2", "shift+1", "shift+2", "0", "]"]
    assert _keys(with_hotkeys(old, pool)) == _keys(made)


def test_keys_that_somebody_chose_stay_though_they_are_label_studio_s():
    pool = _pool("shift+r", "e", "")
    made = regions_config(pool)
    assert _keys(made)[:3] == ["shift+r", "e", "1"]
    assert with_hotkeys(made, pool) == made
    theirs = _with_key(made, "c2", "b")
    assert with_hotkeys(theirs, pool) == theirs
    mine = '<Choices name="mine" toName="image"><Choice value="x" hotkey="[" /></Choices></View>'
    asked = f"{made.rstrip().removesuffix('</View>')}{mine}"
    assert with_hotkeys(asked, pool) == asked


def test_an_empty_key_in_other_letters_is_replaced_not_repeated():
    pool = _pool("", "")
    odd = regions_config(pool).replace(' hotkey="2"', ' hotKey=""')
    shown = with_hotkeys(odd, pool)
    assert _keys(shown)[:2] == ["1", "2"]
    assert "hotKey" not in shown
    assert is_like(shown, pool)


def test_a_question_of_another_package_does_not_get_a_tool_s_key(monkeypatch: pytest.MonkeyPatch):
    choices = (Choice("Blurred", "m", True), Choice("Sharp", "y", False))
    monkeypatch.setitem(ANSWER_KINDS, "blurred", AnswerKind("blurred", choices, "sharpness"))
    root: Element = fromstring(regions_config(_pool("", "")))
    keys = [hotkey(it) for it in root.findall(".//Choices[@name='sharpness']/Choice")]
    assert keys == ["-", "y"]
