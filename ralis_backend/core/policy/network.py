"""State and actions -> Q-values, with the layers of the RALIS paper's query network.

Each layer is BatchNorm -> ReLU -> linear, the last one without ReLU; a linear layer along the last
axis is the paper's 1x1 convolution over regions. Source: arXiv:2002.06583 and its authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from ralis_backend.core.features.ralis import NUM_BINS, region_length


class QueryNetwork(nn.Module):
    """Q(s, a) = sigmoid(gate(KL histograms)) * value(state, region).

    Args:
        num_classes: C, without void.
        num_state_regions: S, the rows of the state. Both fix the network's shape, so that it
            serves no other label set.
    """

    def __init__(self, num_classes: int, num_state_regions: int) -> None:
        super().__init__()
        self.region_length = region_length(num_classes)
        self.num_state_regions = num_state_regions
        self.state_layers = _layers((self.region_length, 256, 128, 1))
        self.state_summary = _Layer(num_state_regions, 128)
        self.action_layers = _layers((self.region_length, 512, 256, 128))
        self.value = _Layer(256, 1, is_rectified=False)
        self.gate = _Layer(2 * NUM_BINS, 1)

    def forward(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(B, S, C + 193) states and (B, N, C + 257) actions -> (B, N) Q-values."""
        return self.action_values(self.summarise(state), actions)

    def summarise(self, state: torch.Tensor) -> torch.Tensor:
        """(B, S, C + 193) states -> (B, 128), which every action of a state shares."""
        per_region = self.state_layers(state)[..., 0]  # (B, S)
        summary: torch.Tensor = self.state_summary(per_region)
        return summary

    def action_values(self, summary: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(B, 128) summaries and (B, N, C + 257) actions -> (B, N) Q-values."""
        regions, divergences = torch.split(actions, [self.region_length, 2 * NUM_BINS], dim=-1)
        described = self.action_layers(regions)  # (B, N, 128)
        shared = summary[:, None].expand(-1, actions.shape[1], -1)
        value = self.value(torch.cat([described, shared], dim=-1))  # (B, N, 1)
        q: torch.Tensor = torch.sigmoid(self.gate(divergences)) * value
        return q[..., 0]


class _Layer(nn.Module):
    """BatchNorm over all leading axes -> ReLU, if wanted -> linear."""

    def __init__(self, num_in: int, num_out: int, *, is_rectified: bool = True) -> None:
        super().__init__()
        self.is_rectified = is_rectified
        self.norm = nn.BatchNorm1d(num_in)
        self.linear = nn.Linear(num_in, num_out)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        normed = self.norm(values.reshape(-1, values.shape[-1])).reshape(values.shape)
        outputs: torch.Tensor = self.linear(torch.relu(normed) if self.is_rectified else normed)
        return outputs


def _layers(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(_Layer(*pair) for pair in pairwise(widths)))
