"""Q-values and what they should have been -> the loss of a query network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(B,) Q-values, (B,) targets and (B,) weights, None where all count alike -> their mean loss."""


def huber(
    q_values: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Half the square of an error up to 1, linear beyond it, as in the authors' code."""
    return _mean(functional.smooth_l1_loss(q_values, targets, reduction="none"), weights)


def squared(
    q_values: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The square of an error, as in the paper."""
    return _mean(functional.mse_loss(q_values, targets, reduction="none"), weights)


LOSSES: dict[str, Loss] = {"huber": huber, "squared": squared}


def find_loss(name: str) -> Loss:
    """The loss of that name.

    Raises:
        ValueError: if there is none, naming those there are.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss '{name}'; expected one of {', '.join(LOSSES)}")
    return LOSSES[name]


def _mean(losses: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return losses.mean() if weights is None else (weights * losses).mean()
