from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.acquisition import strategy
from ralis_backend.core.simulation.game import Arena, GameRules, check, play
from ralis_backend.offline.benchmark import _first_reach, run, summary
from ralis_backend.offline.simulation.point_features import PointFeatures
from tests.offline.conftest import REGION_SIZE

CONFIG = GameRules(
    budgets=(6, 10, 15), initial_regions=4, regions_per_step=3, pool_size=3,
    updates_per_step=5, initial_updates=5, final_updates=20, all_labels_updates=60,
)  # fmt: skip


@pytest.fixture(scope="module")
def arena(tiny_dataset, tmp_path_factory):
    cache = tmp_path_factory.mktemp("points")
    features = PointFeatures(tiny_dataset, REGION_SIZE, cache, encoder_weights=None)
    return Arena("tiny", *(features.split(name) for name in ("d_v", "d_s", "test")))


def test_a_run_measures_at_every_budget_and_labels_no_region_twice(arena):
    played = play(arena, strategy("entropy"), 0, CONFIG)
    assert [point["regions"] for point in played["curve"]] == [6, 10, 15]
    assert len(set(played["labelled"])) == 15
    assert all(0 <= point["miou"] <= 1 for point in played["curve"])


def test_strategies_of_a_seed_begin_alike_and_a_repeated_run_is_the_same(arena):
    first, again = (play(arena, strategy("margin"), 1, CONFIG) for _ in range(2))
    other = play(arena, strategy("random"), 1, CONFIG)
    assert first["labelled"] == again["labelled"]
    assert first["curve"] == again["curve"]
    assert first["labelled"][:4] == other["labelled"][:4]
    assert first["labelled"] != other["labelled"]


def test_results_are_written_and_not_played_again(arena, tmp_path):
    strategies = {name: strategy(name) for name in ("random", "entropy")}
    told: list[str] = []
    content = run(arena, strategies, [0, 1], CONFIG, tmp_path, report=told.append)
    assert len(told) == 5
    assert json.loads((tmp_path / "summary.json").read_text()) == content
    rows = list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    told.clear()
    run(arena, strategies, [0, 1, 2], CONFIG, tmp_path, report=told.append)
    assert told == ["random, seed 2", "entropy, seed 2"]
    with pytest.raises(ValueError, match="other rules"):
        run(arena, strategies, [0], replace(CONFIG, final_updates=21), tmp_path)


def _run(name: str, seed: int, mious: list[float]) -> dict:
    curve = [
        {"regions": regions, "miou": miou, "class_entropy": 1.0}
        for regions, miou in zip((100, 200, 400), mious, strict=True)
    ]
    return {"strategy": name, "seed": seed, "curve": curve, "seconds_per_selection": 0.1}


def test_the_summary_by_hand():
    runs = [_run("a", seed, [0.2, 0.4, 0.5]) for seed in range(3)]
    runs += [_run("b", seed, [0.1, 0.2, 0.3]) for seed in range(3)]
    content = summary(runs, 0.5, "toy")
    entry = content["strategies"]["a"]
    assert entry["curve"][1] == {"regions": 200, "miou": 0.4, "low": 0.4, "high": 0.4}
    wanted = 200 * 2 ** ((0.96 * 0.5 - 0.4) / 0.1)
    assert entry["regions_to"]["0.96"]["value"] == pytest.approx(wanted, abs=0.1)
    assert content["strategies"]["b"]["regions_to"]["0.90"] == {
        "value": None, "low": None, "high": None,
    }  # fmt: skip
    assert entry["nauc"]["value"] == pytest.approx((0.3 + 0.45) / 2 / 0.5)
    lead = content["pairs"]["a"]["b"]
    assert lead["wins"] == lead["seeds"] == 3
    assert lead["lead"] == pytest.approx(100 * (0.375 - 0.2))
    assert content["pairs"]["b"]["a"]["wins"] == 0


def test_intervals_hold_the_mean_and_grow_with_the_spread():
    rng = np.random.default_rng(0)
    runs = [_run("a", seed, (0.3 + 0.05 * rng.normal(size=3)).tolist()) for seed in range(8)]
    point = summary(runs, 0.5, "toy")["strategies"]["a"]["curve"][0]
    assert point["low"] < point["miou"] < point["high"]


def test_a_score_that_is_reached_at_once_needs_the_least_budget():
    assert _first_reach([100, 200], np.array([0.5, 0.6]), 0.4) == 100
    assert np.isinf(_first_reach([100, 200], np.array([0.5, 0.6]), 0.7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": (10, 6)}, "must rise"),
        ({"budgets": (6, 99)}, "exceeds the pool's 30"),
        ({"initial_regions": 9}, "initial_regions is 9"),
        ({"pool_size": 0}, "at least 1"),
    ],
)
def test_rules_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(replace(CONFIG, **changes), 30)
