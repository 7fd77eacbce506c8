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
