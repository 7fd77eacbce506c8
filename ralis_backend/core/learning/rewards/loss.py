"""Advantages -> a loss: a clipped policy gradient, held near a reference. All of it is [D]."""

from __future__ import annotations

import torch

from ralis_backend.core.learning.rewards.actions import log_probabilities
from ralis_backend.core.learning.rewards.config import RewardConfig


def clipped_gain(
    chosen: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float
) -> torch.Tensor:
    """What is gained by each action: min(rho A, clip(rho, 1 - clip, 1 + clip) A).

    Rho is the ratio of the new and the old probability; as long as they are the same, its gradient
    is that of REINFORCE. Source: "Proximal policy optimization algorithms", arXiv:1707.06347.

    Args:
        chosen: log-probabilities of the actions.
        old: the same when they were drawn; of this shape, as all, without gradients.
        advantages: of the actions.
        clip: in [0, 1).
    """
    ratio = (chosen - old).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def divergence(log_policy: torch.Tensor, log_reference: torch.Tensor) -> torch.Tensor:
    """KL(pi || reference), in nats, mean over cells; both (B, C, rows, cols) log-probabilities."""
    return (log_policy.exp() * (log_policy - log_reference)).sum(dim=1).mean()


def entropy(log_policy: torch.Tensor) -> torch.Tensor:
    """Of (B, C, rows, cols) log-probabilities, in nats, mean over cells."""
    return -(log_policy.exp() * log_policy).sum(dim=1).mean()


def policy_loss(
    log_policy: torch.Tensor,
    actions: torch.Tensor,
    advantages: torch.Tensor,
    old: torch.Tensor,
    log_reference: torch.Tensor | None,
    config: RewardConfig,
) -> torch.Tensor:
    """A scalar to be lowered: - gain + kl_weight KL(pi || reference) - entropy_weight H(pi).

    Args:
        log_policy: (B, C, rows, cols) log-probabilities.
        actions: (G, B, rows, cols) int64 classes that were drawn.
        advantages: (G, B, rows, cols); 0 moves nothing.
        old: (G, B, rows, cols) log-probabilities of the actions when they were drawn.
        log_reference: (B, C, rows, cols) of the reference; None: there is none.
        config: the weights.
    """
    chosen = log_probabilities(log_policy, actions)
    loss = -clipped_gain(chosen, old, advantages, config.clip).mean()
    if config.entropy_weight:
        loss = loss - config.entropy_weight * entropy(log_policy)
    if log_reference is not None:
        loss = loss + config.kl_weight * divergence(log_policy, log_reference)
    return loss
