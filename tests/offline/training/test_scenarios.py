from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.acquisition import strategy
from ralis_backend.core.regions import VOID
from ralis_backend.offline.training.config import EvolutionConfig
from ralis_backend.offline.training.scenarios import (
    draw_mapping,
    draw_scenario,
    play_together,
    relabelled,
)
from tests.offline.training.any_config import CONFIG


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


def test_a_scenario_holds_out_whole_images(source):
    scenario = draw_scenario([source], CONFIG, np.random.default_rng(0))
    assert not set(scenario.pool.image_index) & set(scenario.held_out.image_index)


def test_the_same_strategy_twice_plays_the_same_scenario(source):
    scenario = draw_scenario([source], CONFIG, np.random.default_rng(0))
    scores, labelled = play_together(scenario, [strategy("bald-rarity")] * 2)
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(labelled[0], labelled[1])
    assert len(set(labelled[0].tolist())) == len(scenario.initial) + 6


def test_a_scenario_that_does_not_fit_the_pool_is_refused(source):
    config = EvolutionConfig(steps=9, regions_per_step=48)
    with pytest.raises(ValueError, match="lower steps or regions per step"):
        draw_scenario([source], config, np.random.default_rng(0))
