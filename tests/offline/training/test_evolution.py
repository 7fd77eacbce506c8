from __future__ import annotations

import json

import numpy as np
import pytest

from ralis_backend.core.acquisition import strategy
from ralis_backend.core.policy import AgnosticPolicy
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.evolution import (
    EvolutionConfig,
    draw_game,
    draw_mapping,
    evolve,
    fit_linear,
    play_together,
    relabelled,
)

CONFIG = EvolutionConfig(
    generations=2, pairs=2, initial_regions=(3, 5), steps=2, regions_per_step=3, pool_size=3,
    updates_per_step=4, initial_updates=6, max_held_out=6, linear_games=2, checkpoint_every=1,
    hidden=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tiny_dataset, tmp_path_factory):
    cache = tmp_path_factory.mktemp("points")
    return PointFeatures(
        tiny_dataset, (32, 32), cache, spec=SegmenterSpec(3, encoder_weights=None)
    ).split("d_t")


def test_classes_are_merged_or_left_out_without_a_gap():
    kinds = set()
    for seed in range(60):
        mapping = draw_mapping(5, np.random.default_rng(seed))
        kept = np.unique(mapping[mapping != VOID])
        assert kept.tolist() == list(range(len(kept)))
        assert len(kept) >= 2
        kinds.add(("subset" if (mapping == VOID).any() else "merge", len(kept)))
    assert {("subset", 2), ("merge", 3), ("merge", 5)} <= kinds


def test_relabelled_points_and_pixels_agree(source):
    merged = relabelled(source, np.array([1, VOID, 0]))
    assert merged.class_pixels.shape[1] == 3
    np.testing.assert_array_equal(merged.class_pixels.sum(1), source.class_pixels.sum(1))
    np.testing.assert_array_equal(merged.class_pixels[:, 0], source.class_pixels[:, 2])
    before, after = source.points.labels.numpy(), merged.points.labels.numpy()
    assert (after[before == 0] == 1).all()
    assert (after[before == 1] == VOID).all()
    assert (after[before == VOID] == VOID).all()


def test_a_game_holds_out_whole_images(source):
    game = draw_game([source], CONFIG, np.random.default_rng(0))
    assert not set(game.pool.image_index) & set(game.held_out.image_index)


def test_the_same_strategy_twice_plays_the_same_game(source):
    game = draw_game([source], CONFIG, np.random.default_rng(0))
    scores, labelled = play_together(game, [strategy("bald-rarity")] * 2, CONFIG)
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(labelled[0], labelled[1])
    assert len(set(labelled[0].tolist())) == len(game.initial) + 6


def test_a_training_that_was_interrupted_goes_on_as_if_it_was_not(source, tmp_path):
    def told(progress: object) -> None:
        raise KeyboardInterrupt

    whole = evolve({"tiny": source}, CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evolve({"tiny": source}, CONFIG, tmp_path / "halved", on_progress=told)
    halved = evolve({"tiny": source}, CONFIG, tmp_path / "halved")
    for one, other in zip(whole.network.parameters(), halved.network.parameters(), strict=True):
        assert (one == other).all()
    facts = json.loads((tmp_path / "halved.json").read_text())
    assert facts["labelled_regions"] == {"tiny": 30}
    assert len(facts["curve"]) == 2
    saved = AgnosticPolicy.load(tmp_path / "halved.safetensors")
    assert len(saved.spec.low) == len(saved.spec.high) == 18
    assert (saved.spec.low[-1], saved.spec.high[-1]) == (0, 1)  # progress is no sign of drift
    with pytest.raises(ValueError, match="another training"):
        evolve({"tiny": source}, CONFIG, tmp_path / "halved", seed=1)


def test_the_linear_ranker_is_fitted_and_saved(source, tmp_path):
    policy = fit_linear({"tiny": source}, CONFIG, tmp_path / "linear")
    saved = AgnosticPolicy.load(tmp_path / "linear.safetensors")
    assert saved.spec.architecture == "linear"
    assert (saved.network.score.weight == policy.network.score.weight).all()
    assert saved.network.score.weight.abs().max() > 0


def test_a_game_that_does_not_fit_the_pool_is_refused(source):
    config = EvolutionConfig(steps=9, regions_per_step=48)
    with pytest.raises(ValueError, match="lower steps or regions per step"):
        draw_game([source], config, np.random.default_rng(0))
