from __future__ import annotations

import io

import pytest
from dotenv import dotenv_values

from ralis_backend.env_lines import LineError, check_lines


def check(text: str) -> None:
    check_lines(text, lambda name: name.upper().startswith("RALIS_"), {"RALIS_TOKEN"}, {"SET": "a"})


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        ("RALIS_SEED=3\nRALIS_TOKEN\n", 2, "NAME=value"),
        ("RALIS_TOKEN:ses=ame\n", 1, "NAME=value"),
        ("RALIS_TOKEN sesame\n", 1, "NAME=value"),
        ("export ralis_token: sesame\n", 1, "NAME=value"),
        ("set RALIS_TOKEN=sesame\n", 1, "NAME=value"),
        ("\nRALIS_TOKEN=ses #ame\n", 2, "the value in quotes"),
        ("ralis_token=ses\t# ame\n", 1, "the value in quotes"),
        ("RALIS_TOKEN=ses${SESAME}ame\n", 1, "one that is set"),
        ('EMPTY=\nRALIS_TOKEN="${EMPTY}sesame"\n', 2, "one that is set"),
        ("RALIS_STRATEGY='${SESAME}'\n", 1, "one that is set"),
        ("RALIS_STRATEGY=${SESAME:?no}\n", 1, r"\$\{NAME\} or"),
        ('declare -x RALIS_TOKEN="sesame"\n', 1, "NAME=value and nothing before it"),
        ("OTHER=1\n- RALIS_TOKEN=sesame\n", 2, "NAME=value and nothing before it"),
        ("ENV ralis_token=sesame\n", 1, "NAME=value and nothing before it"),
        ('$env:RALIS_TOKEN="sesame"\n', 1, "NAME=value"),
        ("RALIS_USER=u; RALIS_TOKEN=sesame\n", 1, "each on a line of its own"),
        ("export OTHER=1 RALIS_TOKEN=sesame\n", 1, "each on a line of its own"),
        ("OTHER=1 MORE=2 && export RALIS_TOKEN=sesame\n", 1, "each on a line of its own"),
        ("--env=RALIS_TOKEN=sesame\n", 1, "NAME=value"),
        ("-eRALIS_TOKEN=sesame\n", 1, "NAME=value"),
        ("'-e RALIS_TOKEN=sesame'\n", 1, "NAME=value"),
        ('Environment="RALIS_TOKEN=sesame"\n', 1, "NAME=value"),
        ("OTHER=1\nsetenv RALIS_TOKEN sesame\n", 2, "NAME=value and nothing before it"),
        ("setx ralis_token sesame\n", 1, "NAME=value and nothing before it"),
        ("RALIS_TOKEN=${A:-${B:-sesame}}\n", 1, r"\$\{NAME\} or"),
        ("NOTE='don\n\nRALIS_TOKEN=sesame\nEND='\n", 3, "those closed in line 1"),
        ("RALIS-TOKEN=sesame\n", 1, "_ in its place"),
        ("export RALIS TOKEN: sesame\n", 1, "_ in its place"),
        ("RALIS_TOKEN=sesame\nRALIS_TOKEN=\n", 2, "one line for each name"),
        ("RALIS_TOKEN=a\n\nralis_token=sesame\n", 3, "one line for each name"),
        ('NOTE="see\nRALIS_TOKEN=sesame\nOTHER="a"\n', 1, "NAME=value.*the quotes closed"),
    ],
)
def test_a_line_of_ours_that_would_be_dropped_or_cut_is_refused(text, number, expected):
    with pytest.raises(LineError, match=f"expected {expected}") as error:
        check(text)
    assert error.value.number == number
    assert "sesame" not in str(error.value).lower()


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("RALIS_TOKEN='a#b #c' # a note\n", "a#b #c"),
        ("RALIS_TOKEN='a=b #c'\n", "a=b #c"),
        ("RALIS_TOKEN=a#b\n# a note\n", "a#b"),
        ("RALIS_TOKEN=#b\n", "#b"),
        ("RALIS_SEED=3  # a note\nRALIS_TOKEN=a$b{c}\n", "a$b{c}"),
        ("RALIS_TOKEN=x${OTHER:-c}\n", "xc"),
        ("FIRST=d\nRALIS_TOKEN=x${FIRST}\n", "xd"),
        ("NOTE='RALIS_ is\nRALIS_'\nOTHER=${UNSET} # note\nRALIS_TOKEN=a\n", "a"),
        ("OTHER\nset -a\nGREETING: hello\nRALIS_TOKEN=a\n", "a"),
        ("set -a  # RALIS_TOKEN=b\nRALIS_SEED=3 # RALIS_TOKEN=b\nRALIS_TOKEN=a\n", "a"),
        ("MY_RALIS_TOKEN: b\nOTHER='--env RALIS_TOKEN=b'\nX=a=RALIS_B=c\nRALIS_TOKEN=a\n", "a"),
        ("RALIS_TOKEN=${b\n", "${b"),
        (
            "START=docker run -e RALIS_TOKEN=b image\nURL=http://a/?b&RALIS_B=c\nRALIS_TOKEN=a\n",
            "a",
        ),
        ("RALIS_TOKEN=  # none yet\n", ""),
        ("RALIS_TOKEN=\nRALIS_TOKEN=a\nRALIS_TOKEN='a'\nOTHER=b\nOTHER=\nOUR-TOKEN=c\n", "a"),
    ],
)
def test_a_line_that_is_read_as_a_whole_passes(text, token):
    check(text)
    assert dotenv_values(stream=io.StringIO(text))["RALIS_TOKEN"] == token


def test_a_variable_of_the_environment_may_be_named():
    check("RALIS_TOKEN=${SET}\n")
    with pytest.raises(LineError):
        check("RALIS_TOKEN=${set}\n")
