"""A trained query network as a strategy: state set and pool -> Q-values, higher first.

Saved as one safetensors file with everything that decides whether it fits a project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from ralis_backend.core import weights
from ralis_backend.core.acquisition import Needs, PoolState, Scorer
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.features.ralis import (
    Unlabelled,
    Variant,
    action_vectors,
    region_vectors,
)
from ralis_backend.core.policy.kinds import RALIS
from ralis_backend.core.policy.network import QueryNetwork

_REGIONS_AT_ONCE = 8192


class PolicyDoesNotFit(ValueError):
    """A policy was trained for something else; the message says for what, and what to do."""


@dataclass(frozen=True)
class PolicySpec:
    """What a policy was trained for.

    classes: names in the order of the masks' values: each is an input of its own.
    region_size: (height, width) of a region in pixels.
    num_state_regions: S, regions of the state set.
    variant: `faithful` or `repaired` features.
    unlabelled: what the second divergence compares with in a game: the `candidates` of the step, or
        the `whole` unlabelled pool.
    regions_per_step, pool_size: K and N in training.
    training: hyper-parameters and provenance, for readers.
    """

    classes: tuple[str, ...]
    region_size: tuple[int, int]
    num_state_regions: int
    variant: Variant = "repaired"
    unlabelled: Unlabelled = "whole"
    regions_per_step: int = 24
    pool_size: int = 20
    training: Mapping[str, Any] = field(default_factory=dict)


class RalisPolicy(Scorer):
    """Ranks regions by the Q-values of a trained query network.

    Args:
        spec: what it was trained for.
        network: in evaluation mode from here on.
        name: shown to people and stored with each ranking.
    """

    is_trained = True

    def __init__(self, spec: PolicySpec, network: QueryNetwork, name: str = "ralis") -> None:
        self.spec = spec
        self.network = network.eval()
        self.name = name
        self.needs = Needs(
            frozenset(("class_counts", "entropy_grid", "class_probabilities")),
            state_regions=spec.num_state_regions,
            has_unlabelled_pool=spec.unlabelled == "whole",
            pool_size=spec.pool_size,
        )
        self._order: np.ndarray | None = None

    def save(self, path: Path) -> None:
        """Write network and spec to one file, whole or not at all."""
        weights.save(path, self.network.state_dict(), {"kind": RALIS, "spec": asdict(self.spec)})

    @classmethod
    def load(cls, path: Path, name: str = "") -> RalisPolicy:
        """The policy that `save` wrote; it is called by its file if no name is given.

        Raises:
            weights.WeightsError: if the file is damaged, of another version, or no policy.
            FileNotFoundError: if there is none.
        """
        tensors, metadata = weights.load(path)
        if metadata.get("kind") != RALIS:
            raise weights.WeightsError(
                f"{path} holds a {metadata.get('kind', 'file of unknown kind')}, not a query policy"
            )
        try:
            spec = _spec(metadata["spec"])
            width = weights.require_dimension(spec.num_state_regions, tensors)
            network = QueryNetwork(len(spec.classes), width)
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise weights.WeightsError(
                f"{path} does not fit the network it describes: {error}; train it again"
            ) from error
        return cls(spec, network, name or path.stem)

    def fitted(self, classes: Sequence[str], region_size: tuple[int, int]) -> RalisPolicy:
        """This policy for a project with these classes, in any order.

        Raises:
            PolicyDoesNotFit: if the project has other classes or another region size.
        """
        spec = self.spec
        own, wanted = [_plain(it) for it in spec.classes], [_plain(it) for it in classes]
        if sorted(own) != sorted(wanted):
            raise PolicyDoesNotFit(
                f"policy {self.name} was trained for the {len(own)} classes "
                f"{', '.join(spec.classes)}; the project has {len(wanted)}: "
                f"{', '.join(classes) or 'none'}. Train one for these classes with "
                "`ralis train-policy`, or choose another strategy"
            )
        if tuple(region_size) != spec.region_size:
            raise PolicyDoesNotFit(
                f"policy {self.name} was trained for regions of {_size(spec.region_size)} pixels "
                f"(height x width); the project's are {_size(region_size)}. Set "
                f"RALIS_REGION_SIZE={_size(spec.region_size)}, or choose another strategy"
            )
        fitted = RalisPolicy(spec, self.network, self.name)
        fitted._order = np.array([wanted.index(name) for name in own])
        return fitted

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) float32 Q-values.

        Raises:
            PolicyDoesNotFit: if the state set is missing or has too few regions.
        """
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        state_set = state.state_set
        wanted = self.spec.num_state_regions
        if state_set is None or len(state_set) < wanted:
            raise PolicyDoesNotFit(
                f"policy {self.name} looks at a state set of {wanted} regions; the project has "
                f"{0 if state_set is None else len(state_set)}. Add images, or choose another "
                "strategy"
            )
        state = replace(state, state_set=state_set.take(np.arange(wanted)))
        state, actions = self._ordered(state, actions)
        if state.unlabelled_counts is None:
            state = replace(state, unlabelled_counts=actions.class_counts)
        scores = np.zeros(len(actions), np.float32)
        for start in range(0, len(actions), _REGIONS_AT_ONCE):
            part = np.arange(start, min(start + _REGIONS_AT_ONCE, len(actions)))
            scores[part] = self._values(state, actions.take(part))
            state.stop()
        return scores

    def _values(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) Q-values of some candidates; a region's value does not depend on the others'."""
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            vectors = network_inputs(state, actions, self.spec.variant, device=device)
            self.network.eval()
            q_values: np.ndarray = self.network(vectors[0][None], vectors[1][None])[0].cpu().numpy()
        return q_values

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the policy and what each region probably shows."""
        best = actions.class_probabilities.argmax(axis=1).tolist()
        return [
            f"chosen by the trained policy {self.name}, mostly {class_names[index]}"
            for index in best
        ]

    def _ordered(
        self, state: PoolState, actions: RegionFeatures
    ) -> tuple[PoolState, RegionFeatures]:
        """The same with the classes in the policy's order."""
        order = self._order
        if order is None:
            return state, actions
        with_void = np.append(order, len(order))
        state_set = state.state_set
        ordered = replace(
            state,
            labelled_pixels_by_region=state.labelled_pixels_by_region[:, with_void],
            state_set=None if state_set is None else _with_classes(state_set, order),
            unlabelled_counts=(
                None if state.unlabelled_counts is None else state.unlabelled_counts[:, order]
            ),
        )
        return ordered, _with_classes(actions, order)


