"""The labelling game: a strategy picks regions of a labelled dataset, a segmenter learns from them.

Games of one seed begin with the same labelled regions, are offered pools drawn in the same order,
and train with the same random numbers, whatever the strategy.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.core import acquisition, checkpoints, weights
from ralis_backend.core.acquisition import PoolState, Strategy, select
from ralis_backend.core.metrics import ious, mean_iou_of_present
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.arena import Arena, S
from ralis_backend.simulation.picking import pick

logger = logging.getLogger(__name__)

INITIAL_SELECTIONS = ("random", "k-center")
_SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True)
class GameRules:
    """The rules of a comparison.

    budgets: labelled regions at which a new segmenter is trained and measured.
    initial: how the first regions are chosen: `random`, or `k-center`, which spreads them over
        the encoder's features and over images. It chooses among `pool_size` times as many, drawn
        by the seed, so that seeds differ.
    initial_regions: how many are labelled first.
    regions_per_step, pool_size: K pools of N regions, the best of each is labelled.
    updates_per_step, initial_updates: gradient steps of the segmenter that ranks.
    final_updates: gradient steps of the one that is measured, whatever it learns from: some regions
        or the whole pool.
    """

    budgets: tuple[int, ...] = (144, 240, 480, 960, 1440, 1920)
    initial: str = "random"
    initial_regions: int = 48
    regions_per_step: int = 24
    pool_size: int = 10
    updates_per_step: int = 60
    initial_updates: int = 200
    final_updates: int = 600


def check(rules: GameRules, arena: Arena[S]) -> None:
    """Refuse rules that do not fit a pool, before anything is played.

    Raises:
        ValueError: saying which number is too large or small.
    """
    budgets, num_regions = rules.budgets, len(arena.class_pixels)
    num_annotated = int(arena.is_annotated.sum())
    if not budgets or sorted(set(budgets)) != list(budgets):
        raise ValueError(f"budgets {budgets} must rise, each once")
    if budgets[-1] > num_regions:
        raise ValueError(f"budget {budgets[-1]} exceeds the pool's {num_regions} regions; lower it")
    if not 1 <= rules.initial_regions <= budgets[0]:
        raise ValueError(
            f"initial_regions is {rules.initial_regions}, expected 1 to the least budget, "
            f"{budgets[0]}"
        )
    if rules.initial_regions > num_annotated:
        raise ValueError(
            f"initial_regions is {rules.initial_regions}, but only {num_annotated} of the pool's "
            f"{num_regions} regions hold an annotated pixel, the others are void; annotate more, "
            "or lower it"
        )
    if rules.initial not in INITIAL_SELECTIONS:
        raise ValueError(
            f"initial is '{rules.initial}', expected one of {', '.join(INITIAL_SELECTIONS)}"
        )
    if min(rules.regions_per_step, rules.pool_size) < 1:
        raise ValueError("regions_per_step and pool_size must be at least 1")


@dataclass
class _Standing:
    """Where a game stands after a step."""

    labelled: np.ndarray
    step: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    seconds_played: float = 0.0


def play(
    arena: Arena[S],
    strategy: Strategy,
    seed: int,
    rules: GameRules,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """One strategy, one seed: its curve, what it labelled, and how long it took to choose.

    Args:
        arena: what is played on.
        strategy: who picks.
        seed: of everything random.
        rules: of the game.
        checkpoint: file in which the game is kept while it lasts, and from which it goes on, to
            the bit; None: nowhere.
        on_step: told how many regions are labelled.
    """
    check(rules, arena)
    simulation = arena.simulation()
    facts = _facts(arena, strategy, seed, rules)
    standing = _resumed(arena, simulation, checkpoint, facts)
    if standing is None:
        standing = _Standing(_initial(arena, simulation, seed, rules))
        simulation.begin(standing.labelled, rules.initial_updates, seed)
    started = saved = time.monotonic() - standing.seconds_played
    while True:
        num_labelled = len(standing.labelled)
        on_step(num_labelled)
        if num_labelled in rules.budgets[len(standing.curve) :]:
            standing.curve.append(_measured(arena, standing.labelled, seed, rules))
        standing.seconds_played = time.monotonic() - started
        if num_labelled >= rules.budgets[-1]:
            break
        if checkpoint is not None and time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
            _save(arena, simulation, standing, checkpoint, facts)
            saved = time.monotonic()
        _take_step(arena, simulation, strategy, standing, seed, rules)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return {
        "strategy": strategy.name,
        "seed": seed,
        "curve": standing.curve,
        "seconds_per_selection": round(float(np.median(standing.seconds or [0.0])), 4),
        "seconds": round(standing.seconds_played, 1),
        "labelled": standing.labelled.tolist(),
    }


def all_labels(arena: Arena[S], seed: int, rules: GameRules) -> dict[str, Any]:
    """The test scores of a segmenter that learned from every region of the pool."""
    everything = np.arange(len(arena.class_pixels))
    matrix = arena.measure(everything, rules.final_updates, seed)
    return {"seed": seed} | measured_scores(matrix, arena.background)


def _initial(arena: Arena[S], simulation: Simulation, seed: int, rules: GameRules) -> np.ndarray:
    """The first labelled regions; all of them hold something to learn from."""
    rng = np.random.default_rng([seed, 0])
    annotated, count = np.flatnonzero(arena.is_annotated), rules.initial_regions
    if rules.initial == "random":
        return rng.choice(annotated, count, replace=False)
    offered = rng.choice(annotated, min(len(annotated), count * rules.pool_size), replace=False)
    chooser = acquisition.strategy(rules.initial)
    features = simulation.describe(offered, chooser.needs.features)
    nothing = np.zeros((0, arena.class_pixels.shape[1]), np.int64)
    places = simulation.places.take(offered)
    state = PoolState(nothing, simulation.embeddings(offered[:0]), count, rng, places=places)
    scores = chooser.scores(state, features)
    chosen: np.ndarray = offered[select(scores, places.image, count)]
    return chosen


def _take_step(
    arena: Arena[S],
    simulation: S,
    strategy: Strategy,
    standing: _Standing,
    seed: int,
    rules: GameRules,
) -> None:
    labelled, step = standing.labelled, standing.step
    due = min(budget for budget in rules.budgets if budget > len(labelled)) - len(labelled)
    pools = _pools(arena, labelled, min(rules.regions_per_step, due), seed, step, rules)
    started = time.perf_counter()
    rng = np.random.default_rng([seed, 2, step])
    picked = pick(simulation, strategy, labelled, pools, rng, len(labelled) / rules.budgets[-1])
    standing.seconds.append(time.perf_counter() - started)
    standing.labelled = np.concatenate([labelled, picked])
    simulation.learn([standing.labelled], rules.updates_per_step, seed + step)
    standing.step += 1


def _pools(
    arena: Arena[S],
    labelled: np.ndarray,
    num_pools: int,
    seed: int,
    step: int,
    rules: GameRules,
) -> np.ndarray:
    """(K, N) unlabelled regions: the first ones in an order that all strategies of a seed share."""
    num_regions = len(arena.class_pixels)
    order = np.random.default_rng([seed, 1, step]).permutation(num_regions)
    is_open = np.ones(num_regions, bool)
    is_open[labelled] = False
    left = order[is_open[order]]
    size = max(1, min(rules.pool_size, len(left) // num_pools))
    pools: np.ndarray = left[: num_pools * size].reshape(num_pools, size)
    return pools


def _measured(arena: Arena[S], labelled: np.ndarray, seed: int, rules: GameRules) -> dict[str, Any]:
    """A point of the curve: a new segmenter trained on what is labelled, on the test set."""
    shares = arena.class_pixels[labelled, :-1].sum(axis=0)
    shares = shares / max(1, shares.sum())
    known = shares[shares > 0]
    return {
        "regions": len(labelled),
        **measured_scores(arena.measure(labelled, rules.final_updates, seed), arena.background),
        "class_entropy": round(float(-(known * np.log(known)).sum()), 5),
    }


def measured_scores(matrix: np.ndarray, background: int | None) -> dict[str, Any]:
    """`miou` of the classes in the test set, and `ious` of each; None where it has none.

    The mean is without the background, unless there is nothing else.

    Args:
        matrix: (C, C) int64 confusion matrix of the test set.
        background: index of the class that nobody looks for; None: there is none.
    """
    is_present = matrix.sum(axis=1) > 0
    score = mean_iou_of_present(matrix, background)
    if math.isnan(score):
        score = mean_iou_of_present(matrix)
    of_classes = np.where(is_present, ious(matrix), math.nan)
    return {
        "miou": round(score, 6),
        "ious": [None if math.isnan(it) else round(float(it), 5) for it in of_classes],
    }


def _facts(arena: Arena[S], strategy: Strategy, seed: int, rules: GameRules) -> dict[str, Any]:
    """What a game's result depends on."""
    return {
        "strategy": strategy.name,
        "seed": seed,
        "rules": asdict(rules),
        "arena": arena.describe(),
    }


def _save(
    arena: Arena[S], simulation: S, standing: _Standing, path: Path, facts: Mapping[str, Any]
) -> None:
    state = vars(standing) | {"labelled": standing.labelled.tolist()}
    checkpoints.save(path, arena.snapshot(simulation), state, facts)


def _resumed(
    arena: Arena[S], simulation: S, path: Path | None, facts: Mapping[str, Any]
) -> _Standing | None:
    """Where the kept game stands; None where none is kept, or the file is of another or damaged."""
    try:
        kept = None if path is None else checkpoints.load(path, facts)
    except (checkpoints.OtherRun, weights.WeightsError) as error:
        logger.warning("the game begins anew: %s", error)
        return None
    if kept is None:
        return None
    tensors, state = kept
    arena.restore(simulation, tensors)
    return _Standing(**state | {"labelled": np.array(state["labelled"], np.int64)})
