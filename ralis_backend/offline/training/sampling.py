"""Which transitions of a replay buffer are learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ralis_backend.offline.training.buffer import ReplayBuffer


@dataclass(frozen=True)
class Draw:
    """Where B drawn transitions lie in their buffer, and how much each counts.

    slots, pools: (B,) int64.
    weights: (B,) float32 importance weights; None: all count alike.
    """

    slots: torch.Tensor
    pools: torch.Tensor
    weights: torch.Tensor | None = None


class Sampler(Protocol):
    """Draws transitions of the buffer that it was made for, and is told what happens to them."""

    def added(self, slot: int) -> None:
        """A step was written to this slot of the buffer."""

    def draw(self, batch_size: int, rng: np.random.Generator) -> Draw:
        """`batch_size` of the buffer's complete transitions.

        Raises:
            ValueError: if none is complete yet.
        """

    def learned(self, draw: Draw, errors: torch.Tensor) -> None:
        """The (B,) temporal-difference errors of a draw, Q-value minus target."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What it remembers, for a checkpoint."""

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""


class UniformSampler:
    """Each transition is as likely as any other, with repetition; remembers nothing."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self._buffer = buffer

    def added(self, slot: int) -> None:
        """All slots are alike."""

    def draw(self, batch_size: int, rng: np.random.Generator) -> Draw:
        """`batch_size` of the buffer's complete transitions.

        Raises:
            ValueError: if none is complete yet.
        """
        complete = self._buffer.complete()
        if not len(complete):
            raise ValueError("the buffer holds no complete transition yet")
        slots = rng.choice(complete, batch_size)
        pools = rng.integers(self._buffer.num_pools, size=batch_size)
        return Draw(torch.from_numpy(slots), torch.from_numpy(pools))

    def learned(self, draw: Draw, errors: torch.Tensor) -> None:
        """All errors are alike."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Nothing."""


_LEAST_PRIORITY = 1e-3


class PrioritisedSampler:
    """Transitions whose error was large are drawn more often, and count less for it.

    The proportional variant of "Prioritized Experience Replay" (arXiv:1511.05952): a transition's
    chance is its priority |error| + 0.001 to the power alpha; its importance weight is its chance
    times the number of transitions, to the power -beta, over the largest weight of the draw. What
    was not learned from yet has the largest priority so far.

    Args:
        buffer: whose transitions.
        alpha: 0 draws all alike.
        beta: at the first draw and from the `num_draws`th on, linear between them; 1 undoes the
            bias.
        num_draws: until beta stays as it is.
    """

    def __init__(
        self,
        buffer: ReplayBuffer,
        *,
        alpha: float = 0.6,
        beta: tuple[float, float] = (0.4, 1.0),
        num_draws: int = 10_000,
    ) -> None:
        self._buffer, self._alpha, self._beta = buffer, alpha, beta
        self._num_draws = num_draws
        self._priorities = torch.zeros(buffer.num_slots, buffer.num_pools, dtype=torch.float64)
        self._largest = torch.ones(1, dtype=torch.float64)
        self._drawn = torch.zeros(1, dtype=torch.int64)

    @property
    def beta(self) -> float:
        """Power of the next draw's importance weights."""
        share = min(1.0, int(self._drawn) / max(1, self._num_draws))
        return self._beta[0] + (self._beta[1] - self._beta[0]) * share

    def added(self, slot: int) -> None:
        """The step's transitions are as likely as the likeliest."""
        self._priorities[slot] = self._largest

    def draw(self, batch_size: int, rng: np.random.Generator) -> Draw:
        """`batch_size` of the buffer's complete transitions, with importance weights.

        Raises:
            ValueError: if none is complete yet.
        """
        complete = self._buffer.complete()
        if not len(complete):
            raise ValueError("the buffer holds no complete transition yet")
        powers = self._priorities.numpy()[complete].ravel() ** self._alpha
        reached = np.cumsum(powers)
        chance = rng.random(batch_size) * reached[-1]
        drawn = np.minimum(np.searchsorted(reached, chance, side="right"), len(powers) - 1)
        weights = (len(powers) * powers[drawn] / reached[-1]) ** -self.beta
        self._drawn += 1
        num_pools = self._buffer.num_pools
        return Draw(
            torch.from_numpy(complete[drawn // num_pools]),
            torch.from_numpy(drawn % num_pools),
            torch.from_numpy(weights / weights.max()).float(),
        )

    def learned(self, draw: Draw, errors: torch.Tensor) -> None:
        """The errors are the transitions' priorities from now on."""
        priorities = errors.abs().cpu().double() + _LEAST_PRIORITY
        self._priorities[draw.slots, draw.pools] = priorities
        self._largest = torch.maximum(self._largest, priorities.max())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Priorities, and how many draws there were."""
        return {"priorities": self._priorities, "largest": self._largest, "drawn": self._drawn}

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint of a buffer of the same size."""
        for name, values in self.state_dict().items():
            values.copy_(tensors[name])
