from __future__ import annotations

import pytest

from ralis_backend.online.answers import ANSWER_KINDS, USEFUL, AnswerKind, Choice


@pytest.mark.parametrize(
    ("ticked", "answer"),
    [
        ({"Useful"}, True),
        ({"Not worth labelling"}, False),
        (set(), None),
        ({"useful", "something else"}, None),
        ({"Useful", "Not worth labelling"}, False),
    ],
)
def test_a_region_was_useful_or_not_or_nobody_said(ticked, answer):
    assert USEFUL.read(ticked) is answer


def test_an_answer_may_be_any_value_of_its_kind():
    stars = AnswerKind("stars", (Choice("one", "x", 1), Choice("two", "y", 2)), "rating")
    assert stars.read(["two"]) == 2


def test_every_kind_is_registered_under_its_name():
    assert [kind.name for kind in ANSWER_KINDS.values()] == list(ANSWER_KINDS)
