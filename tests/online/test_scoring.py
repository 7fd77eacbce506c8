"""Scores and reasons of pools that are described already."""

from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.acquisition import STRATEGIES, Needs, PoolState, Scorer, strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.online.ranking import MAX_EXPLAINED, scores_of, to_explain
from tests.core.make_features import told


def pool(num_regions: int, needs: Needs, num_classes: int = 3) -> RegionFeatures:
    rng = np.random.default_rng(0)
    values = {
        name: rng.random((num_regions, num_classes) if "class" in name else num_regions, np.float32)
        for name in needs.features
    }
    return RegionFeatures(num_regions, values)


def state(**values: object) -> PoolState:
    pixels = np.array([[400, 0, 100, 12]])
    return PoolState(pixels, None, 8, np.random.default_rng(0), **values)  # type: ignore[arg-type]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", ["bald-rarity", "random", "power", "margin"])
def test_scores_in_blocks_are_those_of_the_whole(name):
    chooser, num_regions = strategy(name), 150_001
    features = pool(num_regions, chooser.needs)
    index = np.arange(num_regions)[::2]
    whole = chooser.scores(state(), features.take(index))
    np.testing.assert_array_equal(scores_of(chooser, state(), features, index), whole)


def test_a_pool_can_be_stopped_within_its_scores():
    chooser, asked = strategy("bald-rarity"), []

    def stop() -> None:
        asked.append(len(asked))
        if len(asked) == 2:
            raise Stopped

    features = pool(200_000, chooser.needs)
    with pytest.raises(Stopped):
        scores_of(chooser, state(stop=stop), features, np.arange(200_000))
    assert asked == [0, 1]


@pytest.mark.parametrize("name", ["coverage", "clasp-pe"])
def test_picks_that_see_each_other_can_be_stopped_between_two(name):
    chooser, asked = strategy(name), []
    features = pool(50, chooser.needs)
    scores_of(chooser, state(stop=lambda: asked.append(1)), features, np.arange(50))
    assert len(asked) == 16  # twice the eight that are wanted


def test_reasons_are_for_the_best_of_each_image_and_of_all():
    scores = np.array([5, 4, 3, 9, 1, 2, 8, 7], np.float32)
    images = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    assert to_explain(scores, images, 1).tolist() == list(range(8))  # a small pool: all
    rng = np.random.default_rng(0)
    num_regions = 4 * MAX_EXPLAINED
    scores, images = rng.random(num_regions), np.arange(num_regions) // 8
    explained = to_explain(scores, images, 2)
    best = np.argsort(-scores)[:MAX_EXPLAINED]
    assert set(best) <= set(explained.tolist())
    for image in (0, 17, 4_999):
        of_image = np.flatnonzero(images == image)
        assert set(of_image[np.argsort(-scores[of_image])[:2]]) <= set(explained.tolist())
    assert len(explained) < num_regions / 2


def test_a_reason_looks_at_its_own_region_alone():
    """What made the default cost the square of the pool: the whole table for every reason."""

    class Counted(RegionFeatures):
        looked_at = 0

        def __getitem__(self, name: str) -> np.ndarray:
            Counted.looked_at += len(self)
            return super().__getitem__(name)

    class_names = ("road", "pole", "sky")
    for name, chooser in ((name, told(each)) for name, each in STRATEGIES.items()):
        if chooser.needs.features - {"embeddings", "entropy_grid"} != chooser.needs.features:
            continue
        looked_at = []
        for num_regions in (100, 1_000):
            features = pool(num_regions, chooser.needs)
            Counted.looked_at = 0
            values = {each: features[each] for each in features}
            chooser.reasons(state(), Counted(num_regions, values), class_names)
            looked_at.append(Counted.looked_at)
        assert looked_at[1] <= 10 * looked_at[0], name


def test_a_strategy_that_gives_no_reason_is_named():
    class Plain(Scorer):
        name = "plain"

        def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
            return np.zeros(len(actions), np.float32)

    assert Plain().reasons(state(), pool(2, Needs()), ("road",)) == ["chosen by plain"] * 2
