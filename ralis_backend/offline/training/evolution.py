"""Scenarios -> a policy for any label set, by evolution strategies on whole games.

A generation plays one scenario with several copies of the policy, in pairs whose weights differ by
plus and minus the same noise. They share everything that is drawn, so the difference of a pair is
the doing of its weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector

from ralis_backend.core import checkpoints
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec
from ralis_backend.offline.training.any_policy import labelled_regions, with_weights, write_policy
from ralis_backend.offline.training.config import EvolutionConfig
from ralis_backend.offline.training.scenarios import draw_scenario, play_together
from ralis_backend.offline.training.sources import games_facts
from ralis_backend.offline.training.trainer import OnProgress, Progress, checkpoint_path
from ralis_backend.simulation.points import RegionPoints


@dataclass
class _Standing:
    """Where an evolution stands.

    center: (P,) weights. moments: (2, P) of Adam. curve: a point per generation.
    """

    center: torch.Tensor
    moments: torch.Tensor
    curve: list[dict[str, float]] = field(default_factory=list)


def evolve(
    sources: Mapping[str, RegionPoints],
    config: EvolutionConfig,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_progress: OnProgress = lambda _: None,
) -> AgnosticPolicy:
    """Train a policy, and write it with a results file; a killed run goes on where it was.

    Args:
        sources: labelled regions of each dataset.
        config: how.
        out: the policy's path without a suffix.
        seed: of everything random.
        device: of the segmenters.
        on_progress: told after each generation.

    Raises:
        ValueError: if a checkpoint is of another training, or the datasets are too small.
    """
    spec, path = AgnosticSpec("set", config.hidden), checkpoint_path(out)
    facts = _facts(sources, config, seed)
    standing = _resumed(path, facts) or _first(spec, config, seed)
    curve = standing.curve
    started, done_before = time.perf_counter(), len(curve)
    for generation in range(done_before, config.generations):
        score, spread = _evolve_once(sources, spec, standing, config, seed, device)
        if (generation + 1) % config.checkpoint_every == 0:
            tensors = {"center": standing.center, "moments": standing.moments}
            checkpoints.save(path, tensors, {"curve": curve}, facts)
        per_game = (time.perf_counter() - started) / (len(curve) - done_before)
        left = per_game * (config.generations - len(curve))
        text = f"game {len(curve)} of {config.generations}, spread {100 * spread:.2f}"
        on_progress(Progress(len(curve), config.generations, score, text, left))
    cost = {"labelled_regions": labelled_regions(sources)}
    spec = replace(spec, training={**facts, "kind": "evolution", **cost})
    results = {**facts, **cost, "curve": curve}
    return write_policy(spec, standing.center, out, sources, config, seed, results)


def _facts(sources: Mapping[str, RegionPoints], config: EvolutionConfig, seed: int) -> Any:
    """What a training depends on, as JSON gives it back."""
    facts = {**games_facts(sources), "config": asdict(config), "seed": seed}
    return json.loads(json.dumps(facts))


def _first(spec: AgnosticSpec, config: EvolutionConfig, seed: int) -> _Standing:
    network = AgnosticPolicy.untrained(spec, seed, "first").network
    center = parameters_to_vector(network.parameters()).detach()
    center[-(config.hidden + 1) :] = 0  # the last layer: begin as the heuristic
    return _Standing(center, torch.zeros(2, len(center)))


def _resumed(path: Path, facts: Mapping[str, Any]) -> _Standing | None:
    kept = checkpoints.load(path, facts)
    if kept is None:
        return None
    tensors, state = kept
    return _Standing(tensors["center"], tensors["moments"], state["curve"])


def _evolve_once(
    sources: Mapping[str, RegionPoints],
    spec: AgnosticSpec,
    standing: _Standing,
    config: EvolutionConfig,
    seed: int,
    device: str,
) -> tuple[float, float]:
    """One generation, a step uphill; the mean score, and the spread that the noise made."""
    center, generation = standing.center, len(standing.curve)
    rng = np.random.default_rng([seed, generation])
    scenario = draw_scenario(list(sources.values()), config, rng)
    noise = torch.from_numpy(rng.normal(size=(config.pairs, len(center))).astype(np.float32))
    members = [
        with_weights(spec, center + sign * config.noise * each)
        for each in noise
        for sign in (1, -1)
    ]
    scores = play_together(scenario, members, device)[0].mean(axis=1)  # (2 pairs,)
    if config.does_shuffle_rewards:
        scores = rng.permutation(scores)
    differences = scores[::2] - scores[1::2]
    spread = float(np.sqrt((differences**2).mean())) + 1e-12
    gradient = (torch.from_numpy(differences / spread).float()[:, None] * noise).mean(dim=0)
    standing.center, standing.moments = _adam(
        center, gradient, standing.moments, generation + 1, config.learning_rate
    )
    score = float(scores.mean())
    standing.curve.append({"score": round(score, 5), "spread": round(spread, 6)})
    return score, spread


def _adam(
    center: torch.Tensor, gradient: torch.Tensor, moments: torch.Tensor, step: int, rate: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step uphill ("Adam", arXiv:1412.6980)."""
    first = 0.9 * moments[0] + 0.1 * gradient
    second = 0.99 * moments[1] + 0.01 * gradient**2
    corrected = (first / (1 - 0.9**step), second / (1 - 0.99**step))
    return center + rate * corrected[0] / (corrected[1].sqrt() + 1e-8), torch.stack([first, second])