def network_inputs(
    state: PoolState,
    actions: RegionFeatures,
    variant: Variant,
    device: str | torch.device = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, C + 193) state and (R, C + 257) actions, float32: the same offline and online.

    The unlabelled set is `state.unlabelled_counts`; the candidates themselves where that is None.

    Raises:
        ValueError: if there is no state set.
    """
    if state.state_set is None:
        raise ValueError("the pool's state has no state set; describe its images first")
    unlabelled = (
        actions.class_counts if state.unlabelled_counts is None else state.unlabelled_counts
    )
    counts, grid, labelled, others, state_counts, state_grid = (
        torch.from_numpy(np.ascontiguousarray(values)).to(device)
        for values in (
            actions.class_counts,
            actions.entropy_grid,
            state.labelled_pixels_by_region,
            unlabelled,
            state.state_set.class_counts,
            state.state_set.entropy_grid,
        )
    )
    return (
        region_vectors(state_counts, state_grid, variant),
        action_vectors(counts, grid, labelled, others, variant),
    )


def state_images(embeddings: np.ndarray, count: int) -> list[int]:
    """Images that together look like the whole pool; no label is needed.

    Kernel herding: each pick brings the mean of the picks closest to the mean of all.

    Args:
        embeddings: (I, D) float, one row per image, for example the mean over its regions.
        count: how many; all of them where there are fewer.

    Returns:
        Indices of images, in the order they were picked.

    Source: "Super-Samples from Kernel Herding", arXiv:1203.3472, with a linear kernel.
    """
    mean = embeddings.mean(axis=0)
    total = np.zeros_like(mean)
    chosen: list[int] = []
    for turn in range(1, min(count, len(embeddings)) + 1):
        distances = np.linalg.norm((total + embeddings) / turn - mean, axis=1)
        distances[chosen] = np.inf
        chosen.append(int(np.argmin(distances)))
        total += embeddings[chosen[-1]]
    return chosen


def _with_classes(features: RegionFeatures, order: np.ndarray) -> RegionFeatures:
    return features.replaced(class_counts=features.class_counts[:, order])


def _spec(content: Mapping[str, Any]) -> PolicySpec:
    spec = PolicySpec(**content)
    if spec.variant not in ("faithful", "repaired"):
        raise ValueError(f"unknown feature variant {spec.variant!r}")
    if spec.unlabelled not in get_args(Unlabelled):
        raise ValueError(f"unknown unlabelled set {spec.unlabelled!r}")
    if not isinstance(spec.classes, list) or not all(isinstance(it, str) for it in spec.classes):
        raise ValueError(f"classes are {str(spec.classes)[:80]}, expected a list of names")
    sizes = {
        "region_size": spec.region_size,
        "regions_per_step": [spec.regions_per_step],
        "pool_size": [spec.pool_size],
    }
    for name, values in sizes.items():
        if not all(type(it) is int and it >= 1 for it in values):
            raise ValueError(f"{name} is {str(values)[:40]}, expected whole numbers of at least 1")
    height, width = spec.region_size
    return replace(spec, classes=tuple(spec.classes), region_size=(height, width))


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


def _size(region_size: Sequence[int]) -> str:
    return f"{region_size[0]}x{region_size[1]}"
