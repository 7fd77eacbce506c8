from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.acquisition import STRATEGIES, Places, PoolState, select, strategy
from ralis_backend.core.acquisition.classes import DiverseCoverage
from ralis_backend.core.acquisition.state import greedy_scores, lazy_greedy_scores
from ralis_backend.core.features import RegionFeatures
from tests.core.make_features import region_features, told

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
    rng = np.random.default_rng(1)
    num_regions = len(probabilities)
    entropy, margin = np.zeros((2, num_regions)) if uncertainty is None else uncertainty
    bald = rng.random(num_regions, np.float32)
    return region_features(
        probabilities,
        entropy=entropy,
        margin=margin,
        embeddings=embeddings,
        class_counts=np.round(100 * probabilities),
        bald=bald,
        class_entropy=probabilities * entropy[:, None],
        class_bald=probabilities * bald[:, None],
        boundary=rng.random(num_regions, np.float32),
        mirror_divergence=rng.random(num_regions, np.float32),
    )


def _state(
    labelled: tuple[int, ...] = (100, 0, 100), embeddings: np.ndarray | None = None, count: int = 3
) -> PoolState:
    known = np.zeros((0, 5), np.float32) if embeddings is None else embeddings
    pixels = np.array([[*labelled, 7]], np.int64)
    examples = np.eye(1, 5, dtype=np.float32)
    return PoolState(pixels, known, count, np.random.default_rng(0), examples=examples)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("labelled", [(100, 0, 100), (0, 0, 0)])
def test_every_strategy_scores_and_explains_every_region(name, labelled):
    scorer, actions, state = told(strategy(name)), _actions(), _state(labelled)
    scores = scorer.scores(state, actions)
    assert scorer.name.partition(":")[0] == name
    assert scores.shape == (12,)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    reasons = scorer.reasons(state, actions, CLASS_NAMES)
    assert len(reasons) == 12
    assert all(5 < len(reason) < 100 for reason in reasons)
    assert told(strategy(name)).scores(state, _actions(0)).shape == (0,)


def test_an_unknown_strategy_lists_those_there_are():
    with pytest.raises(ValueError, match=r"'badge'.*random, .*bald-rarity, coverage"):
        strategy("badge")


def test_entropy_and_margin_prefer_the_uncertain():
    actions = _actions()
    assert strategy("entropy").scores(_state(), actions).argmax() == actions.entropy.argmax()
    assert strategy("margin").scores(_state(), actions).argmax() == actions.margin.argmin()


def test_random_follows_the_generator_it_is_given():
    first = strategy("random").scores(_state(), _actions())
    np.testing.assert_array_equal(first, strategy("random").scores(_state(), _actions()))
    assert len(set(first.tolist())) == 12


def test_rarity_by_hand():
    shares = np.array([[0.5, 0.25, 0.25], [1, 0, 0]], np.float32)
    actions = region_features(shares, bald=np.array([2, 3]), entropy=np.array([4, 5]))
    state = _state((300, 0, 100))
    expected = np.array([0.5 / 0.755 + 0.25 / 0.005 + 0.25 / 0.255, 1 / 0.755])
    for name, factor in (("rarity", 1), ("bald-rarity", [2, 3]), ("entropy-rarity", [4, 5])):
        scores = strategy(name).scores(state, actions)
        np.testing.assert_allclose(scores, expected * factor, rtol=1e-5)
    assert "pole (25 %" in strategy("rarity").reasons(state, actions, CLASS_NAMES)[0]


def test_entropy_of_the_top_and_the_peak_by_hand():
    grid = np.zeros((1, 192), np.float32)
    grid[0, 64:67] = 1, 2, 6  # means of three cells
    grid[0, 130] = 9  # the maximum of one
    actions = region_features(np.ones((1, 3)), entropy=np.array([0.5]), entropy_grid=grid)
    assert strategy("entropy-top").scores(_state(), actions) == 3
    assert strategy("entropy-max").scores(_state(), actions) == 9
    assert strategy("entropy").scores(_state(), actions) == 0.5


