"""That the default is what the games on many label sets say, and that their report is true."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import formulas
from benchmarks.ideas import IDEAS, Changed
from benchmarks.kinds import CLASS_NAMES, SIZE, pictures
from ralis_backend.core.acquisition import STRATEGIES
from ralis_backend.core.intervals import mean_interval
from ralis_backend.core.policy.registry import DEFAULT
from ralis_backend.offline.training.rewards import SCORED_CLASSES
from ralis_backend.online.choosing import FALLBACK
from ralis_backend.simulation.verdict import BASELINE, HEURISTICS
from tests import REPOSITORY
from tests.core.policy.test_agnostic import _actions, _state


def _games_in(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


PLAYED = _games_in(formulas.RESULTS)


def _set(**scores: list[float]) -> dict[str, object]:
    """A label set with games of these scores."""
    columns = {name.replace("_", "-"): values for name, values in scores.items()}
    games = [
        {
            "seed": index, "classes": 3, "class_weight_power": 0.0, "initial_regions": 20,
            "picks": 9, "is_whole": True,
            "scores": {name: values[index] for name, values in columns.items()},
        }
        for index in range(len(next(iter(columns.values()))))
    ]  # fmt: skip
    return {"split": "d_t", "games": games}


def test_regret_is_what_a_strategy_is_behind_the_best_formula_of_a_set():
    played = {
        "a": _set(random=[1.0, 1.0], entropy=[4.0, 6.0], coverage=[3.0, 5.0], policy=[6.0, 6.0]),
        "b": _set(random=[1.0, 1.0], entropy=[0.0, 1.0], coverage=[2.0, 2.0], policy=[2.0, 2.5]),
    }
    assert formulas.regrets(played, "entropy") == {"a": 0.0, "b": 1.5}
    assert formulas.regrets(played, "coverage") == {"a": 1.0, "b": 0.0}
    assert formulas.regrets(played, "policy") == {"a": -1.0, "b": -0.25}
    text = "\n".join(formulas.report(played, {}))
    assert "| coverage | 1.00 | 0.00 | 1.00 | none |" in text
    assert "- a: `coverage`, 1.00" in text  # chosen on b alone
    assert "- b: `entropy`, 1.50" in text
    behind = {"c": _set(random=[5.0, 5.0, 5.0], coverage=[4.0, 4.1, 4.0], entropy=[6.0, 6.0, 6.0])}
    assert "| coverage | 1.97 | 1.97 | c |" in "\n".join(formulas.report(behind, {}))


def test_the_report_is_that_of_the_games_that_lie_beside_it():
    assert (formulas.RESULTS / "README.md").read_text() == "\n".join(
        formulas.report(PLAYED, formulas.long_runs())
    )


def test_the_report_of_fresh_games_is_theirs_and_the_page_gives_it():
    fresh = _games_in(formulas.FRESH)
    assert set(fresh) == set(PLAYED)
    seeds = [
        {game["seed"] for game in each["games"]} for each in (*PLAYED.values(), *fresh.values())
    ]
    assert all(seen.isdisjoint(new) for seen, new in zip(seeds, seeds[len(PLAYED) :], strict=False))
    assert (formulas.FRESH / "README.md").read_text() == "\n".join(formulas.report(fresh, {}))
    page = " ".join((REPOSITORY / "docs" / "strategies.md").read_text().split())
    unseen = formulas.ahead(fresh, "apart-without")
    assert f"that policy is {unseen} points ahead of `coverage` in the 160 more games" in page
    assert f"four tenths everywhere, {formulas.ahead(fresh, 'coverage-apart')}" in page
    assert f"`bald-rarity` is {formulas.ahead(fresh, 'bald-rarity')} there" in page


def test_the_default_was_confirmed_in_games_that_did_not_choose_it():
    confirmed = _games_in(formulas.CONFIRMED)
    assert (formulas.CONFIRMED / "README.md").read_text() == "\n".join(
        formulas.report(confirmed, {})
    )
    chosen_by = [PLAYED, _games_in(formulas.FRESH)]
    for name, of_set in confirmed.items():
        seeds = {game["seed"] for game in of_set["games"]}
        assert all(seeds.isdisjoint(game["seed"] for game in it[name]["games"]) for it in chosen_by)
        assert of_set["scored_classes"] == SCORED_CLASSES
        assert mean_interval(formulas.leads(of_set, DEFAULT))[0] > 0  # ahead of random
    worst = _worst_regrets(confirmed)
    assert min(worst, key=lambda name: worst[name]) == DEFAULT
    lead = formulas.ahead(confirmed, DEFAULT)
    assert "(-" in lead  # the interval holds zero
    page = " ".join((REPOSITORY / "docs" / "strategies.md").read_text().split())
    regrets = f"{worst[DEFAULT]:.2f} and {worst['coverage']:.2f}"
    assert f"it is {lead} points ahead of `coverage`, worst regret {regrets}" in page
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"worth {lead} points of mIoU in 320 games, which is not told from none" in readme


def test_the_page_gives_what_the_default_is_worth_on_whole_label_sets():
    page = " ".join((REPOSITORY / "docs" / "strategies.md").read_text().split())
    called = {"camvid": "CamVid", "clothing": "clothing", "dubai_aerial": "aerial"}
    for name in (*called, "nuclei"):
        path = formulas.LONG / f"diverse-{name}-weight-0" / "summary.json"
        pair = json.loads(path.read_text())["pairs"][DEFAULT]["coverage"]
        lead, low, high = (f"{pair[each]:+.2f}" for each in ("lead", "low", "high"))
        assert f"{called.get(name, name)} {lead} ({low} to {high})" in page


def test_the_fallback_is_the_best_that_needs_no_embeddings_and_is_nowhere_behind_random():
    worst = _worst_regrets(PLAYED)
    names = [it for it in worst if "embeddings" not in STRATEGIES[it].needs.features]
    assert min(names, key=lambda name: worst[name]) == FALLBACK
    for played in PLAYED.values():
        assert mean_interval(formulas.leads(played, FALLBACK))[1] > 0


def test_whom_the_trust_gate_lets_rank_was_measured_against_what_it_plays_today():
    path = REPOSITORY / "benchmarks" / "results" / "labels" / "trust-gate-camvid.json"
    measured = json.loads(path.read_text())
    assert measured["against"] == [*HEURISTICS, BASELINE]
    assert DEFAULT in HEURISTICS
    verdicts = Counter(
        name
        for draw in measured["draws"]
        for name, found in draw["verdicts"].items()
        if found["verdict"] == "trusted"
    )
    page = " ".join((REPOSITORY / "docs" / "strategies.md").read_text().split())
    times = {0: "never", 1: "once", 2: "twice", 3: "three times", 4: "four times", 5: "five times"}
    for name, words in {
        "any": "`any` was trusted {}",
        "any-set": "`any-set` {}",
        "any-shuffled": "a policy that learned from shuffled rewards {}",
        BASELINE: "`random` {}",
    }.items():
        assert words.format(times[verdicts[name]]) in page


def _worst_regrets(played: dict[str, Any]) -> dict[str, float]:
    return {name: max(formulas.regrets(played, name).values()) for name in formulas.FORMULAS}


def test_an_idea_that_changes_nothing_is_coverage():
    state, actions = _state(), _actions(40)
    expected = STRATEGIES["coverage"].scores(state, actions)
    order = np.argsort(-Changed("same").scores(state, actions))[: 2 * state.count]
    np.testing.assert_array_equal(order, np.argsort(-expected)[: 2 * state.count])
    for idea in IDEAS.values():
        assert idea.scores(state, actions).shape == (40,)


def test_the_page_on_strategies_gives_what_was_measured():
    page = " ".join((REPOSITORY / "docs" / "strategies.md").read_text().split())
    worst = _worst_regrets(PLAYED)
    assert f"{worst[DEFAULT]:.2f} points of mIoU at worst; `coverage`" in page
    assert f"the default before it, {worst['coverage']:.2f}" in page
    assert f"`bald-rarity` {worst['bald-rarity']:.2f}" in page
    assert f"`entropy` {worst['entropy']:.2f}" in page
    needed = (
        (formulas.RESULTS / "README.md").read_text().split("worst, over the best of its row")[1]
    )
    ratios = [cell.strip() for cell in needed.splitlines()[0].split("|")][1:-1]  # from random on
    assert f"at worst {ratios[3]} times the regions" in page
    assert f"(`any`, unseen, {ratios[4]}; `bald-rarity` {ratios[2]})" in page
    for name, told in (("any", "points ahead on average"), ("any-without", "on a label set that")):
        assert f"{formulas.ahead(PLAYED, name)} {told}" in page


@pytest.mark.parametrize("kind", CLASS_NAMES)
def test_generated_pictures_show_every_class_and_can_be_drawn_again(kind):
    drawn = list(pictures(kind, 12, 0))
    shown = np.unique(np.concatenate([mask.ravel() for _, mask in drawn]))
    assert shown.tolist() == list(range(len(CLASS_NAMES[kind])))
    for image, mask in drawn:
        assert (image.shape, image.dtype, mask.shape) == ((*SIZE, 3), np.uint8, SIZE)
    (again,) = pictures(kind, 1, 0)
    np.testing.assert_array_equal(again[0], drawn[0][0])


def test_games_that_are_scored_in_another_way_are_neither_added_nor_summed_up(tmp_path):
    facts = {"split": "d_v", "regions": "0123", "scored_classes": "shown"}
    path = tmp_path / "a.json"
    assert formulas.kept_games(path, facts) == {**facts, "games": []}
    before = _set(random=[1.0, 1.0], coverage=[2.0, 2.0], entropy=[1.0, 2.0])
    path.write_text(json.dumps(before | {"split": "d_v"}))
    with pytest.raises(ValueError, match=r"regions is None there.*scored_classes is None there"):
        formulas.kept_games(path, facts)
    now = before | facts
    path.write_text(json.dumps(now))
    assert formulas.kept_games(path, facts) == now
    with pytest.raises(ValueError, match=r"split is 'd_v' there, 'd_t' now\); choose another"):
        formulas.kept_games(path, facts | {"split": "d_t"})
    assert "counted as one with an IoU of 0" in "\n".join(formulas.report({"a": before}, {}))
    assert "over the classes that the held-out" in "\n".join(formulas.report({"a": now}, {}))
    with pytest.raises(ValueError, match=r"several ways \(before there was a name, shown\)"):
        list(formulas.report({"a": before, "b": now}, {}))
