from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core.acquisition import strategy
from ralis_backend.offline.benchmark.run import (
    Contest,
    Entrant,
    _check_folder,
    _check_who_plays,
    run,
)
from ralis_backend.offline.benchmark.workers import Match
from tests.simulation.test_game import RULES, make_arena

ENTRANTS = [Entrant("random"), Entrant("entropy")]


@pytest.fixture
def compare(tmp_path) -> Callable[..., dict]:
    def compare(entrants=ENTRANTS, seeds=(0, 1), rules=RULES, **options) -> dict:
        contest = Contest(make_arena, strategy, rules, tmp_path)
        return run(
            contest, entrants, seeds, lambda: np.ones(30, np.int64),
            class_names=("one", "two", "three"), command="ralis benchmark", **options,
        )  # fmt: skip

    return compare


def began(told: list[tuple[Match, float]]) -> list[str]:
    return [f"{match.name} {match.seed}" for match, share in told if share == 0]


@pytest.mark.e2e
def test_results_are_written_and_not_played_again(compare, tmp_path):
    told: list = []
    content = compare(on_progress=lambda *it: told.append(it))
    assert began(told) == [
        "all-labels 0", "all-labels 1", "all-labels 2",
        "random 0", "entropy 0", "random 1", "entropy 1",
    ]  # fmt: skip
    assert json.loads((tmp_path / "summary.json").read_text()) == content
    assert content["all_labels"]["seeds"] == 3
    assert content["absent_classes"] == []
    assert len(list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))) == 12
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "# Label efficiency on toy" in (tmp_path / "report.md").read_text()
    told.clear()
    compare(seeds=(0, 1, 2), on_progress=lambda *it: told.append(it))
    assert began(told) == ["random 2", "entropy 2"]


@pytest.mark.e2e  # slow
def test_a_half_written_or_damaged_file_does_not_count(compare, tmp_path):
    compare(seeds=(0,))
    whole = (tmp_path / "runs" / "random-0.json").read_text()
    (tmp_path / "runs" / ".random-1.json.writing").write_text(whole)
    (tmp_path / "runs" / "entropy-0.json").write_text(whole[:100])
    told: list = []
    compare(on_progress=lambda *it: told.append(it))
    assert began(told) == ["entropy 0", "random 1", "entropy 1"]


def test_a_folder_of_other_rules_is_refused_and_says_which(compare, tmp_path):
    compare(seeds=(0,))
    with pytest.raises(ValueError, match="config: final_updates is 20 there, 21 now"):
        compare(rules=replace(RULES, final_updates=21))
    (tmp_path / "rules.json").unlink()
    with pytest.raises(ValueError, match=r"no rules\.json; choose another folder"):
        compare()


def test_a_folder_of_other_facts_is_refused_though_one_side_does_not_name_them(tmp_path):
    names = ["soil", "crop"]
    none = {"arena": {"dataset": "field", "classes": names}}
    soil = {"arena": none["arena"] | {"background": 0}}
    for before, now, message in (
        (soil, none, "arena: background is 0 there, None now"),
        (none, soil, "arena: background is None there, 0 now"),
        (
            none,
            {"arena": none["arena"] | {"classes": names[::-1]}},
            r"classes is \['soil', 'crop'\]",
        ),
    ):
        (tmp_path / "rules.json").unlink(missing_ok=True)
        _check_folder(tmp_path, before)
        with pytest.raises(ValueError, match=message):
            _check_folder(tmp_path, now)


def test_a_folder_of_a_release_that_wrote_neither_classes_nor_splits_learns_them(tmp_path):
    now = {"arena": {"dataset": "field", "classes": ["soil"], "images": {"d_v": 3, "test": 2}}}
    _check_folder(tmp_path, {"arena": {"dataset": "field"}})
    _check_folder(tmp_path, now)
    assert json.loads((tmp_path / "rules.json").read_text()) == now


def test_a_folder_that_does_not_say_what_the_weights_were_is_refused_with_how_to_go_on(tmp_path):
    now = {"arena": {"dataset": "field", "encoder_weights_sha256": "abc"}}
    _check_folder(tmp_path, {"arena": {"dataset": "field"}})
    with pytest.raises(ValueError, match=r"'abc' now; .*the same, add it to \"arena\" in rules"):
        _check_folder(tmp_path, now)
    (tmp_path / "rules.json").write_text(json.dumps(now))
    _check_folder(tmp_path, now)
    with pytest.raises(ValueError, match=r"is 'abc' there, 'def' now\)"):
        _check_folder(tmp_path, {"arena": now["arena"] | {"encoder_weights_sha256": "def"}})


def test_another_version_of_a_policy_is_refused(compare, tmp_path):
    policy = tmp_path / "margin.safetensors"
    policy.write_bytes(b"one")
    content = compare([Entrant("margin", 50, policy), *ENTRANTS], seeds=(0,))
    assert content["strategies"]["margin"]["label_cost"] == 50
    policy.write_bytes(b"two")
    with pytest.raises(ValueError, match="changed since policy 'margin' was played"):
        compare([Entrant("margin", 50, policy)], seeds=(0,))


def test_a_name_that_stands_for_another_strategy_than_before_is_refused(tmp_path):
    before, now = (Entrant("default", stands_for=name) for name in ("entropy", "margin"))
    _check_who_plays(tmp_path, [before])
    assert json.loads((tmp_path / "policies.json").read_text()) == {"default": "entropy"}
    _check_who_plays(tmp_path, [before, Entrant("random")])
    with pytest.raises(ValueError, match=r"'default' was entropy when .*, and is margin now"):
        _check_who_plays(tmp_path, [now])
    (tmp_path / "policies.json").unlink()  # as games were kept before
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "default-0.json").write_text("{}")
    with pytest.raises(ValueError, match="was a strategy that is not named there"):
        _check_who_plays(tmp_path, [now])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["random", "entropy", "random"], "'random' is named twice"),
        ([], "no strategy is named"),
        (["all-labels"], "'all-labels' is no strategy"),
    ],
)
def test_names_are_checked_before_anything_is_written(compare, tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        compare([Entrant(name) for name in names])
    assert not list(Path(tmp_path).iterdir())
