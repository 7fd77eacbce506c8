from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.cli.options import strategy_names, without_suffix


def test_names_stand_between_commas_and_those_with_a_comma_in_quotes():
    assert strategy_names("random, entropy,") == ["random", "entropy"]
    assert strategy_names('"presence:Car, red",random') == ["presence:Car, red", "random"]
    assert strategy_names('presence:5" pipe,random') == ['presence:5" pipe', "random"]
    assert strategy_names('"presence:a ""b"""') == ['presence:a "b"']


@pytest.mark.parametrize("text", ["", " , ", '"presence:Car, red', "random\nentropy"])
def test_what_is_no_list_of_names_is_refused(text):
    with pytest.raises(ValueError, match=r"give some, as random|no list"):
        strategy_names(text)


@pytest.mark.parametrize("text", ["", ".", "/", "sets/.."])
def test_a_path_without_a_name_is_refused(text):
    with pytest.raises(ValueError, match=r"--out '.*' has no name .*NAME"):
        without_suffix(Path(text))


@pytest.mark.parametrize(
    "line",
    [
        "train-segmenter --dataset a --out b --seed 4294967296",
        "train-segmenter --dataset a --out b --threads 1000000000",
        "train-policy --dataset a --out b --seed 4294967296",
        "train-policy --dataset a --out b --threads 1000000000",
        "benchmark --dataset a --out b --first-seed 4294967296",
        "demo --seed 4294967296",
        "serve --threads 1000000000",
        "web --workers 1000000000",
    ],
)
def test_numbers_that_no_machine_takes_are_refused_at_once(line):
    told = CliRunner().invoke(app, line.split())
    assert told.exit_code == 2
    assert "than or equal" in " ".join(told.output.split())
