"""A policy for any label set: a learned correction of BALD x rarity that sees classes as a set.

Saved as one safetensors file with the ranges of its inputs in training, so that a project whose
regions look otherwise can be told.
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
from ralis_backend.core.acquisition import Drift, PoolState, Scorer
from ralis_backend.core.acquisition.strategy import likeliest
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy.agnostic_inputs import (
    CLASS_INPUTS,
    NEEDS,
    REGION_INPUTS,
    AgnosticInputs,
    PoolMeans,
    agnostic_inputs,
)
from ralis_backend.core.policy.kinds import AGNOSTIC
from ralis_backend.core.policy.ranges import check_ranges

Architecture = Literal["set", "linear"]
_BASE = REGION_INPUTS.index("log_bald_rarity")
_MAX_DEVIATION = 4.0


@dataclass(frozen=True)
class AgnosticSpec:
    """How a policy is built and was trained.

    architecture: `set`: a network over the set of classes; `linear`: a weighted sum of the inputs.
    hidden: width of the set network.
    low, high: (18,) range of each input in training, classes' first (its 0.5 and 99.5 %); empty
        for a policy that was not trained.
    training: hyper-parameters and provenance, for readers.
    """

    architecture: Architecture = "set"
    hidden: int = 8
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)


class SetNetwork(nn.Module):
    """(R, C, 7) and (R, 11) -> (R,) corrections.

    Each class goes through the same layer and the results are summed, so neither the number nor
    the order of classes matters ("Deep Sets", arXiv:1703.06114); mean and spread of the candidates
    are the state, so neither does the number of regions.
    """

    corrects_heuristic = True

    def __init__(self, hidden: int) -> None:
        super().__init__()
        num_inputs = hidden + len(REGION_INPUTS)
        self.of_class = nn.Linear(len(CLASS_INPUTS), hidden)
        self.of_region = nn.Linear(3 * num_inputs, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, classes: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """Corrections of the scores."""
        return self.of_joined(self.joined(classes, regions))

    def joined(self, classes: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """(R, hidden + 11): each region by itself, its classes summed up."""
        present = torch.tanh(self.of_class(classes)) * classes[..., :1]  # by probability
        return torch.cat([present.sum(dim=1), regions], dim=1)

    def of_joined(self, joined: torch.Tensor) -> torch.Tensor:
        """(R,) corrections of all candidates, which are their own state."""
        mean, spread = joined.mean(dim=0), joined.std(dim=0, unbiased=False)
        relative = ((joined - mean) / (spread + 1e-3)).clamp(-_MAX_DEVIATION, _MAX_DEVIATION)
        state = torch.cat([mean, spread]).expand(len(joined), -1)
        hidden = torch.tanh(self.of_region(torch.cat([relative, state], dim=1)))
        return self.score(hidden)[:, 0]  # type: ignore[no-any-return]


class LinearNetwork(nn.Module):
    """(R, C, 7) and (R, 11) -> (R,) weighted sums of each region's standardised inputs."""

    corrects_heuristic = False

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(len(CLASS_INPUTS) + len(REGION_INPUTS), 1, bias=False)

    def forward(self, classes: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """Scores."""
        return self.of_joined(self.joined(classes, regions))

    def joined(self, classes: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """(R, 18): each region by itself, its classes averaged by their probability."""
        return torch.cat([(classes * classes[..., :1]).sum(dim=1), regions], dim=1)

    def of_joined(self, joined: torch.Tensor) -> torch.Tensor:
        """(R,) scores of all candidates."""
        return self.score(_standardised(joined))[:, 0]  # type: ignore[no-any-return]


def linear_inputs(classes: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """(R, 18): classes averaged by their probability, everything standardised over candidates."""
    averaged = (classes * classes[..., :1]).sum(dim=1)
    return _standardised(torch.cat([averaged, regions], dim=1))


def _standardised(joined: torch.Tensor) -> torch.Tensor:
    mean, spread = joined.mean(dim=0), joined.std(dim=0, unbiased=False)
    return ((joined - mean) / (spread + 1e-3)).clamp(-_MAX_DEVIATION, _MAX_DEVIATION)


class AgnosticPolicy(Scorer):
    """Ranks regions by standardised ln(BALD x rarity) plus what a network over classes adds.

    A `linear` one ranks by its weighted sum alone.

    Args:
        spec: how it is built.
        network: what corrects the heuristic.
        name: shown to people and stored with each ranking.
    """

    needs = NEEDS
    is_trained = True

    def __init__(self, spec: AgnosticSpec, network: SetNetwork | LinearNetwork, name: str) -> None:
        self.spec = spec
        self.network = network.eval()
        self.name = name

    @classmethod
    def untrained(cls, spec: AgnosticSpec, seed: int, name: str) -> AgnosticPolicy:
        """A policy with random weights: a placebo, or where a training begins."""
        network = _network(spec)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                bound = 1 / np.sqrt(parameter.shape[-1])
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
        return cls(spec, network, name)

    def save(self, path: Path) -> None:
        """Write network and spec to one file, whole or not at all."""
        weights.save(path, self.network.state_dict(), {"kind": AGNOSTIC, "spec": asdict(self.spec)})

    @classmethod
    def load(cls, path: Path, name: str = "") -> AgnosticPolicy:
        """The policy that `save` wrote; it is called by its file if no name is given.

        Raises:
            weights.WeightsError: if the file is damaged, of another version, or no such policy.
            FileNotFoundError: if there is none.
        """
        tensors, metadata = weights.load(path)
        if metadata.get("kind") != AGNOSTIC:
            raise weights.WeightsError(
                f"{path} holds a {metadata.get('kind', 'file of unknown kind')}, not a policy for "
                "any label set"
            )
        try:
            spec = AgnosticSpec(**metadata["spec"])
            check_ranges(spec.low, spec.high, len(CLASS_INPUTS) + len(REGION_INPUTS))
            if spec.architecture == "set":  # the linear one has no width
                weights.require_dimension(spec.hidden, tensors)
            network = _network(spec)
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise weights.WeightsError(
                f"{path} does not fit the network it describes: {error}; train it again"
            ) from error
        return cls(spec, network, name or path.stem)

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) float32, the most useful region highest."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        means = PoolMeans.of(state, actions)
        joined, bases = [], []
        with torch.inference_mode():
            for _, part in actions.blocks():  # what joins them is small, the inputs are not
                inputs = agnostic_inputs(state, part, means)
                joined.append(self.network.joined(*_tensors(inputs)))
                bases.append(inputs.regions[:, _BASE])
                state.stop()
            learned: np.ndarray = self.network.of_joined(torch.cat(joined)).numpy()
        if not self.network.corrects_heuristic:
            return learned
        base = np.concatenate(bases)
        standardised = (base - base.mean()) / (base.std() + 1e-3)
        return np.asarray(learned + standardised, np.float32)

    def drift(self, state: PoolState, actions: RegionFeatures) -> Drift:
        """How often the candidates' inputs lie outside the ranges of training."""
        if len(actions) == 0 or not self.spec.low:
            return Drift(0.0, ())
        low, high = np.array(self.spec.low), np.array(self.spec.high)
        means, count = PoolMeans.of(state, actions), np.zeros(len(low), np.int64)
        for _, part in actions.blocks():
            values = flat_inputs(agnostic_inputs(state, part, means))  # (R, 18)
            count += ((values < low) | (values > high)).sum(axis=0)
        outside = count / len(actions)
        names = (*CLASS_INPUTS, *REGION_INPUTS)
        order = np.argsort(-outside)[:3]
        worst = tuple(names[index] for index in order if outside[index] > 0)
        return Drift(float(outside.mean()), worst)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the policy and the classes in question."""
        return [
            f"chosen by the trained policy {self.name}, mostly {seen}"
            for seen in likeliest(actions, class_names)
        ]

    def fitted(self, classes: Sequence[str], region_size: tuple[int, int]) -> AgnosticPolicy:
        """This policy: it serves any classes and regions."""
        return self


def flat_inputs(inputs: AgnosticInputs) -> np.ndarray:
    """(R, 18): each region's inputs, those of classes averaged by their probability."""
    probability = inputs.classes[..., :1]
    averaged = (inputs.classes * probability).sum(axis=1)
    joined: np.ndarray = np.concatenate([averaged, inputs.regions], axis=1)
    return joined


_NETWORKS: dict[str, Callable[[AgnosticSpec], SetNetwork | LinearNetwork]] = {
    "set": lambda spec: SetNetwork(spec.hidden),
    "linear": lambda spec: LinearNetwork(),
}


def _network(spec: AgnosticSpec) -> SetNetwork | LinearNetwork:
    if spec.architecture not in _NETWORKS:
        raise ValueError(
            f"unknown architecture {spec.architecture!r}; expected {' or '.join(_NETWORKS)}"
        )
    return _NETWORKS[spec.architecture](spec)


def _tensors(inputs: AgnosticInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(inputs.classes), torch.from_numpy(inputs.regions)
