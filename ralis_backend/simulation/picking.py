"""A strategy and pools of regions -> the region it picks from each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ralis_backend.core.acquisition import PoolState, Strategy
from ralis_backend.core.policy import RalisPolicy
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.oracles import Oracle


def pick(
    simulation: Simulation,
    strategy: Strategy | Oracle,
    labelled: np.ndarray,
    pools: np.ndarray,
    rng: np.random.Generator,
    progress: float,
) -> np.ndarray:
    """The best region of each pool.

    Args:
        simulation: what is known of the regions.
        strategy: who picks.
        labelled: indices of the regions labelled so far.
        pools: (K, N) indices of regions that are offered.
        rng: for strategies that draw.
        progress: share of the budget that is spent.

    Returns:
        (K,) indices, one from each pool.
    """
    offered = pools.reshape(-1)
    actions = simulation.describe(offered)
    state = PoolState(
        simulation.class_pixels[labelled],
        simulation.embeddings(labelled),
        len(pools),
        rng,
        progress=progress,
        pool_index=np.repeat(np.arange(len(pools)), pools.shape[1]),
        places=simulation.places.take(offered),
        labelled_places=simulation.places.take(labelled),
    )
    if isinstance(strategy, RalisPolicy):
        state = replace(
            state,
            state_set=simulation.describe_state(),
            unlabelled_counts=_unlabelled_counts(simulation, strategy, labelled),
        )
    if isinstance(strategy, Oracle):
        scores = strategy.scores(state, actions, simulation.reveal(offered))
    else:
        scores = strategy.scores(state, actions)
    best = scores.reshape(pools.shape).argmax(axis=1)
    picked: np.ndarray = pools[np.arange(len(pools)), best]
    return picked


def _unlabelled_counts(
    simulation: Simulation, policy: RalisPolicy, labelled: np.ndarray
) -> np.ndarray | None:
    if policy.spec.unlabelled == "candidates":
        return None
    others = np.setdiff1d(np.arange(len(simulation.class_pixels)), labelled)
    return simulation.class_counts(others)
