from __future__ import annotations

import pytest

from ralis_backend.cli.options import strategy_names


def test_names_stand_between_commas_and_those_with_a_comma_in_quotes():
    assert strategy_names("random, entropy,") == ["random", "entropy"]
    assert strategy_names('"presence:Car, red",random') == ["presence:Car, red", "random"]
    assert strategy_names('presence:5" pipe,random') == ['presence:5" pipe', "random"]
    assert strategy_names('"presence:a ""b"""') == ['presence:a "b"']


@pytest.mark.parametrize("text", ["", " , ", '"presence:Car, red', "random\nentropy"])
def test_what_is_no_list_of_names_is_refused(text):
    with pytest.raises(ValueError, match=r"give some, as random|no list"):
        strategy_names(text)
