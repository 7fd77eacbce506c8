"""What a training by Q-learning asks of a game and of a configuration, whatever the game is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np

from ralis_backend.offline.training.dqn import DqnConfig

Observation = dict[str, np.ndarray]
"""`state`, and `actions`, (K, N, D_action), both float32: one of N is picked from each of K."""


class Game(Protocol):
    """A Gymnasium environment whose episodes all have the same length."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the observation's arrays."""

    @property
    def num_steps(self) -> int:
        """Of an episode."""

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """A new episode; the same seed gives the same one."""

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Pick; the last part tells `score`, in [0, 1], and `rewards`, (K,): each pick's credit."""


class Schedule(Protocol):
    """How long is learned and what is kept: what configurations of such trainings share."""

    @property
    def episodes(self) -> int:
        """How many times the game is played."""

    @property
    def dqn(self) -> DqnConfig:
        """How the network learns."""

    @property
    def keep(self) -> Literal["last", "best"]:
        """The network of the last episode, or the best one in the evaluations."""

    @property
    def evaluate_every(self) -> int:
        """Episodes between two greedy evaluations; 0: none."""

    @property
    def evaluation_episodes(self) -> int:
        """Games per evaluation, always the same ones."""

    @property
    def checkpoint_every(self) -> int:
        """Episodes between two checkpoints."""

    @property
    def does_shuffle_rewards(self) -> bool:
        """Whether each step's reward is replaced by an earlier one's."""
