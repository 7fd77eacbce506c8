"""The labelling game: a strategy picks regions of a labelled dataset, a segmenter learns from them.

Games of one seed begin with the same labelled regions, are offered pools drawn in the same order,
and train with the same random numbers, whatever the strategy.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from ralis_backend.core.acquisition import Strategy
from ralis_backend.core.metrics import ious, mean_iou
from ralis_backend.core.simulation.fast import FastSimulation
from ralis_backend.core.simulation.heads import HeadConfig, Heads
from ralis_backend.core.simulation.oracles import Oracle
from ralis_backend.core.simulation.picking import pick
from ralis_backend.core.simulation.points import RegionPoints


@dataclass(frozen=True)
class GameRules:
    """The rules of a comparison.

    budgets: labelled regions at which a new segmenter is trained and measured.
    initial_regions: drawn at random and labelled first.
    regions_per_step, pool_size: K pools of N regions, the best of each is labelled.
    updates_per_step, initial_updates: gradient steps of the segmenter that ranks.
    final_updates: gradient steps of the one that is measured. all_labels_updates: of the one that
        learns from the whole pool.
    head: how heads learn.
    """

    budgets: tuple[int, ...] = (144, 240, 480, 960, 1440, 1920)
    initial_regions: int = 48
    regions_per_step: int = 24
    pool_size: int = 10
    updates_per_step: int = 60
    initial_updates: int = 200
    final_updates: int = 600
    all_labels_updates: int = 3000
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass(frozen=True)
class Arena:
    """What strategies are compared on: pool, state set and test set of one dataset."""

    name: str
    pool: RegionPoints
    state_set: RegionPoints
    test_set: RegionPoints


def check(config: GameRules, num_regions: int) -> None:
    """Refuse rules that do not fit a pool, before anything is played.

    Raises:
        ValueError: saying which number is too large or small.
    """
    budgets = config.budgets
    if not budgets or sorted(set(budgets)) != list(budgets):
        raise ValueError(f"budgets {budgets} must rise, each once")
    if budgets[-1] > num_regions:
        raise ValueError(f"budget {budgets[-1]} exceeds the pool's {num_regions} regions; lower it")
    if not 1 <= config.initial_regions <= budgets[0]:
        raise ValueError(
            f"initial_regions is {config.initial_regions}, expected 1 to the least budget, "
            f"{budgets[0]}"
        )
    if min(config.regions_per_step, config.pool_size) < 1:
        raise ValueError("regions_per_step and pool_size must be at least 1")


def play(
    arena: Arena, strategy: Strategy | Oracle, seed: int, config: GameRules, device: str = "cpu"
) -> dict[str, Any]:
    """One strategy, one seed: its curve, what it labelled, and how long it took to choose."""
    check(config, len(arena.pool))
    # its scores are not asked for, so the smallest reward set will do
    simulation = FastSimulation(
        arena.pool, arena.state_set, arena.test_set.take(np.arange(1)), config.head, device
    )
    labelled = np.random.default_rng([seed, 0]).choice(
        len(arena.pool), config.initial_regions, replace=False
    )
    simulation.begin(labelled, config.initial_updates, seed)
    curve, seconds = [], []
    for step in range(10**9):
        if len(labelled) in config.budgets:
            curve.append(_measured(arena, labelled, seed, config, device))
        if len(labelled) >= config.budgets[-1]:
            break
        due = min(budget for budget in config.budgets if budget > len(labelled)) - len(labelled)
        pools = _pools(arena, labelled, min(config.regions_per_step, due), seed, step, config)
        started = time.perf_counter()
        spent = len(labelled) / config.budgets[-1]
        rng = np.random.default_rng([seed, 2, step])
        picked = pick(simulation, strategy, labelled, pools, rng, spent)
        seconds.append(time.perf_counter() - started)
        labelled = np.concatenate([labelled, picked])
        simulation.learn([labelled], config.updates_per_step, seed + step)
    return {
        "strategy": strategy.name,
        "seed": seed,
        "config": json.loads(json.dumps(asdict(config))),
        "curve": curve,
        "seconds_per_selection": round(float(np.median(seconds)), 4),
        "labelled": labelled.tolist(),
    }


def all_labels_miou(arena: Arena, config: GameRules, device: str = "cpu") -> float:
    """Test mIoU of a segmenter that learned from every region of the pool."""
    matrix = _trained_matrix(
        arena, np.arange(len(arena.pool)), 0, config.all_labels_updates, config, device
    )
    return mean_iou(matrix)


def _pools(
    arena: Arena,
    labelled: np.ndarray,
    num_pools: int,
    seed: int,
    step: int,
    config: GameRules,
) -> np.ndarray:
    """(K, N) unlabelled regions: the first ones in an order that all strategies of a seed share."""
    order = np.random.default_rng([seed, 1, step]).permutation(len(arena.pool))
    is_open = np.ones(len(arena.pool), bool)
    is_open[labelled] = False
    left = order[is_open[order]]
    size = max(1, min(config.pool_size, len(left) // num_pools))
    pools: np.ndarray = left[: num_pools * size].reshape(num_pools, size)
    return pools


def _measured(
    arena: Arena, labelled: np.ndarray, seed: int, config: GameRules, device: str
) -> dict[str, Any]:
    """A point of the curve: a new segmenter trained on what is labelled, on the test set."""
    matrix = _trained_matrix(arena, labelled, seed, config.final_updates, config, device)
    shares = arena.pool.class_pixels[labelled, :-1].sum(axis=0)
    shares = shares / max(1, shares.sum())
    known = shares[shares > 0]
    return {
        "regions": len(labelled),
        "miou": round(mean_iou(matrix), 6),
        "ious": [None if math.isnan(it) else round(float(it), 5) for it in ious(matrix)],
        "class_entropy": round(float(-(known * np.log(known)).sum()), 5),
    }


def _trained_matrix(
    arena: Arena,
    labelled: np.ndarray,
    seed: int,
    num_updates: int,
    config: GameRules,
    device: str,
) -> np.ndarray:
    num_features = arena.pool.points.features.shape[2]
    num_classes = arena.pool.class_pixels.shape[1] - 1
    heads = Heads.fresh(num_features, num_classes, config.head, [seed], torch.device(device))
    trained = heads.trained(arena.pool.points, [labelled], num_updates, seed)
    matrix: np.ndarray = trained.confusion_matrices(arena.test_set.points)[0]
    return matrix
