"""Batch-mode double DQN: transitions -> a better query network.

Source: arXiv:2002.06583 and its authors' code; double Q-learning as in arXiv:1509.06461.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ralis_backend.core.bounds import AMOUNT, COUNT, POSITIVE, SHARE, Bounds, check_bounds
from ralis_backend.core.weights import below
from ralis_backend.offline.training.buffer import Transitions
from ralis_backend.offline.training.losses import LOSSES, Loss, find_loss
from ralis_backend.offline.training.targets import HardCopy, TargetRule


@dataclass(frozen=True)
class DqnConfig:
    """How the query network learns.

    optimizer, learning_rate, momentum, weight_decay: `sgd` uses the momentum, `adam` does not.
    learning_rate_decay: factor per AL step, never reset; 1 keeps the rate.
    discount: gamma. num_steps: n of the n-step return.
    choice_statistics: BatchNorm statistics with which the next pick is chosen in the target: of the
        `batch`, as in the authors' code, or `running` ones, as when the policy is used.
    loss: of `losses`: `huber` as in the authors' code, or `squared` as in the paper.
    batch_size: transitions per update. updates_per_step: updates per AL step.
    update_every: AL steps from one that is followed by updates to the next.
    replay_capacity: transitions. learning_starts: transitions gathered before the first update.
    target_update: the target network is renewed every so many AL steps.
    does_update_target_at_start: also at the first step of each episode.
    epsilon_start, epsilon_end: chance of a random pick at first and at last.
    epsilon_decay: AL steps: the time constant of the `exponential` schedule, the length of the
        `linear` one.
    epsilon_schedule: which.
    exploration: one draw decides for the whole `batch`, or each `pick` has its own.
    clip_norm: largest norm of a gradient; None: any.
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 1e-3
    momentum: float = 0.95
    weight_decay: float = 1e-3
    learning_rate_decay: float = 0.97
    discount: float = 0.999
    num_steps: int = 1
    choice_statistics: Literal["batch", "running"] = "batch"
    loss: str = field(default="huber", metadata={"choices": LOSSES})
    batch_size: int = 16
    updates_per_step: int = 1
    update_every: int = 1
    replay_capacity: int = 600
    learning_starts: int = 16
    target_update: int = 5
    does_update_target_at_start: bool = True
    epsilon_start: float = 0.9
    epsilon_end: float = 0.05
    epsilon_decay: float = 10.0
    epsilon_schedule: Literal["exponential", "linear"] = "exponential"
    exploration: Literal["batch", "pick"] = "batch"
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                "learning_rate": AMOUNT,
                "momentum": Bounds(0, 1, is_below=True),
                "weight_decay": AMOUNT,
                "learning_rate_decay": POSITIVE,
                "discount": SHARE,
                "num_steps": COUNT,
                "batch_size": COUNT,
                "updates_per_step": AMOUNT,
                "update_every": COUNT,
                "replay_capacity": COUNT,
                "learning_starts": AMOUNT,
                "target_update": COUNT,
                "epsilon_start": SHARE,
                "epsilon_end": SHARE,
                "epsilon_decay": POSITIVE,
                "clip_norm": POSITIVE,
            },
        )


@dataclass(frozen=True)
class Update:
    """What came of a gradient step.

    loss: before it.
    errors: (B,) float32 Q-value minus target of each transition, before it.
    """

    loss: float
    errors: torch.Tensor


