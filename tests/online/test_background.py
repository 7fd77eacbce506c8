from __future__ import annotations

import pytest

from ralis_backend.online.background import (
    NO_BACKGROUND,
    Kept,
    background_of,
    class_names,
    described,
    marked,
    said_choice,
)

CRACK = ("Crack",)
FIELD = ("Soil", "Crop", "Weed")


@pytest.mark.parametrize(
    ("labels", "choice", "default", "kept", "expected"),
    [
        (CRACK, None, None, None, ("Background", "one label")),
        (("background",), None, None, None, ("Other", "one label")),
        (CRACK, "road surface", None, None, ("road surface", "chosen")),
        (CRACK, None, "Rest", None, ("Rest", "setting")),
        (CRACK, NO_BACKGROUND, None, None, ("Background", "one label")),  # labels went since
        (CRACK, "crack", "CRACK", None, ("Background", "one label")),
        (FIELD, None, None, None, None),
        (FIELD, "Soil", None, None, ("Soil", "chosen")),
        (FIELD, "soil", None, None, ("Soil", "chosen")),
        (FIELD, "Sky", None, None, ("Sky", "chosen")),
        (FIELD, NO_BACKGROUND, "Soil", None, None),
        (FIELD, None, "Soil", None, ("Soil", "setting")),
        (FIELD, None, " soil ", None, ("Soil", "setting")),
        (FIELD, None, "  ", None, None),
        (CRACK, None, "", None, ("Background", "one label")),
        (FIELD, None, None, "Background", ("Background", "one label")),
        (FIELD, NO_BACKGROUND, None, "Background", None),
        (("a", "A"), "ä", None, None, ("ä", "chosen")),
        ((), "Soil", "Soil", None, None),
    ],
)
def test_the_background_follows_choice_then_setting_then_the_number_of_labels(
    labels, choice, default, kept, expected
):
    assert background_of(labels, choice, default, kept) == expected


@pytest.mark.parametrize(
    ("extra_params", "choice"),
    [
        ({}, Kept.CHOICE),
        ({"strategy": "entropy"}, Kept.CHOICE),
        ({"background": " Soil "}, "Soil"),
        ({"background": False}, NO_BACKGROUND),
        ({"background": None}, None),
        ({"background": ""}, None),
        ({"background": "  "}, None),
    ],
)
def test_a_choice_is_read_as_people_write_it(extra_params, choice):
    assert said_choice(extra_params, FIELD) == choice


@pytest.mark.parametrize("value", [True, 3, 1.5, [], {}, ["Soil"], "a\0b", "two\nlines", "x" * 501])
def test_what_is_no_name_is_refused_with_an_example(value):
    with pytest.raises(ValueError, match=r"'background' .*\{\"background\": \"Background\"\}"):
        said_choice({"background": value}, FIELD)


@pytest.mark.parametrize("value", [False, "Crack", "crack"])
def test_one_label_and_nothing_beside_it_is_refused(value):
    with pytest.raises(ValueError, match=r"single label 'Crack'.*--background NAME"):
        said_choice({"background": value}, CRACK)
    assert said_choice({"background": value}, FIELD) in (NO_BACKGROUND, "Crack", "crack")


def test_a_background_without_a_label_comes_last_and_leaves_without_moving_a_class():
    table = [{"name": "Crack", "color": "#FF0000", "is_active": True}]
    with_it = marked(table, CRACK, ("Background", "one label"))
    assert [it["name"] for it in with_it] == ["Crack", "Background"]
    assert [it.get("background") for it in with_it] == [None, "one label"]
    moved = marked(with_it, ("Crack", "Road"), None)
    assert [(it["name"], it["is_active"]) for it in moved] == [
        ("Crack", True),
        ("Background", False),
    ]
    assert marked(with_it, CRACK, ("Background", "one label")) == with_it
    assert table == [{"name": "Crack", "color": "#FF0000", "is_active": True}]


def test_whoever_connects_reads_what_unpainted_means_and_why():
    by_itself = described(background_of(CRACK, None, None), CRACK)
    assert "'Background', a class without a label to paint (on by itself" in by_itself
    assert "as chosen" in described(("Soil", "chosen"), FIELD)
    assert "without a label" not in described(("Soil", "chosen"), FIELD)
    assert "RALIS_BACKGROUND_LABEL" in described(("Soil", "setting"), FIELD)
    assert "--no-background" in described(("Background", "one label"), FIELD)
    assert "say nothing (void)" in described(None, FIELD)


def test_strategies_are_looked_for_with_the_classes_there_will_be():
    assert class_names(CRACK, ("Background", "one label")) == ["Crack", "Background"]
    assert class_names(FIELD, ("Soil", "chosen")) == ["Soil", "Crop", "Weed"]
    assert class_names(FIELD, None) == ["Soil", "Crop", "Weed"]
