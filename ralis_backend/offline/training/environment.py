"""The labelling game as a Gymnasium environment: look at K pools of regions, pick one from each.

State, actions, reward and end follow "Reinforced Active Learning for Image Segmentation"
(arXiv:2002.06583). Labels come from the dataset, so an annotator never waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from ralis_backend.core.acquisition import PoolState, Strategy
from ralis_backend.core.bounds import AMOUNT, COUNT, check_bounds
from ralis_backend.core.features.ralis import Unlabelled, Variant
from ralis_backend.offline.training import rewards
from ralis_backend.offline.training.observation import Encoder, RalisInputs
from ralis_backend.simulation import Simulation


@dataclass(frozen=True)
class EnvironmentConfig:
    """The rules of the game.

    budget: labelled regions at which an episode ends.
    regions_per_step: K, regions picked and labelled at once, one from each pool.
    pool_size: N, regions offered in a pool.
    initial_regions: drawn at random and labelled before the first step; with 0 the first segmenter
        learns from the state set instead, and none of the pool is labelled.
    variant: features of the observation.
    unlabelled: what the second divergence compares with: the `candidates` of the step, as in the
        authors' code, or the `whole` unlabelled pool, as in the paper.
    reward: a score of `rewards`.
    is_first_reward_whole: the first step is rewarded with the whole score, as in the authors' code,
        instead of its rise.
    credit: `shared` gives each pick the step's reward; `difference` gives each of `credit_groups`
        groups of picks as many times what the score loses without that group: the mean of the
        credits is then the sum of the losses.
    credit_groups: how many groups.
    baseline: of shared credit; `random` subtracts the reward of a random batch from the same
        state, trained with the same random numbers.
    smoothing: a score is taken from the confusion matrices of this many last steps.
    memory: each training call sees `all` labelled regions, or only the `newest` K.
    updates_per_step: gradient steps of a training call; None: one epoch.
    initial_updates: gradient steps of the first segmenter.
    """

    budget: int = 480
    regions_per_step: int = 24
    pool_size: int = 20
    initial_regions: int = 48
    variant: Variant = "repaired"
    unlabelled: Unlabelled = "whole"
    reward: str = field(default="miou", metadata={"choices": rewards.SCORES})
    is_first_reward_whole: bool = False
    credit: Literal["shared", "difference"] = "shared"
    credit_groups: int = 6
    baseline: Literal["none", "random"] = "none"
    smoothing: int = 1
    memory: Literal["all", "newest"] = "all"
    updates_per_step: int | None = 60
    initial_updates: int = 200

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                "budget": COUNT,
                "regions_per_step": COUNT,
                "pool_size": COUNT,
                "initial_regions": AMOUNT,
                "credit_groups": COUNT,
                "smoothing": COUNT,
                "updates_per_step": AMOUNT,
                "initial_updates": AMOUNT,
            },
        )


class LabellingEnv(gymnasium.Env[Any, Any]):
    """One episode labels `budget` regions of a pool, K per step.

    An observation holds `state`, and `actions`, (K, N, D_action), both float32, as the encoder
    makes them; an action is (K,) indices into the pools. After the last step both are zero. `info`
    tells
    `labelled` (number of regions), `score` (of the segmenter on the reward set, in [0, 1]) and,
    after a step, `rewards`, (K,) float32: the credit of each pick, whose mean is the reward.

    Args:
        simulation: pool and segmenter.
        config: the rules.
        encoder: makes observations; None: those of RALIS, of the rules' variant.

    Attributes:
        shapes: of the observation's arrays.
        labelled: regions labelled so far, in the order of their labels.

    Raises:
        ValueError: if the pool is too small for budget, pools or steps.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  Gymnasium's own attribute

    def __init__(
        self,
        simulation: Simulation,
        config: EnvironmentConfig,
        encoder: Encoder | None = None,
    ) -> None:
        _check(config, len(simulation.class_pixels))
        self.simulation = simulation
        self.config = config
        self._score = rewards.find_score(config.reward, simulation.background)
        self._encoder = encoder or RalisInputs(config.variant)
        state, action_length = self._encoder.shapes(simulation)
        self.shapes = {
            "state": state,
            "actions": (config.regions_per_step, config.pool_size, action_length),
        }
        self.observation_space = spaces.Dict(
            {
                name: spaces.Box(-np.inf, np.inf, shape, np.float32)
                for name, shape in self.shapes.items()
            }
        )
        self.action_space = spaces.MultiDiscrete([config.pool_size] * config.regions_per_step)
        self.labelled: np.ndarray = np.zeros(0, np.int64)
        self._matrices: list[np.ndarray] = []
        self._pools = np.zeros((0, 0), np.int64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new episode; the same seed gives the same one."""
        super().reset(seed=seed, options=options)
        config = self.config
        self.labelled = self.np_random.choice(
            len(self.simulation.class_pixels), config.initial_regions, replace=False
        )
        seed = self._seed() if config.initial_regions else 0  # then one and the same f_0
        self.simulation.begin(self.labelled, config.initial_updates, seed)
        self._matrices = [self.simulation.evaluate()]
        self._draw_pools()
        return self._observation(), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Label one region of each pool, train, and measure.

        Raises:
            ValueError: if the episode is over, or the action is no index into each pool.
        """
        if len(self.labelled) >= self.config.budget or not self._matrices:
            raise ValueError("the episode is over; call reset() to begin another")
        if not self.action_space.contains(np.asarray(action, np.int64)):
            raise ValueError(
                f"action {action!r} is not {self.config.regions_per_step} indices below "
                f"{self.config.pool_size}, one for each pool"
            )
        picked = self._pools[np.arange(len(self._pools)), np.asarray(action)]  # (K,)
        credits = self._learn(picked)
        self.labelled = np.concatenate([self.labelled, picked])
        is_over = len(self.labelled) >= self.config.budget
        self._draw_pools()
        info = self._info() | {"rewards": credits}
        return self._observation(), float(credits.mean()), is_over, False, info

    @property
    def num_steps(self) -> int:
        """Of an episode."""
        rules = self.config
        return (rules.budget - rules.initial_regions) // rules.regions_per_step

    @property
    def pools(self) -> np.ndarray:
        """(K, N) regions offered now."""
        return self._pools

    def advised(self, strategy: Strategy) -> np.ndarray:
        """(K,) the picks of a formula, as an action."""
        offered, pools = self._pools.reshape(-1), np.arange(len(self._pools))
        state = replace(
            self.pool_state(self.np_random),
            pool_index=np.repeat(pools, self._pools.shape[1]),
        )
        features = self.simulation.describe(offered, strategy.needs.features)
        scores = strategy.scores(state, features).reshape(self._pools.shape)
        picked: np.ndarray = scores.argmax(axis=1)
        return picked

    def pool_state(self, rng: np.random.Generator) -> PoolState:
        """What a strategy of `core` is told, so that heuristics play the same game."""
        simulation, config = self.simulation, self.config
        is_whole = config.unlabelled == "whole"
        return PoolState(
            simulation.class_pixels[self.labelled],
            simulation.embeddings(self.labelled),
            config.regions_per_step,
            rng,
            simulation.describe_state(self._encoder.features),
            simulation.class_counts(self._unlabelled()) if is_whole else None,
            background=simulation.background,
            removed_classes=simulation.removed_classes,
        )

    def _learn(self, picked: np.ndarray) -> np.ndarray:
        """Train on the picks, and on what else the rewards need; (K,) float32 credits."""
        config = self.config
        label_sets, groups = [self._training_set(picked)], []
        if config.baseline == "random":
            others = self.np_random.choice(self._pools.reshape(-1), len(picked), replace=False)
            label_sets.append(self._training_set(others))
        if config.credit == "difference":
            shuffled = self.np_random.permutation(len(picked))
            groups = np.array_split(shuffled, config.credit_groups)
            label_sets += [self._training_set(np.delete(picked, group)) for group in groups]
        matrices = self.simulation.learn(label_sets, config.updates_per_step, self._seed())
        before = self._recent(self._matrices)
        after = self._recent([*self._matrices, matrices[0]])
        total = self._rise(before, after)
        if config.is_first_reward_whole and len(self._matrices) == 1:
            total = 100 * self._score(after)
        if config.baseline == "random":
            other = self._recent([*self._matrices, matrices[1]])
            total -= self._rise(before, other)
        credits = np.full(len(picked), total, np.float32)
        for group, matrix in zip(groups, matrices[len(matrices) - len(groups) :], strict=True):
            without = self._recent([*self._matrices, matrix])
            credits[group] = self._rise(without, after) * len(groups)
        self._matrices.append(matrices[0])
        return credits

    def _rise(self, before: np.ndarray, after: np.ndarray) -> float:
        return rewards.reward(self.config.reward, before, after, self.simulation.background)

    def _training_set(self, picked: np.ndarray) -> np.ndarray:
        if self.config.memory == "newest":
            return picked
        return np.concatenate([self.labelled, picked])

    def _recent(self, matrices: list[np.ndarray]) -> np.ndarray:
        recent: np.ndarray = np.sum(matrices[-self.config.smoothing :], axis=0)
        return recent

    def _unlabelled(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.simulation.class_pixels)), self.labelled)

    def _draw_pools(self) -> None:
        shape = (self.config.regions_per_step, self.config.pool_size)
        if len(self.labelled) >= self.config.budget:
            self._pools = np.zeros((0, shape[1]), np.int64)
            return
        drawn = self.np_random.choice(self._unlabelled(), shape[0] * shape[1], replace=False)
        self._pools = drawn.reshape(shape)

    def _observation(self) -> dict[str, np.ndarray]:
        if not len(self._pools):
            return {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        offered = self.simulation.describe(self._pools.reshape(-1), self._encoder.features)
        state, actions = self._encoder.encode(self.pool_state(self.np_random), offered)
        return {"state": state, "actions": actions.reshape(self.shapes["actions"])}

    def _info(self) -> dict[str, Any]:
        return {"labelled": len(self.labelled), "score": self._score(self._matrices[-1])}

    def _seed(self) -> int:
        return int(self.np_random.integers(2**31))


def _check(config: EnvironmentConfig, num_regions: int) -> None:
    if min(config.budget, config.regions_per_step, config.pool_size, config.smoothing) < 1:
        raise ValueError(
            f"budget {config.budget}, regions_per_step {config.regions_per_step}, pool_size "
            f"{config.pool_size} and smoothing {config.smoothing} must be at least 1"
        )
    if config.credit == "difference" and (config.baseline, config.is_first_reward_whole) != (
        "none",
        False,
    ):
        raise ValueError(
            "credit 'difference' is what the score loses without a group of picks; it takes "
            f"baseline 'none' and is_first_reward_whole false, not {config.baseline!r} and "
            f"{config.is_first_reward_whole}: change these, or set credit to 'shared'"
        )
    to_label = config.budget - config.initial_regions
    if to_label < 1 or to_label % config.regions_per_step:
        raise ValueError(
            f"budget {config.budget} minus initial_regions {config.initial_regions} is {to_label}; "
            f"expected a positive multiple of regions_per_step {config.regions_per_step}"
        )
    if config.budget > num_regions:
        raise ValueError(
            f"budget {config.budget} exceeds the pool's {num_regions} regions; lower the budget"
        )
    left = num_regions - (config.budget - config.regions_per_step)
    offered = config.regions_per_step * config.pool_size
    if offered > left:
        raise ValueError(
            f"the last step would offer {config.regions_per_step} pools of {config.pool_size} "
            f"regions from {left} unlabelled ones; lower regions_per_step, pool_size or budget"
        )
    if config.credit == "difference" and not 2 <= config.credit_groups <= config.regions_per_step:
        raise ValueError(
            f"credit_groups is {config.credit_groups}, expected 2 to regions_per_step "
            f"{config.regions_per_step}"
        )
