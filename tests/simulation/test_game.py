from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.acquisition import strategy
from ralis_backend.core.acquisition.chance import Random
from ralis_backend.core.regions import VOID
from ralis_backend.simulation.arena import FastArena
from ralis_backend.simulation.game import GameRules, all_labels, check, play
from ralis_backend.simulation.heads import Points
from ralis_backend.simulation.points import RegionPoints

RULES = GameRules(
    budgets=(6, 10, 15), initial_regions=4, regions_per_step=3, pool_size=3,
    updates_per_step=5, initial_updates=5, final_updates=20,
)  # fmt: skip
LATTICE = (3, 2)


def make_points(num_regions: int, num_classes: int = 3, num_void: int = 0) -> RegionPoints:
    """Regions of one class each, whose points' features show the class; the first ones void."""
    rng = np.random.default_rng(num_regions)
    shown = rng.integers(num_classes, size=num_regions)
    labels = np.repeat(shown[:, None], 6, axis=1).astype(np.uint8)
    features = np.eye(num_classes, 8)[labels] + 0.3 * rng.normal(size=(num_regions, 6, 8))
    labels[:num_void] = VOID
    pixels = np.zeros((num_regions, num_classes + 1), np.int64)
    pixels[np.arange(num_regions), np.where(labels[:, 0] == VOID, num_classes, shown)] = 48
    raw = features.mean(axis=1)
    return RegionPoints(
        points=Points(torch.from_numpy(features).bfloat16(), torch.from_numpy(labels)),
        lattice=LATTICE,
        embeddings=(raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32),
        class_pixels=pixels,
        image_index=np.arange(num_regions) // 5,
        region_size=(8, 6),
        places=np.zeros((num_regions, 2), np.float32),
    )


def make_arena(num_void: int = 0, num_classes: int = 3) -> FastArena:
    pool = make_points(30, num_classes, num_void)
    return FastArena("toy", pool, make_points(5, num_classes), make_points(12, num_classes))


def test_a_game_measures_at_every_budget_and_labels_no_region_twice():
    played = play(make_arena(), strategy("entropy"), 0, RULES)
    assert [point["regions"] for point in played["curve"]] == [6, 10, 15]
    assert len(set(played["labelled"])) == 15
    assert all(0 <= point["miou"] <= 1 for point in played["curve"])


def test_strategies_of_a_seed_begin_alike_and_a_repeated_game_is_the_same():
    arena = make_arena()
    first, again = (play(arena, strategy("margin"), 1, RULES) for _ in range(2))
    other = play(arena, strategy("random"), 1, RULES)
    assert first["labelled"] == again["labelled"]
    assert first["curve"] == again["curve"]
    assert first["labelled"][:4] == other["labelled"][:4]
    assert first["labelled"] != other["labelled"]


