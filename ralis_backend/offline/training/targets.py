"""How the target network of a double DQN follows the query network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


class TargetRule:
    """Is called at each of these moments; this one does nothing, and a rule overrides some.

    A rule takes over buffers too, not parameters alone: BatchNorm's statistics are buffers.
    """

    def begin_episode(self, target: nn.Module, network: nn.Module) -> None:
        """Before an episode's first step."""

    def after_update(self, target: nn.Module, network: nn.Module) -> None:
        """After each gradient step."""

    def end_step(self, target: nn.Module, network: nn.Module, num_steps_done: int) -> None:
        """After each AL step and its updates; `num_steps_done` since the start of the training."""


@dataclass(frozen=True)
class HardCopy(TargetRule):
    """The target network becomes the query network, now and then.

    every: AL steps.
    does_copy_at_start: also at the first step of each episode.
    """

    every: int
    does_copy_at_start: bool = False

    def begin_episode(self, target: nn.Module, network: nn.Module) -> None:
        """Copy, if it does so at the start."""
        if self.does_copy_at_start:
            target.load_state_dict(network.state_dict())

    def end_step(self, target: nn.Module, network: nn.Module, num_steps_done: int) -> None:
        """Copy, if it is time."""
        if num_steps_done % self.every == 0:
            target.load_state_dict(network.state_dict())


@dataclass(frozen=True)
class SoftUpdate(TargetRule):
    """After each gradient step the target network moves a little towards the query network.

    rate: share of the way; counts, as BatchNorm's number of batches, are copied. Source:
        arXiv:1509.02971.
    """

    rate: float = 0.005

    def after_update(self, target: nn.Module, network: nn.Module) -> None:
        """Move."""
        new = network.state_dict()
        with torch.no_grad():
            for name, value in target.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(new[name], self.rate)
                else:
                    value.copy_(new[name])