def test_class_bal_prefers_the_rarer_main_class_of_equally_uncertain_regions():
    counts = np.array([[9, 1, 0], [9, 1, 0], [9, 0, 1], [2, 8, 0]], np.float32)
    entropy = np.array([1, 0, 1, 1], np.float32)
    actions = region_features(counts / 10, class_counts=counts, entropy=entropy)
    scores = strategy("class-bal").scores(_state(), actions)
    np.testing.assert_allclose(scores, [np.exp(-0.75), 0, np.exp(-0.75), np.exp(-0.25)], rtol=1e-6)


def test_power_draws_in_proportion_to_bald():
    actions = region_features(np.ones((3, 3)), bald=np.array([6, 3, 1], np.float32))
    rng = np.random.default_rng(0)
    firsts = [
        int(strategy("power").scores(replace(_state(), rng=rng), actions).argmax())
        for _ in range(4000)
    ]
    shares = np.bincount(firsts, minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.03)


def test_foreground_random_draws_a_sixth_by_class_and_a_sixth_by_border():
    counts = np.array([[10, 0, 0], [10, 0, 0], [10, 0, 0], [0, 10, 0]], np.float32)
    border = np.array([0, 0, 1, 0], np.float32)
    actions = region_features(counts / 10, class_counts=counts, boundary=border)
    rng = np.random.default_rng(0)
    chooser = strategy("foreground-random")
    firsts = [
        int(chooser.scores(replace(_state(), rng=rng), actions).argmax()) for _ in range(6000)
    ]
    by_class = np.array([1 / 3, 1 / 3, 1 / 3, 1]) / 2
    expected = 4 / 6 / 4 + by_class / 6 + border / 6
    np.testing.assert_allclose(np.bincount(firsts) / 6000, expected, atol=0.03)


def test_clasp_pe_splits_the_batch_over_classes():
    num_regions = 300
    shown = np.arange(num_regions) % 3
    by_class = 0.01 + 0.5 * np.eye(3, dtype=np.float32)[shown]
    by_class[shown == 0] *= 10  # plain entropy would take class 0 alone
    actions = region_features(by_class, class_entropy=by_class, entropy=by_class.sum(axis=1))
    state = replace(_state(count=90), progress=1.0)
    picks = np.argsort(-strategy("clasp-pe").scores(state, actions))[:90]
    shares = np.bincount(shown[picks], minlength=3) / 90
    assert shares[1] > 0.15
    assert shares[2] > 0.15
    assert shares[0] > 0.4
    alone = np.argsort(-strategy("entropy").scores(state, actions))[:90]
    assert (shown[alone] == 0).all()


@pytest.mark.parametrize("num_pools", [None, 7])
def test_lazy_picks_equal_those_of_looking_at_every_region_each_time(num_pools):
    rng = np.random.default_rng(0)
    masses = rng.integers(0, 4, (300, 5)) * rng.integers(0, 2, (300, 1))  # many are equal
    pools = None if num_pools is None else rng.integers(0, num_pools, 300)
    state = replace(_state(count=40), pool_index=pools)
    covered, looked_at = np.ones(5), []

    def gains(index=slice(None)):
        looked_at.append(masses[index].shape[0])
        return np.log1p(masses[index] / covered).sum(axis=1)

    def take(index):
        covered[:] += masses[index]

    eager = greedy_scores(state, 300, gains, take)
    covered[:], num_eager = 1, sum(looked_at)
    looked_at.clear()
    lazy = lazy_greedy_scores(state, 300, gains, take)
    np.testing.assert_array_equal(lazy, eager)
    assert sum(looked_at) < num_eager / 2
    assert len(lazy_greedy_scores(state, 0, gains, take)) == 0


def test_coverage_equals_the_slow_greedy_cover():
    rng = np.random.default_rng(0)
    counts = np.full((20, 3), 64.0, np.float32)  # three points a region
    class_bald = rng.random((20, 3), np.float32)
    actions = region_features(
        counts / 192, class_counts=counts, class_bald=class_bald, bald=class_bald.sum(axis=1)
    )
    state = _state((6400, 0, 640), count=4)
    order = np.argsort(-strategy("coverage").scores(state, actions))[:8]
    known = np.array([100, 0, 10]) + 60
    chosen: list[int] = []

    def value(picks: list[int]) -> float:
        masses = 3 * class_bald[picks].sum(axis=0) / actions.bald.mean()
        return float(np.log(1 + masses / known).sum())

    for _ in range(8):
        left = [each for each in range(20) if each not in chosen]
        chosen.append(max(left, key=lambda each: value([*chosen, each])))
    assert order.tolist() == chosen


