"""Steps of episodes -> transitions for the double-DQN update.

A step's K picks are K transitions. They share the observation, which is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

_EMPTY, _OPEN, _ACTED, _TERMINAL = range(4)


@dataclass(frozen=True)
class Transitions:
    """A batch of B transitions, on the buffer's device.

    states: (B, S, D_state). actions: (B, D_action), those picked. returns: (B,) discounted sum of
    the rewards up to the next state. next_states: (B, S, D_state) and next_actions: (B, N,
    D_action): where and from what the next pick of the same pool is made. discounts: (B,) factor
    of the next state's value, 0 where the episode ended before.
    """

    states: torch.Tensor
    actions: torch.Tensor
    returns: torch.Tensor
    next_states: torch.Tensor
    next_actions: torch.Tensor
    discounts: torch.Tensor


class ReplayBuffer:
    """The newest steps, overwritten one by one when it is full.

    Args:
        capacity: transitions kept, rounded up to whole steps of K.
        state_shape: (S, D_state).
        actions_shape: (K, N, D_action).
        num_steps: n of the n-step return.
        discount: gamma.
        device: where it is kept.

    Raises:
        ValueError: if `num_steps` or `capacity` is below 1.
    """

    def __init__(
        self,
        capacity: int,
        state_shape: tuple[int, ...],
        actions_shape: tuple[int, ...],
        *,
        num_steps: int = 1,
        discount: float = 0.99,
        device: str | torch.device = "cpu",
    ) -> None:
        if min(capacity, num_steps) < 1:
            raise ValueError(f"capacity {capacity} and num_steps {num_steps} must be at least 1")
        num_picks = actions_shape[0]
        size = -(-capacity // num_picks) + num_steps  # the newest steps still wait for their return
        self.num_steps = num_steps
        self.discount = discount
        self._tensors = {
            "states": torch.zeros(size, *state_shape, device=device),
            "actions": torch.zeros(size, *actions_shape, device=device),
            "picked": torch.zeros(size, num_picks, dtype=torch.int64, device=device),
            "rewards": torch.zeros(size, num_picks, device=device),
            "status": torch.zeros(size, dtype=torch.uint8),
            "next": torch.zeros(1, dtype=torch.int64),
        }

    def __len__(self) -> int:
        """Number of transitions that can be taken."""
        return len(self.complete()) * self.num_pools

    @property
    def num_slots(self) -> int:
        """Steps that it has room for."""
        return len(self._tensors["status"])

    @property
    def num_pools(self) -> int:
        """K, transitions of a step."""
        return self._tensors["picked"].shape[1]

    def begin(self, observation: Mapping[str, np.ndarray]) -> None:
        """The first observation of an episode."""
        self._append(observation)

    def add(
        self,
        picked: np.ndarray,
        rewards: np.ndarray,
        next_observation: Mapping[str, np.ndarray],
        is_terminal: bool,
    ) -> int:
        """What was done at the newest observation, and what followed.

        Args:
            picked: (K,) index picked from each pool.
            rewards: (K,) credit of each pick.
            next_observation: `state` and `actions`; not kept if the episode is over.
            is_terminal: whether it is.

        Returns:
            The slot of the step.

        Raises:
            ValueError: if no episode was begun.
        """
        slot = (int(self._tensors["next"]) - 1) % self.num_slots
        if self._tensors["status"][slot] != _OPEN:
            raise ValueError("no observation waits for an action; call begin() first")
        self._tensors["picked"][slot] = torch.from_numpy(np.asarray(picked, np.int64))
        self._tensors["rewards"][slot] = torch.from_numpy(np.asarray(rewards, np.float32))
        self._tensors["status"][slot] = _TERMINAL if is_terminal else _ACTED
        if not is_terminal:
            self._append(next_observation)
        return slot

    def complete(self) -> np.ndarray:
        """(M,) slots of the steps whose return and next state are known."""
        status = self._tensors["status"].numpy()
        # An observation overwrites the oldest slot, never one between a step and its next state.
        order = (int(self._tensors["next"]) + np.arange(len(status))) % len(status)
        in_order = status[order]
        is_over = in_order == _TERMINAL  # within this step and the n - 1 after it
        for step in range(1, self.num_steps):
            is_over[:-step] |= in_order[step:] == _TERMINAL
        has_next = np.arange(len(status)) + self.num_steps < len(status)
        is_complete = (in_order == _TERMINAL) | (in_order == _ACTED) & (is_over | has_next)
        complete: np.ndarray = order[is_complete]
        return complete

    def take(self, slots: torch.Tensor, pools: torch.Tensor) -> Transitions:
        """The transitions of some complete steps: (B,) slots, and of each the pool's index."""
        picked = self._tensors["picked"][slots, pools]
        returns, ahead, is_over = self._returns(slots, pools)
        factor = self.discount**self.num_steps * (~is_over).float()
        return Transitions(
            self._tensors["states"][slots],
            self._tensors["actions"][slots, pools, picked],
            returns,
            self._tensors["states"][ahead],
            self._tensors["actions"][ahead, pools],
            factor.to(returns.device),
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything, for a checkpoint."""
        return dict(self._tensors)

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint of a buffer of the same size."""
        for name, values in self._tensors.items():
            values.copy_(tensors[name])

    def _append(self, observation: Mapping[str, np.ndarray]) -> None:
        slot = int(self._tensors["next"])
        for name, key in (("states", "state"), ("actions", "actions")):
            self._tensors[name][slot] = torch.from_numpy(np.asarray(observation[key], np.float32))
        self._tensors["status"][slot] = _OPEN
        self._tensors["next"][0] = (slot + 1) % self.num_slots

    def _returns(
        self, slots: torch.Tensor, pools: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B,) returns, the slots of the next states, and whether the episode ended before."""
        rewards, status = self._tensors["rewards"], self._tensors["status"]
        returns = rewards[slots, pools].clone()
        is_over = status[slots] == _TERMINAL
        for step in range(1, self.num_steps):
            ahead = (slots + step) % self.num_slots
            # Later picks are not this one's continuation: their mean stands for them.
            later = rewards[ahead].mean(dim=1) * (~is_over).to(returns.device)
            returns += self.discount**step * later
            is_over = is_over | (status[ahead] == _TERMINAL)
        ahead = torch.where(is_over, slots, (slots + self.num_steps) % self.num_slots)
        return returns, ahead, is_over
