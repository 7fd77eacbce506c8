"""The search for one class as a Gymnasium environment: of n regions that are offered, pick one.

A double DQN that picks patches and is rewarded by categories of presence follows "Mining of
Single-Class by Active Learning for Semantic Segmentation" (arXiv:2307.09109); how many are offered,
what the state tells and what rewards are is our design. Nothing is trained in between: regions are
looked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ralis_backend.core.policy.misical_inputs import REGION_INPUTS, STATE_INPUTS
from ralis_backend.offline.training.config import MisicalConfig
from ralis_backend.offline.training.searches import Search

REWARDS = (-0.1, 0.3, 0.7, 1.0)
"""Of a region without the class, and of one with little, some and much of it."""


class MiningEnv(gymnasium.Env[Any, Any]):
    """One episode looks for one class, and picks `num_steps` regions, one by one.

    An observation holds `state`, (5,), and `actions`, (1, n, 35), both float32; an action is (1,)
    index. After the last step both are zero. `info` tells `score`: pixels of the class gathered, of
    the most that as many picks could have gathered from all candidates, and after a step `rewards`,
    (1,) float32.

    Args:
        heads: searches, a list of those of each head; each episode draws a head and one of its
            searches.
        config: the rules.

    Raises:
        ValueError: if a search has fewer regions than picks and offers take.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  Gymnasium's own attribute

    def __init__(self, heads: Sequence[Sequence[Search]], config: MisicalConfig) -> None:
        least = min(len(search) for searches in heads for search in searches)
        if least < config.num_steps + config.pool_size - 1:
            raise ValueError(
                f"{config.num_steps} picks of {config.pool_size} offered regions take "
                f"{config.num_steps + config.pool_size - 1}, and a search has {least}; lower "
                "num_steps or pool_size"
            )
        self._heads, self.config = heads, config
        self.num_steps = config.num_steps
        self.shapes = {
            "state": (len(STATE_INPUTS),),
            "actions": (1, config.pool_size, len(REGION_INPUTS)),
        }
        self.observation_space = spaces.Dict(
            {
                name: spaces.Box(-np.inf, np.inf, shape, np.float32)
                for name, shape in self.shapes.items()
            }
        )
        self.action_space = spaces.MultiDiscrete([config.pool_size])
        self.search: Search | None = None
        self.picked: list[int] = []
        self.offered: np.ndarray = np.zeros(0, np.int64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new search; the same seed gives the same one."""
        super().reset(seed=seed, options=options)
        searches = self._heads[int(self.np_random.integers(len(self._heads)))]
        self.search = searches[int(self.np_random.integers(len(searches)))]
        self.picked = []
        return self._observation(self.search), {"score": 0.0}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Take one of the regions that are offered.

        Raises:
            ValueError: if the episode is over, or the action is no index of what is offered.
        """
        if self.search is None or len(self.picked) >= self.num_steps:
            raise ValueError("the episode is over; call reset() to begin another")
        if not self.action_space.contains(np.asarray(action, np.int64)):
            raise ValueError(f"action {action!r} is not one index below {self.config.pool_size}")
        region = int(self.offered[int(action[0])])
        self.picked.append(region)
        reward = reward_of(self.search, region, self.config)
        observation = self._observation(self.search)
        info = {"score": self._score(self.search), "rewards": np.array([reward], np.float32)}
        return observation, reward, len(self.picked) >= self.num_steps, False, info

    def _observation(self, search: Search) -> dict[str, np.ndarray]:
        if len(self.picked) >= self.num_steps:
            return {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        is_open = np.ones(len(search), bool)
        is_open[self.picked] = False
        left = np.flatnonzero(is_open)
        self.offered = self.np_random.choice(left, self.config.pool_size, replace=False)
        picked = np.array(self.picked, np.int64)
        return {
            "state": search.state(picked, len(picked) / self.num_steps),
            "actions": search.inputs[self.offered][None],
        }

    def _score(self, search: Search) -> float:
        return gathered_share(search, np.array(self.picked, np.int64))


def gathered_share(search: Search, picked: np.ndarray) -> float:
    """Pixels of the class in the picks, of the most that as many could hold; in [0, 1]."""
    most = np.sort(search.pixels)[::-1][: len(picked)].sum()
    return float(search.pixels[picked].sum() / max(1, most))


def reward_of(search: Search, region: int, config: MisicalConfig) -> float:
    """What picking the region is worth."""
    share = float(search.pixels[region] / search.annotated[region])
    if config.reward == "continuous":
        return share / search.much
    if share == 0:
        return REWARDS[0]
    return REWARDS[1 + int(share >= search.some) + int(share >= search.much)]
