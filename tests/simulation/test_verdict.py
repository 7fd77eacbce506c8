from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.acquisition import PoolState, strategy
from ralis_backend.core.acquisition.classes import BaldRarity
from ralis_backend.core.features import RegionFeatures
from ralis_backend.simulation import verdict as replays
from ralis_backend.simulation.arena import FastArena
from ralis_backend.simulation.heads import HeadConfig
from ralis_backend.simulation.verdict import (
    ReplayRules,
    TooFewLabels,
    lead,
    replay,
    verdict,
)
from tests.simulation.make_regions import labelled

RULES = ReplayRules(
    num_games=3,
    updates_per_step=10,
    final_updates=40,
    head=HeadConfig(hidden=16, batch_size=64, learning_rate=0.02),
)


class Worst(BaldRarity):
    """The opposite of the best heuristic."""

    name = "worst"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        return -super().scores(state, actions)


@pytest.mark.e2e
def test_the_opposite_of_the_best_heuristic_is_not_trusted():
    strategies = {"random": strategy("random"), "worst": Worst()}
    scores = replay(labelled(), strategies, replace(RULES, num_games=8))
    scores = {**scores, "coverage": scores["random"]}
    judged = verdict(scores, "worst")
    assert judged.name == "not trusted"
    assert judged.heuristic == "coverage"
    assert judged.over_heuristic is not None
    assert judged.over_heuristic.high < 0
    assert verdict(scores, "coverage").over_heuristic is None


@pytest.mark.e2e  # slow
def test_games_are_paired_and_a_replay_can_be_repeated():
    twins = {name: strategy("bald-rarity") for name in ("bald-rarity", "twin")}
    scores = replay(labelled(), twins, RULES)
    np.testing.assert_array_equal(scores["twin"], scores["bald-rarity"])
    np.testing.assert_array_equal(replay(labelled(), twins, RULES)["twin"], scores["twin"])
    assert len(set(scores["twin"])) == RULES.num_games
    assert verdict(scores, "twin").name == "trusted"


def test_no_image_is_both_chosen_from_and_measured_on(monkeypatch):
    splits = []

    class Arena(FastArena):
        def __init__(self, name, pool, state_set, test_set, *others):
            super().__init__(name, pool, state_set, test_set, *others)
            splits.append((pool, test_set))

    monkeypatch.setattr(replays, "FastArena", Arena)
    monkeypatch.setattr(replays, "play", lambda *arguments: {"curve": [{"miou": 0.5}]})
    replay(labelled(), {"random": strategy("random")}, RULES)
    for pool, held_out in splits:
        assert not set(pool.image_index) & set(held_out.image_index)
        assert len(pool) + len(held_out) == 160
        assert len(np.unique(held_out.image_index)) == 5
    assert len({tuple(np.unique(held_out.image_index)) for _, held_out in splits}) > 1


@pytest.mark.parametrize(("images", "per_image"), [(9, 10), (7, 20)])
def test_too_few_labels_say_how_many_it_takes(images, per_image):
    with pytest.raises(TooFewLabels, match="takes 96 regions of 8 images"):
        replay(labelled(images, per_image), {"random": strategy("random")}, RULES)


def test_what_a_replay_raises_on_the_way_ends_it():
    def report(done: int, total: int) -> None:
        raise InterruptedError(f"{done} of {total}")

    with pytest.raises(InterruptedError, match="1 of 3"):
        replay(labelled(), {"random": strategy("random")}, RULES, report=report)


def test_the_lead_is_a_mean_with_an_interval_around_it():
    even = lead(np.array([1.0, 1.0, 1.0]))
    assert (even.mean, even.low, even.high) == (1.0, 1.0, 1.0)
    spread = lead(np.array([0.0, 2.0, 1.0, 1.0]))
    assert spread.low < spread.mean == 1.0 < spread.high


@pytest.mark.parametrize(
    ("differences", "name"),
    [
        ([-1.0, -1.2, -0.8], "not trusted"),
        ([-0.2, 0.1, 0.2], "trusted"),
        ([-6.0, 0.5, 6.0], "too few labels"),
        ([-1.9, -1.5, 0.3], "too few labels"),  # worse it is not shown to be, nor good enough
        ([4.0, 6.0, 5.0], "trusted"),
    ],
)
def test_verdicts_follow_from_the_interval(differences, name):
    scores = {"policy": np.array(differences) + 30, "coverage": np.full(3, 30.0)}
    assert verdict(scores, "policy").name == name


def test_the_rules_of_a_game_fit_small_and_large_pools():
    for num_regions in (20, 67, 300):
        rules = replace(RULES).of_game(num_regions)
        assert rules.initial_regions < rules.budgets[0] < rules.budgets[-1] <= num_regions // 2
