from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ralis_backend.core.policy import network_inputs
from ralis_backend.offline.training.environment import EnvironmentConfig, LabellingEnv
from ralis_backend.offline.training.rewards import SCORES, miou
from tests.offline.toy import ToySimulation

RULES = EnvironmentConfig(
    budget=24, regions_per_step=4, pool_size=5, initial_regions=8, credit_groups=2
)


def _best(environment: LabellingEnv) -> np.ndarray:
    return environment.simulation.is_useful[environment.pools].argmax(axis=1)


def test_it_passes_gymnasiums_own_checker():
    environment = LabellingEnv(ToySimulation(), RULES)
    with warnings.catch_warnings():
        # the checker dislikes unbounded spaces, and environments that are not registered
        warnings.simplefilter("ignore")
        check_env(environment, skip_render_check=True)


def test_an_episode_labels_the_budget_and_no_region_twice():
    environment = LabellingEnv(ToySimulation(), RULES)
    observation, info = environment.reset(seed=3)
    assert info["labelled"] == 8
    steps = 0
    is_over = False
    while not is_over:
        assert observation["actions"].shape == (4, 5, 4 + 1 + 192 + 64)
        assert not np.isin(environment.pools, environment.labelled).any()
        assert len(np.unique(environment.pools)) == 20
        observation, _, is_over, is_cut, info = environment.step(np.zeros(4, np.int64))
        assert not is_cut
        steps += 1
    assert steps == 4
    assert info["labelled"] == len(np.unique(environment.labelled)) == 24
    assert not observation["actions"].any()
    with pytest.raises(ValueError, match="reset"):
        environment.step(np.zeros(4, np.int64))


def test_the_same_seed_gives_the_same_episode():
    played = []
    for _ in range(2):
        environment = LabellingEnv(ToySimulation(), RULES)
        first, _ = environment.reset(seed=5)
        second, reward, *_ = environment.step(np.array([1, 2, 3, 4]))
        played.append((first["actions"], second["actions"], reward))
    for one, other in zip(*played, strict=True):
        np.testing.assert_array_equal(one, other)
    other, _ = environment.reset(seed=6)
    assert not np.array_equal(other["actions"], first["actions"])


def test_the_reward_is_the_rise_of_the_score_in_points():
    environment = LabellingEnv(ToySimulation(), RULES)
    _, before = environment.reset(seed=0)
    _, reward, *_, after = environment.step(_best(environment))
    assert reward == pytest.approx(100 * (after["score"] - before["score"]), abs=1e-4)
    np.testing.assert_allclose(after["rewards"], reward, rtol=1e-6)


def test_a_reward_that_another_package_adds_is_played_for(monkeypatch):
    monkeypatch.setitem(SCORES, "useful", lambda matrix: float(matrix[2, 2]) / 100)
    environment = LabellingEnv(ToySimulation(), replace(RULES, reward="useful"))
    environment.reset(seed=0)
    useful = environment.simulation.is_useful[environment.pools].any(axis=1).sum()
    _, reward, *_ = environment.step(_best(environment))
    assert reward == pytest.approx(2 * useful, abs=1e-4)  # two of its pixels a region


def test_the_first_reward_can_be_the_whole_score_as_in_the_original():
    environment = LabellingEnv(ToySimulation(), replace(RULES, is_first_reward_whole=True))
    _, _ = environment.reset(seed=0)
    _, reward, *_, info = environment.step(_best(environment))
    assert reward == pytest.approx(100 * info["score"], abs=1e-4)
    before = info["score"]
    _, reward, *_, info = environment.step(_best(environment))
    assert reward == pytest.approx(100 * (info["score"] - before), abs=1e-4)


def test_difference_rewards_credit_the_picks_that_helped():
    simulation = ToySimulation()
    environment = LabellingEnv(simulation, replace(RULES, credit="difference", credit_groups=4))
    environment.reset(seed=1)
    useful = simulation.is_useful[environment.pools]
    picks = np.where(np.arange(4) < 2, useful.argmax(axis=1), (~useful).argmax(axis=1))
    is_useful = useful[np.arange(4), picks]
    *_, info = environment.step(picks)
    assert is_useful.any()
    assert not is_useful.all()
    assert info["rewards"][is_useful].min() > 0
    assert (info["rewards"][~is_useful] == 0).all()


