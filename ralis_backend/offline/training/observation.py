"""What is known of a pool and of the regions offered -> the inputs of a query network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ralis_backend.core.acquisition import PoolState
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.features.ralis import Variant, action_length, region_length
from ralis_backend.core.policy.ralis import network_inputs
from ralis_backend.simulation import Simulation


class Encoder(Protocol):
    """Makes observations. A policy that uses the network must encode alike.

    features: names in `core.features.FEATURES` of what it looks at.
    """

    features: frozenset[str]

    def shapes(self, simulation: Simulation) -> tuple[tuple[int, ...], int]:
        """The shape of a state, and the length of an action."""

    def encode(self, state: PoolState, offered: RegionFeatures) -> tuple[np.ndarray, np.ndarray]:
        """The state, and (R, D_action) actions, both float32."""


@dataclass(frozen=True)
class RalisInputs:
    """The inputs of the RALIS paper: (S, C + 193) states and actions of length C + 257.

    variant: `faithful` or `repaired` features.
    device: where divergences are computed.
    """

    variant: Variant
    device: str | torch.device = "cpu"
    features = frozenset(("class_counts", "entropy_grid"))

    def shapes(self, simulation: Simulation) -> tuple[tuple[int, ...], int]:
        """(S, C + 193) and C + 257."""
        num_classes = simulation.num_classes
        state = (simulation.num_state_regions, region_length(num_classes))
        return state, action_length(num_classes)

    def encode(self, state: PoolState, offered: RegionFeatures) -> tuple[np.ndarray, np.ndarray]:
        """As `RalisPolicy` does."""
        inputs = network_inputs(state, offered, self.variant, self.device)
        return inputs[0].cpu().numpy(), inputs[1].cpu().numpy()
