"""A policy that looks for one class, whichever it is: MiSiCAL's double DQN, and its linear ranker.

Known of the paper ("Mining of Single-Class by Active Learning for Semantic Segmentation",
arXiv:2307.09109): a double DQN picks patches by BALD and features of the class's presence, from one
look, without retraining in between. There the policy is trained for each class on the first labels;
that one network serves any class, its layers and its inputs are our design.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ralis_backend.core import weights
from ralis_backend.core.acquisition import Drift, PoolState
from ralis_backend.core.acquisition.mining import Miner
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy.kinds import MISICAL
from ralis_backend.core.policy.misical_inputs import (
    INPUTS,
    NEEDS,
    REGION_INPUTS,
    STATE_INPUTS,
    Standard,
    class_order,
    region_inputs,
    state_inputs,
)
from ralis_backend.core.policy.ranges import check_ranges

Architecture = Literal["mlp", "linear"]


@dataclass(frozen=True)
class MisicalSpec:
    """How a policy is built and was trained.

    architecture: `mlp`: Q(s, a) of a double DQN; `linear`: a weighted sum of a region's inputs, by
        ridge regression to the class's share of the region.
    hidden: width of the `mlp`'s two layers.
    low, high: (40,) range of each input in training, state first (its 0.5 and 99.5 %); empty for a
        policy that was not trained.
    training: hyper-parameters and provenance, for readers.
    """

    architecture: Architecture = "mlp"
    hidden: int = 256
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)


class MiningNetwork(nn.Module):
    """Q(s, a): two layers of linear -> LayerNorm -> ReLU, and a linear one."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(len(INPUTS), hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(B, 5) states and (B, N, 35) standardised actions -> (B, N) Q-values."""
        shared = state[:, None].expand(-1, actions.shape[1], -1)
        # what shows a rare class lies many deviations from the mean
        compressed = torch.sign(actions) * torch.log1p(actions.abs())
        q_values: torch.Tensor = self.layers(torch.cat([shared, compressed], dim=2))[..., 0]
        return q_values


class LinearRanker(nn.Module):
    """A weighted sum of an action's inputs, whatever the state is."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(len(REGION_INPUTS), 1, bias=False)

    def forward(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(B, 5) states and (B, N, 35) standardised actions -> (B, N) scores."""
        scores: torch.Tensor = self.score(actions)[..., 0]
        return scores


class MisicalPolicy(Miner):
    """Ranks regions by how much they promise of one class, whichever that is.

    Args:
        spec: how it is built.
        network: what scores.
        name: shown to people and stored with each ranking.
    """

    needs = NEEDS
    is_pointwise = False  # inputs are standardised over the candidates
    is_trained = True

    def __init__(self, spec: MisicalSpec, network: MiningNetwork | LinearRanker, name: str) -> None:
        self.spec = spec
        self.network = network.eval()
        self.name = name

    @classmethod
    def untrained(cls, spec: MisicalSpec, seed: int, name: str) -> MisicalPolicy:
        """A policy with random weights: a placebo, or where a training begins."""
        with torch.random.fork_rng(devices=[]):  # the initialisers know the global generator only
            torch.default_generator.manual_seed(seed)
            return cls(spec, _network(spec), name)

    def save(self, path: Path) -> None:
        """Write network and spec to one file, whole or not at all."""
        weights.save(path, self.network.state_dict(), {"kind": MISICAL, "spec": asdict(self.spec)})

    @classmethod
    def load(cls, path: Path, name: str = "") -> MisicalPolicy:
        """The policy that `save` wrote; it is called by its file if no name is given.

        Raises:
            weights.WeightsError: if the file is damaged, of another version, or no such policy.
            FileNotFoundError: if there is none.
        """
        tensors, metadata = weights.load(path)
        if metadata.get("kind") != MISICAL:
            raise weights.WeightsError(
                f"{path} holds a {metadata.get('kind', 'file of unknown kind')}, not a policy that "
                "looks for one class"
            )
        try:
            spec = MisicalSpec(**metadata["spec"])
            check_ranges(spec.low, spec.high, len(INPUTS))
            if spec.architecture == "mlp":  # the linear one has no width
                weights.require_dimension(spec.hidden, tensors)
            network = _network(spec)
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise weights.WeightsError(
                f"{path} does not fit the network it describes: {error}; train it again"
            ) from error
        return cls(spec, network, name or path.stem)

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) float32, the most promising region highest."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        num_classes = actions.class_probabilities.shape[1]
        order = class_order(state, actions)
        known = torch.from_numpy(state_inputs(state, num_classes))[None]
        standard = Standard.of(actions, order)
        scores = []
        with torch.inference_mode():
            for _, part in actions.blocks():
                inputs = torch.from_numpy(standard.applied(region_inputs(part, order)))
                scores.append(self.network(known, inputs[None])[0])
                state.stop()
        return np.asarray(torch.cat(scores).numpy(), np.float32)

    def drift(self, state: PoolState, actions: RegionFeatures) -> Drift:
        """How often state and candidates' inputs lie outside the ranges of training."""
        if len(actions) == 0 or not self.spec.low:
            return Drift(0.0, ())
        low, high = np.array(self.spec.low), np.array(self.spec.high)
        num_classes = actions.class_probabilities.shape[1]
        order, known = class_order(state, actions), state_inputs(state, num_classes)
        split = len(STATE_INPUTS)
        outside = np.zeros(len(INPUTS))
        outside[:split] = (known < low[:split]) | (known > high[:split])
        for _, part in actions.blocks():
            inputs = region_inputs(part, order)
            is_outside = (inputs < low[split:]) | (inputs > high[split:])
            outside[split:] += is_outside.sum(axis=0) / len(actions)
        worst = np.argsort(-outside, kind="stable")[:3]
        names = tuple(INPUTS[index] for index in worst if outside[index] > 0)
        return Drift(float(outside.mean()), names)

    def fitted(self, classes: Sequence[str], region_size: tuple[int, int]) -> MisicalPolicy:
        """This policy: it serves any classes and regions."""
        return self


_NETWORKS: dict[str, Callable[[MisicalSpec], MiningNetwork | LinearRanker]] = {
    "mlp": lambda spec: MiningNetwork(spec.hidden),
    "linear": lambda spec: LinearRanker(),
}


def _network(spec: MisicalSpec) -> MiningNetwork | LinearRanker:
    if spec.architecture not in _NETWORKS:
        raise ValueError(
            f"unknown architecture {spec.architecture!r}; expected {' or '.join(_NETWORKS)}"
        )
    return _NETWORKS[spec.architecture](spec)
