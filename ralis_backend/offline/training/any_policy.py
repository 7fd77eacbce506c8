"""Weights of a ranker for any label set -> the policy, with its ranges of inputs, on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import vector_to_parameters

from ralis_backend.core.files import write_json
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec
from ralis_backend.core.policy.agnostic import flat_inputs
from ralis_backend.core.policy.agnostic_inputs import CLASS_INPUTS, REGION_INPUTS
from ralis_backend.offline.training.config import EvolutionConfig
from ralis_backend.offline.training.scenarios import draw_scenario, offer
from ralis_backend.offline.training.trainer import result_path
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.points import RegionPoints


def with_weights(spec: AgnosticSpec, weights: torch.Tensor, name: str = "member") -> AgnosticPolicy:
    """A policy whose network has these (P,) weights."""
    policy = AgnosticPolicy.untrained(spec, 0, name)
    vector_to_parameters(weights, policy.network.parameters())
    return policy


def labelled_regions(sources: Mapping[str, RegionPoints]) -> dict[str, int]:
    """What a training costs: regions of each dataset."""
    return {name: len(source) for name, source in sources.items()}


def write_policy(
    spec: AgnosticSpec,
    weights: torch.Tensor,
    out: Path,
    sources: Mapping[str, RegionPoints],
    config: EvolutionConfig,
    seed: int,
    results: Mapping[str, Any],
) -> AgnosticPolicy:
    """Write `OUT.safetensors`, the policy, and `OUT.json`, the results; returns the policy.

    Args:
        spec: of the policy, without its ranges of inputs.
        weights: (P,) of its network.
        out: path without a suffix.
        sources: the datasets that it learned from, on which its inputs are measured.
        config: of its training.
        seed: likewise.
        results: how it was trained.
    """
    low, high = input_ranges(list(sources.values()), config, seed)
    policy = with_weights(replace(spec, low=low, high=high), weights, out.name)
    policy.save(result_path(out, "safetensors"))
    write_json(result_path(out, "json"), results)
    return policy


def input_ranges(
    sources: Sequence[RegionPoints], config: EvolutionConfig, seed: int, num_scenarios: int = 12
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """0.5 and 99.5 % of each input in first states of scenarios; `progress` may be anything."""
    values = []
    for index in range(num_scenarios):
        rng = np.random.default_rng([seed, 8, index])
        scenario = draw_scenario(sources, config, rng)
        first = scenario.held_out.take(np.arange(1))
        simulation = FastSimulation(scenario.pool, first, first, scenario.head)
        simulation.begin(scenario.initial, config.initial_updates, scenario.seed)
        values.append(flat_inputs(offer(simulation, scenario, rng)[1]))
    low, high = np.quantile(np.concatenate(values), [0.005, 0.995], axis=0)
    at = (*CLASS_INPUTS, *REGION_INPUTS).index("progress")
    low[at], high[at] = 0, 1
    return tuple(round(float(it), 5) for it in low), tuple(round(float(it), 5) for it in high)
