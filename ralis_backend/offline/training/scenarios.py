"""Fully labelled datasets -> scenarios in which policies for any label set learn.

A scenario is a labelling game of another dataset, other images, another subset or merge of the
classes, and another loss. Everybody who plays one shares the first labels, the pools and the random
numbers of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ralis_backend.core.acquisition import PoolState, Strategy
from ralis_backend.core.policy.agnostic_inputs import NEEDS, AgnosticInputs, agnostic_inputs
from ralis_backend.core.regions import VOID
from ralis_backend.offline.training.config import ScenarioConfig, ScenarioRules
from ralis_backend.offline.training.rewards import miou
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig, Heads, Points
from ralis_backend.simulation.picking import pick
from ralis_backend.simulation.points import RegionPoints

_MOST_DRAWS = 100


@dataclass(frozen=True)
class Scenario:
    """One drawn game: regions to choose from, regions to measure on, how the segmenter learns."""

    pool: RegionPoints
    held_out: RegionPoints
    head: HeadConfig
    initial: np.ndarray
    seed: int
    rules: ScenarioRules


def draw_scenario(
    sources: Sequence[RegionPoints], config: ScenarioConfig, rng: np.random.Generator
) -> Scenario:
    """A game of one of the sources, with its images split and its classes merged or left out.

    Raises:
        ValueError: if no game fits the source.
    """
    source = sources[int(rng.integers(len(sources)))]
    is_held_out = _held_out(source, config, rng)
    num_classes = source.class_pixels.shape[1] - 1
    for _ in range(_MOST_DRAWS):
        drawn = relabelled(source, draw_mapping(num_classes, rng))
        is_annotated = drawn.class_pixels[:, :-1].sum(axis=1) > 0
        pool = drawn.take(np.flatnonzero(~is_held_out & is_annotated))
        rules = config.rules(rng)
        count = min(rules.initial_regions, max(1, len(pool) // 4))
        shown = pool.class_pixels[:, :-1].sum(axis=0) > 0
        if shown.sum() < 2 or len(pool) <= count + rules.steps * rules.regions_per_step:
            continue
        power = float(rng.choice(config.class_weight_powers))
        held_out = drawn.take(rng.permutation(np.flatnonzero(is_held_out))[: config.max_held_out])
        if bool((held_out.points.labels != VOID).any()):
            head = HeadConfig(class_weight_power=power, hidden=rules.hidden)
            initial = rng.choice(len(pool), count, replace=False)
            return Scenario(pool, held_out, head, initial, int(rng.integers(2**31)), rules)
        is_held_out = _held_out(source, config, rng)  # these show none of the classes
    raise ValueError(_misfit(source, rules, int((~is_held_out).sum())))


def _held_out(source: RegionPoints, config: ScenarioConfig, rng: np.random.Generator) -> np.ndarray:
    """(R,) whether a region is of the images that a game is measured on."""
    images = rng.permutation(np.unique(source.image_index))
    num_held_out = max(1, round(config.held_out * len(images)))
    is_held_out: np.ndarray = np.isin(source.image_index, images[:num_held_out])
    return is_held_out


def _misfit(source: RegionPoints, rules: ScenarioRules, pool_size: int) -> str:
    """Why no game of a dataset could be drawn, and what to do."""
    num_images = len(np.unique(source.image_index))
    num_shown = int((source.class_pixels[:, :-1].sum(axis=0) > 0).sum())
    if num_images < 2:
        return (
            f"the dataset has {num_images} image in d_t; a game chooses from some images and is "
            "measured on others: give it 2 at least, better 20"
        )
    if num_shown < 2:
        return (
            f"the masks of d_t show {num_shown} of {source.class_pixels.shape[1] - 1} classes; "
            "expected 2 at least: name images of other classes in splits.json"
        )
    return (
        f"no game of {rules.steps} steps of {rules.regions_per_step} regions fits a pool of "
        f"{pool_size} regions that shows 2 classes, beside annotated images that it is measured "
        "on; lower steps or regions per step, or give a larger dataset"
    )


def draw_mapping(num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """(C,) new class of each class, VOID where it is left out: as it is, merged, or a subset."""
    kind = rng.choice(["as-is", "merge", "subset"]) if num_classes > 2 else "as-is"
    if kind == "as-is":
        return np.arange(num_classes)
    count = int(rng.integers(2, num_classes))
    order = rng.permutation(num_classes)
    if kind == "merge":
        groups = np.append(np.arange(count), rng.integers(count, size=num_classes - count))
        return np.asarray(groups[np.argsort(order)])
    mapping = np.full(num_classes, VOID)
    mapping[np.sort(order[:count])] = np.arange(count)
    return mapping


def relabelled(points: RegionPoints, mapping: np.ndarray) -> RegionPoints:
    """The same regions with other classes: (C,) new class of each, VOID to leave it out.

    What is merged with the background is background.
    """
    num_classes = int(mapping[mapping != VOID].max()) + 1
    table = torch.full((256,), VOID, dtype=torch.uint8)
    table[: len(mapping)] = torch.from_numpy(mapping.astype(np.uint8))
    pixels = np.zeros((len(points), num_classes + 1), np.int64)
    pixels[:, -1] = points.class_pixels[:, -1]
    for old, new in enumerate(mapping):
        pixels[:, num_classes if new == VOID else new] += points.class_pixels[:, old]
    labels = table[points.points.labels.long()]
    kept = VOID if points.background is None else int(mapping[points.background])
    return replace(
        points,
        points=Points(points.points.features, labels),
        class_pixels=pixels,
        background=None if kept == VOID else kept,
    )


def play_together(
    scenario: Scenario, strategies: Sequence[Strategy], device: str = "cpu"
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Several strategies play one scenario, their segmenters side by side.

    Returns:
        (M, steps) mIoU on the held-out regions after each step, and the (L,) labelled regions of
        each strategy.

    Raises:
        FloatingPointError: if a score is not finite.
    """
    rules = scenario.rules
    first = scenario.held_out.take(np.arange(1))
    simulations = [
        FastSimulation(scenario.pool, first, first, scenario.head, device) for _ in strategies
    ]
    simulations[0].begin(scenario.initial, rules.initial_updates, scenario.seed)
    for other in simulations[1:]:
        other.heads = simulations[0].heads
    labelled = [scenario.initial] * len(strategies)
    held_out = scenario.held_out.to(torch.device(device)).points
    budget = len(scenario.initial) + rules.steps * rules.regions_per_step
    scores = np.zeros((len(strategies), rules.steps))
    for step in range(rules.steps):
        order = np.random.default_rng([scenario.seed, step]).permutation(len(scenario.pool))
        for index, (strategy, simulation) in enumerate(zip(strategies, simulations, strict=True)):
            pools = _pools(order, labelled[index], rules)
            rng = np.random.default_rng([scenario.seed, step, 1])
            spent = len(labelled[index]) / budget
            picked = pick(
                simulation, strategy, labelled[index], pools, rng, spent, is_whole=rules.is_whole
            )
            labelled[index] = np.concatenate([labelled[index], picked])
        heads = Heads.joined([each.heads for each in simulations])
        heads = heads.trained(
            simulations[0].points, labelled, rules.updates_per_step, scenario.seed + step
        )
        for index, simulation in enumerate(simulations):
            simulation.heads = heads.only(index)
        matrices = heads.confusion_matrices(held_out)
        scores[:, step] = measured(matrices, scenario.held_out.background)
    return scores, labelled


