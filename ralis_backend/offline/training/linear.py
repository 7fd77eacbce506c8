"""Scenarios -> a linear ranker of the same inputs, fitted to one-step rewards: a placebo.

In each scenario several random batches are labelled from one state; what each adds to the mIoU,
less the mean of the scenario, is explained by the mean inputs of the batch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec
from ralis_backend.core.policy.agnostic import linear_inputs
from ralis_backend.offline.training.any_policy import labelled_regions, write_policy
from ralis_backend.offline.training.config import EvolutionConfig
from ralis_backend.offline.training.scenarios import draw_scenario, measured, offer
from ralis_backend.offline.training.sources import games_facts
from ralis_backend.offline.training.trainer import OnProgress, Progress
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.points import RegionPoints

_RIDGE = 0.1


def fit_linear(
    sources: Mapping[str, RegionPoints],
    config: EvolutionConfig,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_progress: OnProgress = lambda _: None,
) -> AgnosticPolicy:
    """Fit a policy by ridge regression, and write it with a results file; it takes minutes.

    Args:
        sources: labelled regions of each dataset.
        config: how.
        out: the policy's path without a suffix.
        seed: of everything random.
        device: of the segmenters.
        on_progress: told after each scenario.

    Raises:
        ValueError: if the datasets are too small.
    """
    inputs, rewards, started = [], [], time.perf_counter()
    total = config.linear_games
    for index in range(total):
        means, gained = _played(list(sources.values()), config, seed, index, device)
        inputs.append(means - means.mean(axis=0))
        rewards.append((gained - gained.mean()) / (gained.std() + 1e-9))
        left = (time.perf_counter() - started) / (index + 1) * (total - index - 1)
        facts = f"game {index + 1} of {total}, spread {100 * float(gained.std()):.2f}"
        on_progress(Progress(index + 1, total, float(gained.mean()), facts, left))
    fitted = _ridge(np.concatenate(inputs), np.concatenate(rewards))
    training = {
        "kind": "one-step ridge regression",
        "config": asdict(config),
        "seed": seed,
        "labelled_regions": labelled_regions(sources),
        **games_facts(sources),
    }
    spec = AgnosticSpec("linear", training=training)
    results = {**training, "weights": [round(it, 4) for it in fitted]}
    weights = torch.from_numpy(fitted).float()
    return write_policy(spec, weights, out, sources, config, seed, results)


def _played(
    sources: Sequence[RegionPoints], config: EvolutionConfig, seed: int, index: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """(M, 18) mean inputs of random batches of a scenario, and the (M,) mIoU after each."""
    rng = np.random.default_rng([seed, 7, index])
    scenario = draw_scenario(sources, config, rng)
    state_set = scenario.held_out.take(np.arange(1))
    simulation = FastSimulation(scenario.pool, state_set, scenario.held_out, scenario.head, device)
    simulation.begin(scenario.initial, config.initial_updates, scenario.seed)
    offered, shown = offer(simulation, scenario, rng)
    features = linear_inputs(
        torch.from_numpy(shown.classes), torch.from_numpy(shown.regions)
    ).numpy()  # (R, 18)
    batches = np.stack(
        [
            rng.choice(len(offered), config.regions_per_step, replace=False)
            for _ in range(2 * config.pairs)
        ]
    )
    matrices = simulation.learn(
        [np.concatenate([scenario.initial, offered[batch]]) for batch in batches],
        config.updates_per_step,
        scenario.seed,
    )
    means = np.stack([features[batch].mean(axis=0) for batch in batches])
    return means, measured(matrices, scenario.held_out.background)


def _ridge(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(D,) weights that explain the (M,) target by the (M, D) design."""
    scale = design.std(axis=0) + 1e-6
    scaled = design / scale
    ridge = scaled.T @ scaled + _RIDGE * len(scaled) * np.eye(scaled.shape[1])
    return np.asarray(np.linalg.solve(ridge, scaled.T @ target) / scale)
