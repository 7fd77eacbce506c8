from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.acquisition import STRATEGIES, Aimed, PoolState, Strategy
from ralis_backend.core.acquisition.mining import Presence
from ralis_backend.core.features import RegionFeatures
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig, Points
from ralis_backend.simulation.mining import (
    MiningRules,
    check_target,
    gathered,
    image_folds,
    out_of_fold,
    replay_mining,
)
from ralis_backend.simulation.verdict import TooFewLabels
from tests.simulation.make_regions import labelled

HEAD = HeadConfig(hidden=16, batch_size=64, learning_rate=0.02)
RULES = MiningRules(num_games=4, picked_share=0.1, num_updates=40, head=HEAD)
RARE = 2


class Absence(Presence):
    """Where the segmenter sees least of the class."""

    name = "absence"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        return -super().scores(state, actions)


def _strategies() -> dict[str, Strategy]:
    aimed = {each.name: Aimed(each, RARE, "rare") for each in (Presence(), Absence())}
    return {"random": STRATEGIES["random"], **aimed}


def test_presence_finds_most_of_a_class_and_its_opposite_none():
    scores = replay_mining(labelled(), _strategies(), RARE, RULES)
    assert {name: len(each) for name, each in scores.items()} == {
        "random": 4, "presence": 4, "absence": 4,
    }  # fmt: skip
    assert scores["presence"].min() > 0.7
    assert scores["absence"].max() == 0
    assert scores["random"].mean() < scores["presence"].mean() - 0.3


def test_games_are_paired_and_a_mining_replay_can_be_repeated():
    twins = {name: Aimed(Presence(), RARE, "rare") for name in ("one", "other")}
    first = replay_mining(labelled(), twins, RARE, RULES, seed=3)
    np.testing.assert_array_equal(first["one"], first["other"])
    again = replay_mining(labelled(), twins, RARE, RULES, seed=3)
    np.testing.assert_array_equal(first["one"], again["one"])


def test_a_mining_replay_tells_how_far_it_is_and_stops_when_the_listener_raises():
    heard: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        heard.append((done, total))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        replay_mining(labelled(), _strategies(), RARE, RULES, report=report)
    assert heard == [(1, 4), (2, 4)]


@pytest.mark.parametrize(
    ("images", "message"), [(3, "3 labelled regions of 3 images"), (0, "0 labelled regions of 0")]
)
def test_a_class_that_hardly_a_region_shows_is_refused(images, message):
    regions = labelled()
    pixels = regions.class_pixels.copy()
    is_rare = np.flatnonzero(pixels[:, RARE])
    pixels[is_rare[images:], RARE] = 0
    with pytest.raises(TooFewLabels, match=f"{message}.*12 regions of 4 images"):
        replay_mining(replace(regions, class_pixels=pixels), _strategies(), RARE, RULES)


def test_as_many_regions_as_it_takes_are_enough():
    pixels = np.zeros((12, 3), np.int64)
    pixels[:, 1] = 1
    check_target(pixels, np.arange(12) % 4, 1)
    with pytest.raises(TooFewLabels, match="12 labelled regions of 3 images show class 1"):
        check_target(pixels, np.arange(12) % 3, 1)
    with pytest.raises(TooFewLabels, match="12 labelled regions of 3 images show 'Car', and a"):
        check_target(pixels, np.arange(12) % 3, 1, "Car")


def test_gathered_is_a_share_of_the_most_that_so_many_picks_could_hold():
    pixels = np.array([0, 5, 10, 3, 100])
    pool = np.array([0, 1, 2, 3])
    assert gathered(pixels, np.array([1, 3]), pool) == pytest.approx(8 / 15)
    assert gathered(pixels, np.array([2, 1]), pool) == 1
    assert gathered(pixels, np.array([0]), np.array([0])) == 0


def test_folds_are_of_whole_images_and_of_about_one_size():
    fold = image_folds(np.repeat([4, 7, 9, 11, 30, 31, 32], 3), 3, np.random.default_rng(0))
    by_image = fold.reshape(7, 3)
    assert (by_image == by_image[:, :1]).all()
    assert sorted(np.bincount(by_image[:, 0])) == [2, 2, 3]
    assert image_folds(np.array([0, 0, 1]), 5, np.random.default_rng(0)).max() == 1


def test_regions_of_a_single_image_are_refused():
    with pytest.raises(TooFewLabels, match="all 3 labelled regions lie in one image"):
        image_folds(np.array([5, 5, 5]), 5, np.random.default_rng(0))


def test_out_of_fold_features_are_those_of_a_head_that_learned_from_the_other_images():
    regions = labelled(num_images=6)
    described = out_of_fold(
        regions, HEAD, ("class_probabilities", "entropy"), num_folds=3, num_updates=30, seed=5
    )
    fold = image_folds(regions.image_index, 3, np.random.default_rng([5, 0]))
    nothing = regions.take(np.arange(1))
    simulation = FastSimulation(regions, nothing, nothing, HEAD)
    for each in range(3):
        simulation.begin(np.flatnonzero(fold != each), 30, 5)
        alone = simulation.describe(np.flatnonzero(fold == each), ("class_probabilities",))
        np.testing.assert_allclose(
            described.class_probabilities[fold == each], alone.class_probabilities, atol=0.02
        )
    assert set(described) == {"class_probabilities", "entropy"}


def test_a_region_is_not_described_by_what_learned_its_label():
    """Features that say nothing of labels: only who learned from a region could know its class."""
    generator = torch.Generator().manual_seed(0)
    looks = torch.randn((48, 1, 64), generator=generator).expand(-1, 4, -1).bfloat16()
    classes = torch.arange(48) % 2
    labels = classes[:, None].expand(-1, 4).to(torch.uint8)
    regions = replace(labelled(num_images=8, per_image=6), points=Points(looks, labels))
    simulation = FastSimulation(regions, regions, regions, HEAD)
    simulation.begin(np.arange(48), 100, 0)
    in_fold = simulation.describe(np.arange(48), ("class_probabilities",))
    out = out_of_fold(regions, HEAD, ("class_probabilities",), num_updates=100)
    of_its_class = np.arange(48), classes.numpy()
    assert in_fold.class_probabilities[of_its_class].mean() > 0.9
    assert abs(out.class_probabilities[of_its_class].mean() - 0.5) < 0.15
