"""A strategy and pools of regions -> the region it picks from each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ralis_backend.core.acquisition import PoolState, Strategy
from ralis_backend.simulation import Simulation


def pick(
    simulation: Simulation,
    strategy: Strategy,
    labelled: np.ndarray,
    pools: np.ndarray,
    rng: np.random.Generator,
    progress: float,
    *,
    is_whole: bool = False,
) -> np.ndarray:
    """The best region of each pool.

    Args:
        simulation: what is known of the regions.
        strategy: who picks; it is told what it needs.
        labelled: indices of the regions labelled so far.
        pools: (K, N) indices of regions that are offered.
        rng: for strategies that draw.
        progress: share of the budget that is spent.
        is_whole: the best K of all pools together instead, as a project's pool is ranked.

    Returns:
        (K,) indices.
    """
    offered = pools.reshape(-1)
    state = state_of(simulation, strategy, labelled, pools, rng, progress)
    if is_whole:
        state = replace(state, pool_index=None)
    scores = strategy.scores(state, simulation.describe(offered, strategy.needs.features))
    if is_whole:
        best_of_all: np.ndarray = offered[np.argsort(-scores, kind="stable")[: len(pools)]]
        return best_of_all
    best = scores.reshape(pools.shape).argmax(axis=1)
    picked: np.ndarray = pools[np.arange(len(pools)), best]
    return picked


def state_of(
    simulation: Simulation,
    strategy: Strategy,
    labelled: np.ndarray,
    pools: np.ndarray,
    rng: np.random.Generator,
    progress: float,
) -> PoolState:
    """What the strategy is told, and no more than it needs; see `pick`."""
    offered = pools.reshape(-1)
    needs_embeddings = "embeddings" in strategy.needs.features
    return PoolState(
        simulation.class_pixels[labelled],
        simulation.embeddings(labelled) if needs_embeddings else None,
        len(pools),
        rng,
        progress=progress,
        pool_index=np.repeat(np.arange(len(pools)), pools.shape[1]),
        places=simulation.places.take(offered),
        labelled_places=simulation.places.take(labelled),
        background=simulation.background,
        removed_classes=simulation.removed_classes,
        **_needed(simulation, strategy, labelled, offered),
    )


def _needed(
    simulation: Simulation, strategy: Strategy, labelled: np.ndarray, offered: np.ndarray
) -> dict[str, Any]:
    """What costs something, where the strategy needs it."""
    needs, needed = strategy.needs, dict[str, Any]()
    if needs.state_regions:
        needed["state_set"] = simulation.describe_state(needs.features)
    if needs.has_unlabelled_pool:
        others = np.setdiff1d(np.arange(len(simulation.class_pixels)), labelled)
        needed["unlabelled_counts"] = simulation.class_counts(others)
    if needs.has_truth:
        needed["truth"] = simulation.reveal(offered)
    return needed