class DoubleDqn:
    """A query network, its lagged copy, and the update rule.

    Args:
        network: learns; (B, S, D_state) states and (B, N, D_action) actions -> (B, N) Q-values.
        config: how.
        loss: None: the configuration's.
        target_rule: how the lagged copy follows; None: copied as the configuration says.

    Raises:
        ValueError: if the configuration names no loss of `losses`.

    Attributes:
        num_steps_done: AL steps since the start of the training.
    """

    def __init__(
        self,
        network: nn.Module,
        config: DqnConfig,
        *,
        loss: Loss | None = None,
        target_rule: TargetRule | None = None,
    ) -> None:
        self.config = config
        self.network = network
        self.target = deepcopy(network).eval()
        self.num_steps_done = 0
        self._optimizer = _optimizer(network, config)
        self._loss = loss or find_loss(config.loss)
        self._target_rule = target_rule or HardCopy(
            config.target_update, config.does_update_target_at_start
        )

    @property
    def epsilon(self) -> float:
        """Chance of a random pick at this step."""
        config, done = self.config, self.num_steps_done
        if config.epsilon_schedule == "linear":
            left = max(0.0, 1 - done / config.epsilon_decay)
        else:
            left = math.exp(-done / config.epsilon_decay)
        return config.epsilon_end + (config.epsilon_start - config.epsilon_end) * left

    def values(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """(K, N) Q-values of an observation's pools."""
        self.network.eval()
        with torch.inference_mode():
            device = next(self.network.parameters()).device
            state = torch.from_numpy(observation["state"]).to(device)[None]
            actions = torch.from_numpy(observation["actions"]).to(device)
            q_values = self.network(state, actions.flatten(0, 1)[None])
        return np.asarray(q_values.reshape(actions.shape[:2]).cpu().numpy())

    def act(self, observation: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """(K,) picks: the best of each pool, or with the chance `epsilon` random ones."""
        num_pools, pool_size = observation["actions"].shape[:2]
        num_draws = num_pools if self.config.exploration == "pick" else 1
        is_random = np.broadcast_to(rng.random(num_draws) < self.epsilon, num_pools)
        at_random: np.ndarray = rng.integers(pool_size, size=num_pools)
        if is_random.all():
            return at_random
        best = self.values(observation).argmax(axis=1)
        return np.asarray(np.where(is_random, at_random, best))

    def begin_episode(self) -> None:
        """Called before each episode's first step."""
        self._target_rule.begin_episode(self.target, self.network)

    def end_step(self) -> None:
        """Called after each AL step and its updates: schedules and the target network."""
        self.num_steps_done += 1
        self._target_rule.end_step(self.target, self.network, self.num_steps_done)
        rate = self.config.learning_rate * self.config.learning_rate_decay**self.num_steps_done
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def update(self, batch: Transitions, weights: torch.Tensor | None = None) -> Update:
        """One gradient step towards r + gamma^n Q_target(s', argmax_a Q(s', a)).

        Args:
            batch: what is learned from.
            weights: (B,) importance weights of the transitions; None: all count alike.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        targets = self._targets(batch)
        self.network.train()
        q_values = self.network(batch.states, batch.actions[:, None])[:, 0]
        loss = self._loss(q_values, targets, weights)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the query network's loss became {value}; lower learning_rate "
                f"({self.config.learning_rate}) or set clip_norm"
            )
        self._descend(loss)
        self.network.eval()
        self._target_rule.after_update(self.target, self.network)
        return Update(value, (q_values - targets).detach())

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain numbers for a checkpoint."""
        optimizer = self._optimizer.state_dict()
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"target/{name}": value for name, value in self.target.state_dict().items()}
        tensors |= {
            f"optimizer/{index}/{name}": value
            for index, values in optimizer["state"].items()
            for name, value in values.items()
            if value is not None
        }
        return tensors, {
            "num_steps_done": self.num_steps_done,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
        }

    def load_state_dict(
        self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]
    ) -> None:
        """Go on from a checkpoint."""
        self.network.load_state_dict(below("network/", tensors))
        self.target.load_state_dict(below("target/", tensors))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in below("optimizer/", tensors).items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        for group in self._optimizer.param_groups:
            group["lr"] = numbers["learning_rate"]
        self.num_steps_done = int(numbers["num_steps_done"])

    def _targets(self, batch: Transitions) -> torch.Tensor:
        """(B,) what the Q-values should be."""
        with torch.no_grad():
            self.network.train(self.config.choice_statistics == "batch")
            best = self.network(batch.next_states, batch.next_actions).argmax(dim=1, keepdim=True)
            ahead = self.target(batch.next_states, batch.next_actions).gather(1, best)[:, 0]
            targets: torch.Tensor = batch.returns + batch.discounts * ahead
        return targets

    def _descend(self, loss: torch.Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self._optimizer.step()


def _optimizer(network: nn.Module, config: DqnConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