@pytest.mark.parametrize("stops_at", [4, 7, 12])
def test_a_stopped_game_goes_on_to_the_bit(tmp_path, monkeypatch, stops_at):
    monkeypatch.setattr("ralis_backend.simulation.game._SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    arena, path = make_arena(), tmp_path / "game"
    whole = play(arena, strategy("entropy"), 2, RULES)

    def stop(labelled: int) -> None:
        if labelled >= stops_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(arena, strategy("entropy"), 2, RULES, checkpoint=path, on_step=stop)
    steps: list[int] = []
    resumed = play(
        make_arena(), strategy("entropy"), 2, RULES, checkpoint=path, on_step=steps.append
    )
    assert resumed["labelled"] == whole["labelled"]
    assert resumed["curve"] == whole["curve"]
    assert (steps[0] > 4) == (stops_at > 6)
    assert not path.exists()


def test_a_damaged_checkpoint_is_not_used(tmp_path):
    path = tmp_path / "game"
    path.write_bytes(b"half")
    played = play(make_arena(), strategy("random"), 0, RULES, checkpoint=path)
    assert len(played["labelled"]) == 15


def test_a_checkpoint_of_another_game_is_not_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ralis_backend.simulation.game._SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    path = tmp_path / "game"

    def stop(labelled: int) -> None:
        if labelled >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(make_arena(), strategy("entropy"), 2, RULES, checkpoint=path, on_step=stop)
    played = play(make_arena(), strategy("margin"), 3, RULES, checkpoint=path)
    assert "other settings or data (it differs in seed, strategy)" in caplog.text
    assert played["labelled"] == play(make_arena(), strategy("margin"), 3, RULES)["labelled"]


def test_the_first_regions_hold_something_to_learn_from():
    arena = make_arena(num_void=24)
    for initial in ("random", "k-center"):
        played = play(arena, strategy("random"), 0, replace(RULES, initial=initial))
        assert min(played["labelled"][:4]) >= 24  # the first 24 regions are void
    with pytest.raises(ValueError, match="only 6 of the pool's 30 regions hold an annotated"):
        check(replace(RULES, initial_regions=7, budgets=(8,)), arena)


def test_k_center_begins_with_more_classes_and_images_than_chance():
    arena = make_arena(num_classes=8)
    rules = replace(RULES, initial_regions=6, budgets=(6,), pool_size=5)
    shown = {
        initial: [
            len(set(arena.class_pixels[played["labelled"]].argmax(axis=1)))
            for seed in range(6)
            for played in [play(arena, strategy("random"), seed, replace(rules, initial=initial))]
        ]
        for initial in ("random", "k-center")
    }
    assert np.mean(shown["k-center"]) > np.mean(shown["random"]) + 0.5


@pytest.mark.parametrize("num_classes", [2, 60])
def test_few_and_many_classes(num_classes):
    played = play(make_arena(num_classes=num_classes), strategy("entropy"), 0, RULES)
    assert len(played["curve"][0]["ious"]) == num_classes


def test_a_class_absent_from_the_test_set_is_not_counted():
    pool, test = make_points(30), make_points(12)
    test.points.labels[test.points.labels == 2] = VOID
    arena = FastArena("toy", pool, make_points(5), test)
    point = play(arena, strategy("random"), 0, RULES)["curve"][-1]
    assert point["ious"][2] is None
    assert point["miou"] == pytest.approx(np.mean(point["ious"][:2]), abs=1e-4)


def test_a_background_is_neither_looked_for_nor_scored():
    class Told(Random):
        def scores(self, state, actions):
            self.told = state.background, state.removed_classes
            return super().scores(state, actions)

    pool = replace(make_points(30), background=1, removed_classes=(2,))
    arena = FastArena("toy", pool, make_points(5), make_points(12))
    told = Told()
    point = play(arena, told, 0, RULES)["curve"][-1]
    assert told.told == (1, (2,))
    assert point["miou"] == pytest.approx((point["ious"][0] + point["ious"][2]) / 2, abs=1e-4)
    assert all_labels(arena, 0, RULES)["ious"][1] is not None
    # Games of a background do not lie in a folder with games that knew of none.
    assert arena.describe() == make_arena().describe() | {"background": 1}
    assert "background" not in make_arena().describe()


def test_a_test_set_of_background_alone_has_a_score():
    test = make_points(12)
    test.points.labels[test.points.labels != 1] = VOID
    arena = FastArena("toy", replace(make_points(30), background=1), make_points(5), test)
    assert 0 <= all_labels(arena, 0, RULES)["miou"] <= 1


def test_all_labels_are_as_good_as_the_largest_budget():
    last = play(make_arena(), strategy("random"), 0, RULES)["curve"][-1]
    assert all_labels(make_arena(), 0, RULES)["miou"] >= last["miou"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": (10, 6)}, "must rise"),
        ({"budgets": (6, 99)}, "exceeds the pool's 30"),
        ({"initial_regions": 9}, "initial_regions is 9"),
        ({"pool_size": 0}, "at least 1"),
        ({"initial": "best"}, "expected one of random, k-center"),
    ],
)
def test_rules_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(replace(RULES, **changes), make_arena())
