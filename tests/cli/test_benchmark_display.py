from __future__ import annotations

from io import StringIO

from rich.console import Console

from ralis_backend.cli.benchmark_display import Display, print_table
from ralis_backend.cli.simulate import _table
from ralis_backend.offline.benchmark.workers import Match

NAME = "presence:[/x] [red]"


def _console() -> Console:
    return Console(file=StringIO(), width=200, color_system=None)


def _shown(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_names_that_look_like_markup_stand_in_the_table_of_a_benchmark():
    console = _console()
    entry = {"regions_to": {"0.96": {"value": None}}, "curve": [{"miou": 0.5}]}
    content = {
        "strategies": {NAME: entry}, "config": {"budgets": [96]}, "seeds": [0],
        "all_labels_miou": 0.9,
    }  # fmt: skip
    print_table(console, content)
    assert NAME in _shown(console)


def test_names_that_look_like_markup_stand_beside_the_bars():
    console = _console()
    with Display(console, 1) as display:
        display.start(None, None, [])  # type: ignore[arg-type]
        display.show(Match(NAME, 0), 0.5)
        display.show(Match(NAME, 0), 1.0)
    assert f"{NAME}, seed 0: 1 of 0 done" in _shown(console)


def test_names_that_look_like_markup_stand_in_the_table_of_a_replay():
    console = _console()
    entry = {
        "score": 50.0, "heuristic": NAME, "over_heuristic": {"mean": 1.0, "low": 0.5, "high": 2.0},
        "over_random": None, "verdict": "trusted",
    }  # fmt: skip
    console.print(_table({NAME: entry}))
    assert _shown(console).count(NAME) == 2
    assert "+1.0 [+0.5, +2.0]" in _shown(console)