def test_diverse_coverage_keeps_a_batch_from_looking_alike_while_few_labels_are_there():
    diverse = STRATEGIES["coverage-diverse"]
    assert isinstance(diverse, DiverseCoverage)
    assert [diverse.apart(count) for count in (1, 24, 192, 1000)] == [0.8, 0.8, 0, 0]
    assert diverse.apart(68) == pytest.approx(0.4, abs=0.01)  # half way in logarithms
    actions = _actions(30)
    few = replace(_state(count=4), labelled_pixels_by_region=np.full((24, 4), 640))
    many = replace(few, labelled_pixels_by_region=np.full((192, 4), 640))
    np.testing.assert_array_equal(
        diverse.scores(many, actions), strategy("coverage").scores(many, actions)
    )
    order = np.argsort(-diverse.scores(few, actions))[:8]
    points = actions.class_counts.sum(axis=1, keepdims=True) / 64
    masses = actions.class_bald * points / actions.bald.mean() / (24 * 10 + 60)
    chosen: list[int] = []

    def worth(each: int) -> float:
        gained = np.log1p(masses[each] / (1 + masses[chosen].sum(axis=0))).sum()
        likeness = [0.0]
        for pick in chosen:
            similar = actions.embeddings @ actions.embeddings[pick]
            likeness.append(min(4, (similar[each] - similar.mean()) / (similar.std() + 1e-3)))
        return float(np.log(gained) - 0.8 * max(likeness))

    for _ in range(8):
        chosen.append(max((it for it in range(30) if it not in chosen), key=worth))
    assert order.tolist() == chosen
    assert chosen != np.argsort(-strategy("coverage").scores(few, actions))[:8].tolist()


