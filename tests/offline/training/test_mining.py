from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ralis_backend.offline.training.config import MisicalConfig
from ralis_backend.offline.training.mining import MiningEnv, gathered_share, reward_of
from tests.offline.training.make_searches import REGION_PIXELS, toy_search

CONFIG = MisicalConfig(num_steps=6, pool_size=5)


def _environment(**changes) -> MiningEnv:
    return MiningEnv([[toy_search(0), toy_search(1)], [toy_search(2)]], replace(CONFIG, **changes))


def test_it_keeps_gymnasiums_contract():
    with warnings.catch_warnings():
        # the checker dislikes unbounded spaces, and environments that are not registered
        warnings.simplefilter("ignore")
        check_env(_environment(), skip_render_check=True)


def test_an_episode_offers_regions_that_were_not_picked_and_ends_after_its_picks():
    environment = _environment()
    observation, info = environment.reset(seed=0)
    assert info == {"score": 0.0}
    is_over = False
    for number in range(6):
        assert not is_over
        search, offered = environment.search, environment.offered.copy()
        assert len(set(offered)) == 5
        assert not set(offered) & set(environment.picked)
        np.testing.assert_array_equal(observation["actions"][0], search.inputs[offered])
        np.testing.assert_array_equal(
            observation["state"], search.state(np.array(environment.picked, int), number / 6)
        )
        observation, reward, is_over, _, info = environment.step(np.array([2]))
        assert environment.picked[-1] == offered[2]
        assert info["rewards"].tolist() == pytest.approx([reward])
        assert info["score"] == gathered_share(search, np.array(environment.picked))
    assert is_over
    assert not observation["actions"].any()
    with pytest.raises(ValueError, match="call reset"):
        environment.step(np.array([0]))


def test_the_same_seed_gives_the_same_search_and_others_take_turns():
    environment, found = _environment(), set()
    for seed in range(12):
        first = environment.reset(seed=seed)[0]["actions"].copy()
        np.testing.assert_array_equal(environment.reset(seed=seed)[0]["actions"], first)
        found.add(id(environment.search))
    assert len(found) == 3


@pytest.mark.parametrize(
    ("share", "categorical", "continuous"),
    [(0, -0.1, 0), (1, 0.3, 0.05), (5, 0.7, 0.25), (19, 0.7, 0.95), (20, 1, 1), (90, 1, 4.5)],
)
def test_rewards_are_categories_of_presence_or_shares(share, categorical, continuous):
    search = replace(toy_search(0), some=0.05, much=0.2, pixels=np.full(150, share))
    assert search.annotated[7] == REGION_PIXELS
    assert reward_of(search, 7, CONFIG) == pytest.approx(categorical)
    rewards = replace(CONFIG, reward="continuous")
    assert reward_of(search, 7, rewards) == pytest.approx(continuous)


def test_too_few_regions_and_a_pick_of_none_are_refused():
    with pytest.raises(ValueError, match="take 200, and a search has 150"):
        _environment(num_steps=196)
    environment = _environment(num_steps=146)
    environment.reset(seed=0)
    with pytest.raises(ValueError, match="not one index below 5"):
        environment.step(np.array([5]))