def measured(matrices: Iterable[np.ndarray], background: int | None = None) -> np.ndarray:
    """(M,) mIoU of confusion matrices, over the classes that the held-out regions show.

    Args:
        matrices: (C, C) each.
        background: index of the class that is not scored; None: there is none.

    Raises:
        FloatingPointError: if one compares nothing, from which nothing can be learned.
    """
    scores = np.array([miou(each, background) for each in matrices])
    if not np.isfinite(scores).all():
        raise FloatingPointError(
            "the mIoU of a game is not a number: its held-out regions show no class; give a "
            "dataset in which more images are annotated"
        )
    return scores


def _pools(order: np.ndarray, labelled: np.ndarray, rules: ScenarioRules) -> np.ndarray:
    """(K, N) regions that are not labelled, the first ones in the order."""
    is_open = np.ones(len(order), bool)
    is_open[labelled] = False
    left = order[is_open[order]]
    count = min(rules.regions_per_step, len(left))
    size = min(rules.pool_size, len(left) // count)
    pools: np.ndarray = left[: count * size].reshape(count, size)
    return pools


def offer(
    simulation: FastSimulation, scenario: Scenario, rng: np.random.Generator
) -> tuple[np.ndarray, AgnosticInputs]:
    """Candidates of a first step, and what a policy sees of them."""
    rules = scenario.rules
    left = np.setdiff1d(np.arange(len(scenario.pool)), scenario.initial)
    offered = rng.permutation(left)[: rules.regions_per_step * rules.pool_size]
    state = PoolState(
        simulation.class_pixels[scenario.initial],
        simulation.embeddings(scenario.initial),
        rules.regions_per_step,
        rng,
        background=simulation.background,
    )
    return offered, agnostic_inputs(state, simulation.describe(offered, NEEDS.features))