def test_one_is_picked_from_each_pool_where_there_are_pools():
    actions = _actions(12)
    pools = np.repeat(np.arange(3), 4)
    for name in ("coverage", "coverage-diverse", "k-center", "clasp-pe", "spatial-diversity"):
        places = Places(np.arange(12) // 6, np.zeros((12, 2), np.float32))
        state = replace(_state(), pool_index=pools, places=places)
        picks = np.argsort(-strategy(name).scores(state, actions))[:3]
        assert sorted(pools[picks]) == [0, 1, 2]


def test_spatial_diversity_keeps_away_from_what_is_taken_in_the_same_image():
    entropy = np.array([1.0, 0.9, 0.8, 0.0], np.float32)
    actions = region_features(np.ones((4, 3)), entropy=entropy)
    center = np.array([[0.5, 0.5], [0.5, 1.5], [0.5, 0.5], [9, 9]], np.float32)
    state = replace(_state(), places=Places(np.array([0, 0, 1, 1]), center))
    order = np.argsort(-strategy("spatial-diversity").scores(state, actions))
    assert order.tolist()[:2] == [0, 2]  # the second of image 0 lies beside the first
    labelled = Places(np.array([0]), np.array([[0.5, 0.5]], np.float32))
    near = replace(state, labelled_places=labelled)
    assert np.argmax(strategy("spatial-diversity").scores(near, actions)) == 2


def test_equal_alone_needs_a_second_look():
    assert [name for name in STRATEGIES if strategy(name).needs.looks_twice] == ["equal"]
    unseen = RegionFeatures(3, {"entropy": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"mirror_divergence was not described.*entropy"):
        strategy("equal").scores(_state(), unseen)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_scores_and_explains_with_what_it_says_it_needs(name):
    scorer, everything, state = told(strategy(name)), _actions(), _state()
    given = {feature: everything[feature] for feature in scorer.needs.features}
    alone = RegionFeatures(12, given)
    if "embeddings" not in given:
        state = replace(state, labelled_embeddings=None)
    scores = scorer.scores(replace(state, rng=np.random.default_rng(3)), alone)
    expected = scorer.scores(replace(_state(), rng=np.random.default_rng(3)), everything)
    np.testing.assert_array_equal(scores, expected)
    assert scorer.reasons(state, alone, CLASS_NAMES) == scorer.reasons(
        _state(), everything, CLASS_NAMES
    )


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_reason_is_that_of_the_region_whoever_else_is_explained(name):
    scorer, actions, state = told(strategy(name)), _actions(), _state()
    some = np.array([7, 2, 11])
    together = scorer.reasons(state, actions, CLASS_NAMES)
    assert scorer.reasons(state, actions.take(some), CLASS_NAMES) == [together[it] for it in some]


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_scores_of_a_pointwise_strategy_do_not_depend_on_the_others(name):
    scorer, actions, state = told(strategy(name)), _actions(), _state()
    if scorer.is_pointwise and name not in ("random", "power"):
        some = np.array([5, 0])
        np.testing.assert_allclose(
            scorer.scores(state, actions.take(some)), scorer.scores(state, actions)[some]
        )


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


@pytest.mark.parametrize(
    "name", ["rarity", "entropy-rarity", "bald-rarity", "coverage", "coverage-diverse"]
)
@pytest.mark.parametrize("left_out", [{"background": 2}, {"removed_classes": (2,)}])
def test_a_background_or_removed_class_is_not_hunted_however_few_labels_it_has(name, left_out):
    shares = np.array([[0.1, 0, 0.9], [0.4, 0, 0.6], [0, 0, 1]], np.float32)
    actions = region_features(
        shares,
        bald=np.ones(3),
        entropy=np.ones(3),
        class_bald=shares,
        class_counts=100 * shares,
    )
    state = _state((1000, 1000, 0))  # class 2 has no label at all
    assert strategy(name).scores(state, actions).argmax() == 2
    aware = replace(state, **left_out)
    scores = strategy(name).scores(aware, actions)
    assert scores.argmax() == 1
    assert all("sky" not in it for it in strategy(name).reasons(aware, actions, CLASS_NAMES)[:2])


def test_removed_classes_and_the_background_are_left_out_unless_nothing_else_is_there():
    state = _state()
    assert state.looked_for(3).tolist() == [True, True, True]
    removed = replace(state, background=0, removed_classes=(2,))
    assert removed.looked_for(3).tolist() == [False, True, False]
    assert replace(removed, removed_classes=(1, 2)).looked_for(3).tolist() == [True, False, False]
    assert replace(state, removed_classes=(0, 1, 2)).looked_for(3).all()
    assert replace(state, background=0).looked_for(1).tolist() == [True]


def test_class_by_class_picks_leave_the_background_out():
    shares = np.eye(3, dtype=np.float32)[[2, 2, 2, 2, 0, 1]]
    entropy = np.array([9, 8, 7, 6, 0.1, 0.1], np.float32)
    actions = region_features(
        shares,
        entropy=entropy,
        class_entropy=shares * entropy[:, None],
        class_counts=100 * shares,
        boundary=np.zeros(6),
    )
    state = replace(_state(count=3), progress=1.0, background=2)
    clasp = strategy("clasp-pe")
    assert set(np.argsort(-clasp.scores(state, actions))[:3]) & {4, 5}
    assert "sky" not in " ".join(clasp.reasons(state, actions, CLASS_NAMES))
    drawn = np.zeros(6)
    for seed in range(400):
        state = replace(state, rng=np.random.default_rng(seed))
        drawn[strategy("foreground-random").scores(state, actions).argmax()] += 1
    assert drawn[4:].mean() > 1.4 * drawn[:4].mean()


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_ranks_a_pool_of_nothing_but_background(name):
    shares = np.tile(np.array([[0, 0, 1]], np.float32), (6, 1))
    embeddings = np.tile(np.array([[1, 0, 0, 0, 0]], np.float32), (6, 1))
    actions = _features(shares, embeddings, np.zeros((2, 6), np.float32))
    state = replace(_state((0, 0, 1000)), background=2)
    scores = told(strategy(name)).scores(state, actions)
    assert np.isfinite(scores).all()
    assert len(told(strategy(name)).reasons(state, actions, CLASS_NAMES)) == 6
