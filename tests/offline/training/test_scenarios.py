from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.acquisition import strategy
from ralis_backend.core.regions import VOID
from ralis_backend.offline.training.config import EvolutionConfig
from ralis_backend.offline.training.scenarios import (
    draw_mapping,
    draw_scenario,
    measured,
    play_together,
    relabelled,
)
from ralis_backend.simulation.heads import Points
from ralis_backend.simulation.points import RegionPoints
from tests.offline.training.any_config import CONFIG
from tests.simulation.make_regions import labelled


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


def _of_two_classes_each(num_images: int = 12, num_classes: int = 15) -> RegionPoints:
    """Images of four regions that show two of many classes each."""
    regions = labelled(num_images, 4)
    image = regions.image_index
    shown = (2 * image + np.arange(len(image)) % 2) % num_classes
    pixels = np.zeros((len(image), num_classes + 1), np.int64)
    pixels[np.arange(len(image)), shown] = 64
    labels = torch.from_numpy(shown)[:, None].expand(-1, 4).to(torch.uint8)
    points = Points(regions.points.features, labels)
    return replace(regions, points=points, class_pixels=pixels)


def test_every_game_is_measured_on_regions_that_show_its_classes():
    regions = _of_two_classes_each()
    for seed in range(300):
        scenario = draw_scenario([regions], CONFIG, np.random.default_rng(seed))
        assert (scenario.held_out.points.labels != VOID).any()


def test_other_images_are_held_out_where_the_first_ones_are_not_annotated():
    regions = _of_two_classes_each(24, 2)
    is_void = regions.image_index < 12
    regions.points.labels[is_void] = VOID
    regions.class_pixels[is_void] = [0, 0, 64]
    for seed in range(100):
        scenario = draw_scenario([regions], CONFIG, np.random.default_rng(seed))
        assert (scenario.held_out.points.labels != VOID).any()


def test_a_class_that_is_not_shown_is_none_to_be_right_about():
    matrix = np.array([[6, 2, 2], [0, 10, 0], [0, 0, 0]])
    assert measured([matrix])[0] == pytest.approx((6 / 10 + 10 / 12) / 2)


def test_a_background_is_known_in_a_game_and_not_scored():
    regions = replace(labelled(), background=1)
    kept = [relabelled(regions, np.array(it)).background for it in ([0, 1, 2], [1, 0, 0])]
    assert kept == [1, 0]
    assert relabelled(regions, np.array([0, VOID, 1])).background is None
    matrix = np.array([[6, 2, 2], [0, 10, 0], [0, 0, 0]])
    assert measured([matrix], 1)[0] == pytest.approx(6 / 10)
    scenario = draw_scenario([regions], CONFIG, np.random.default_rng(2))
    nobody = replace(scenario, held_out=replace(scenario.held_out, background=None))
    assert scenario.pool.background is not None
    scores = [play_together(each, [strategy("random")])[0] for each in (scenario, nobody)]
    assert (scores[0] != scores[1]).any()


def test_a_score_of_nothing_ends_the_training():
    nothing, right = np.zeros((2, 2), np.int64), np.eye(2, dtype=np.int64)
    np.testing.assert_array_equal(measured([right]), [1.0])
    with pytest.raises(FloatingPointError, match="show no class"):
        measured([right, nothing])


def test_a_dataset_of_one_image_or_one_class_is_told_so():
    rng = np.random.default_rng(0)
    regions = labelled()
    with pytest.raises(ValueError, match=r"has 1 image in d_t.*give it 2 at least"):
        draw_scenario([regions.take(np.flatnonzero(regions.image_index == 0))], CONFIG, rng)
    is_first = regions.class_pixels[:, 0] > 0
    with pytest.raises(ValueError, match=r"show 1 of 3 classes; expected 2 at least"):
        draw_scenario([regions.take(np.flatnonzero(is_first))], CONFIG, rng)


def test_a_seed_always_draws_the_same_game():
    scenarios = [draw_scenario([labelled()], CONFIG, np.random.default_rng(it)) for it in (0, 2)]
    assert [it.seed for it in scenarios] == [194890681, 1060139139]
    assert [it.initial.tolist() for it in scenarios] == [[99, 40, 55], [76, 36, 40, 74]]