def test_differences_are_of_smoothed_scores_too():
    simulation = ToySimulation()
    credits = []
    for smoothing in (1, 2):
        rules = replace(RULES, credit="difference", credit_groups=4, smoothing=smoothing)
        environment = LabellingEnv(simulation, rules)
        environment.reset(seed=1)
        *_, info = environment.step(_best(environment))
        credits.append(info["rewards"])
    helped = credits[0] > 0
    assert helped.any()
    assert (credits[1][helped] > 0).all()
    assert (credits[1][helped] < credits[0][helped]).all()


def test_a_random_batch_from_the_same_state_can_be_the_baseline():
    simulation = ToySimulation()
    environment = LabellingEnv(simulation, replace(RULES, baseline="random"))
    environment.reset(seed=2)
    _, good, *_ = environment.step(_best(environment))
    assert simulation.calls[-1][0] == [12, 12]
    assert good > 0
    environment.reset(seed=2)
    useless = (~simulation.is_useful[environment.pools]).argmax(axis=1)
    _, bad, *_ = environment.step(useless)
    assert bad <= 0 < good


def test_smoothing_takes_the_score_of_the_last_two_evaluations():
    environment = LabellingEnv(ToySimulation(), replace(RULES, smoothing=2))
    _, first = environment.reset(seed=0)
    _, reward, *_, second = environment.step(_best(environment))
    assert 0 < reward < 100 * (second["score"] - first["score"])


def test_training_sees_all_labels_or_only_the_newest():
    for memory, expected in (("all", 12), ("newest", 4)):
        simulation = ToySimulation()
        environment = LabellingEnv(simulation, replace(RULES, memory=memory))
        environment.reset(seed=0)
        environment.step(np.zeros(4, np.int64))
        assert simulation.calls[-1][0] == [expected]


def test_the_unlabelled_set_is_the_whole_pool_or_the_candidates():
    whole, candidates = (
        LabellingEnv(ToySimulation(), replace(RULES, unlabelled=kind))
        for kind in ("whole", "candidates")
    )
    rng = np.random.default_rng(0)
    for environment, expected in ((whole, 192), (candidates, None)):
        environment.reset(seed=4)
        state = environment.pool_state(rng)
        counts = state.unlabelled_counts
        assert (None if counts is None else len(counts)) == expected
        offered = environment.simulation.describe(environment.pools.reshape(-1))
        _, actions = network_inputs(state, offered, "repaired")
        observed = environment._observation()["actions"]
        np.testing.assert_array_equal(actions.numpy().reshape(observed.shape), observed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 400}, "exceeds the pool's 200 regions"),
        ({"budget": 25}, "multiple of regions_per_step 4"),
        ({"budget": 8}, "positive multiple"),
        ({"pool_size": 60}, "unlabelled ones"),
        ({"regions_per_step": 0}, "at least 1"),
        ({"credit": "difference", "credit_groups": 9}, "credit_groups is 9"),
        ({"credit": "difference", "baseline": "random"}, "takes baseline 'none'"),
        ({"credit": "difference", "is_first_reward_whole": True}, "is_first_reward_whole false"),
        ({"reward": "dice"}, "unknown reward 'dice'"),
    ],
)
def test_rules_that_do_not_fit_are_refused_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        LabellingEnv(ToySimulation(), replace(RULES, **changes))


def test_an_action_outside_the_pools_is_refused():
    environment = LabellingEnv(ToySimulation(), RULES)
    environment.reset(seed=0)
    for action in (np.array([0, 0, 0, 5]), np.zeros(3, np.int64), np.array([-1, 0, 0, 0])):
        with pytest.raises(ValueError, match="indices below 5"):
            environment.step(action)
    with pytest.raises(ValueError, match="reset"):
        LabellingEnv(ToySimulation(), RULES).step(np.zeros(4, np.int64))


def test_the_background_is_neither_scored_nor_hidden_from_formulas():
    simulation = ToySimulation()
    simulation.background = 0
    environment = LabellingEnv(simulation, replace(RULES, credit="shared"))
    _, info = environment.reset(seed=3)
    before = simulation.evaluate()
    assert info["score"] == miou(before, 0) != miou(before)
    _, reward, *_ = environment.step(_best(environment))
    assert reward == pytest.approx(100 * (miou(simulation.evaluate(), 0) - miou(before, 0)))
    assert environment.pool_state(environment.np_random).background == 0
