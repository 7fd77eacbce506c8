from __future__ import annotations

import pytest

from ralis_backend.labelstudio.payloads.descriptions import MAX_CHARACTERS, with_line


@pytest.mark.parametrize("empty", ["", None, 7, "  \n"])
def test_a_project_without_a_description_gets_our_line(empty):
    assert with_line(empty, "v1") == "[RALIS: v1]"


def test_the_owners_words_stay_where_they_are():
    described = with_line("Streets, ask Ann. ralis:pool=1.100", "v1")
    assert described == "Streets, ask Ann. ralis:pool=1.100\n\n[RALIS: v1]"
    edited = described.replace("ask Ann", "ask [Bob]") + "\n\nUntil May."
    assert with_line(edited, "v2") == (
        "Streets, ask [Bob]. ralis:pool=1.100\n\n[RALIS: v2]\n\nUntil May."
    )


@pytest.mark.parametrize("owners", ["", "Words", "Words [RALIS: old] and [RALIS: older] more"])
def test_the_same_line_again_changes_nothing(owners):
    once = with_line(owners, 'Label in "a [b] · regions"')
    assert once.count("[RALIS:") == 1
    assert with_line(once, 'Label in "a [b] · regions"') == once


def test_a_long_line_is_cut_and_closed():
    described = with_line("Words", "x" * 5000)
    assert len(described) < MAX_CHARACTERS + 30
    assert described.endswith("x]")
