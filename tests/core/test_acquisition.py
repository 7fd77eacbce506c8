from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.acquisition import STRATEGIES, PoolState, select, strategy
from ralis_backend.core.features import RegionFeatures
from tests.core.make_features import region_features

CLASS_NAMES = ("road", "pole", "sky")


def _actions(num_regions: int = 12, seed: int = 0) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([1, 1, 1], num_regions).astype(np.float32)
    embeddings = rng.normal(size=(num_regions, 5)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    uncertainty = rng.random((2, num_regions), np.float32)
    return _features(probabilities, embeddings, uncertainty)


def _features(
    probabilities: np.ndarray, embeddings: np.ndarray, uncertainty: np.ndarray | None = None
) -> RegionFeatures:
    num_regions = len(probabilities)
    entropy, margin = np.zeros((2, num_regions)) if uncertainty is None else uncertainty
    return region_features(probabilities, entropy=entropy, margin=margin, embeddings=embeddings)


def _state(
    labelled: tuple[int, ...] = (100, 0, 100), embeddings: np.ndarray | None = None, count: int = 3
) -> PoolState:
    known = np.zeros((0, 5), np.float32) if embeddings is None else embeddings
    pixels = np.array([[*labelled, 7]], np.int64)
    return PoolState(pixels, known, count, np.random.default_rng(0))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("labelled", [(100, 0, 100), (0, 0, 0)])
def test_every_strategy_scores_and_explains_every_region(name, labelled):
    scorer, actions, state = strategy(name), _actions(), _state(labelled)
    scores = scorer.scores(state, actions)
    assert scorer.name == name
    assert scores.shape == (12,)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    for index in range(12):
        reason = scorer.reason(state, actions, index, CLASS_NAMES)
        assert 5 < len(reason) < 100
    assert strategy(name).scores(state, _actions(0)).shape == (0,)


def test_an_unknown_strategy_lists_those_there_are():
    with pytest.raises(ValueError, match=r"'badge'.*random, entropy, margin, k-center, coverage"):
        strategy("badge")


def test_entropy_and_margin_prefer_the_uncertain():
    actions = _actions()
    assert strategy("entropy").scores(_state(), actions).argmax() == actions.entropy.argmax()
    assert strategy("margin").scores(_state(), actions).argmax() == actions.margin.argmin()


def test_random_follows_the_generator_it_is_given():
    first = strategy("random").scores(_state(), _actions())
    np.testing.assert_array_equal(first, strategy("random").scores(_state(), _actions()))
    assert len(set(first.tolist())) == 12


def test_coverage_by_hand():
    shares = np.array([[0.5, 0.25, 0.25], [1, 0, 0]], np.float32)
    actions = _features(shares, np.zeros((2, 5)))
    scores = strategy("coverage").scores(_state((300, 0, 100)), actions)
    expected = [0.5 / 0.755 + 0.25 / 0.005 + 0.25 / 0.255, 1 / 0.755]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert "pole (25 %" in strategy("coverage").reason(_state(), actions, 0, CLASS_NAMES)


def test_k_center_takes_one_of_each_cluster_first():
    rng = np.random.default_rng(0)
    centers = np.eye(5, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 2]]
    embeddings = centers + rng.normal(0, 0.01, centers.shape).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    actions = _features(np.zeros((7, 3)), embeddings)
    order = np.argsort(-strategy("k-center").scores(_state(), actions))
    assert set(centers[order[:3]].argmax(axis=1)) == {0, 1, 2}
    assert order[0] in range(4)  # begins with the most typical
    state = _state(embeddings=embeddings[:1], count=2)
    picks = np.argsort(-strategy("k-center").scores(state, actions))[:2]
    assert set(centers[picks].argmax(axis=1)) == {1, 2}


def test_k_center_equals_the_slow_traversal():
    actions = _actions(40)
    known = _actions(6, seed=1).embeddings
    order = np.argsort(-strategy("k-center").scores(_state(embeddings=known, count=5), actions))
    chosen: list[int] = []
    for _ in range(10):
        taken = np.concatenate([known, actions.embeddings[chosen]])
        gaps = np.linalg.norm(actions.embeddings[:, None] - taken[None], axis=2).min(axis=1)
        chosen.append(int(gaps.argmax()))
    assert order[:10].tolist() == chosen


def test_k_center_with_duplicates_picks_each_region_once():
    embeddings = np.tile(np.eye(5, dtype=np.float32)[0], (6, 1))
    actions = _features(np.zeros((6, 3)), embeddings)
    scores = strategy("k-center").scores(_state(), actions)
    assert len(set(scores.tolist())) == 6


def test_select_is_best_first_and_spread_over_images():
    scores = np.array([9, 8, 7, 6, 5, 4], np.float32)
    images = np.array([1, 1, 1, 1, 2, 3])
    assert select(scores, images, 3, max_per_image=1).tolist() == [0, 4, 5]
    assert select(scores, images, 3).tolist() == [0, 1, 4]  # twice the fair share of one


def test_select_loosens_the_spread_where_it_must():
    scores = np.array([9, 8, 7, 6], np.float32)
    images = np.array([1, 1, 1, 2])
    assert select(scores, images, 3, max_per_image=1).tolist() == [0, 1, 3]
    assert select(scores, images, 10, max_per_image=1).tolist() == [0, 1, 2, 3]
    assert select(scores[:0], images[:0], 3).tolist() == []
    assert select(scores, images, 0).tolist() == []


def test_select_equals_a_greedy_loop():
    rng = np.random.default_rng(3)
    scores, images = rng.permutation(60).astype(np.float32), rng.integers(0, 9, 60)
    taken: list[int] = []
    for index in np.argsort(-scores):
        if len(taken) < 14 and (images[taken] == images[index]).sum() < 2:
            taken.append(int(index))
    assert select(scores, images, 14, max_per_image=2).tolist() == taken


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="region 1 is not finite"):
        select(np.array([1.0, bad]), np.array([0, 0]), 1)
