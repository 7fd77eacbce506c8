"""Labelled regions -> how much of one class a strategy would have found among them, in one look.

A segmenter learns from some images' regions and looks once at the others'; nobody retrains it
between picks. `out_of_fold` describes regions that have to be described without having been learned
from: what a policy that looks for a class is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ralis_backend.core.acquisition import Strategy
from ralis_backend.core.features import RegionFeatures, concat
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig, Heads
from ralis_backend.simulation.picking import state_of
from ralis_backend.simulation.points import RegionPoints
from ralis_backend.simulation.verdict import TooFewLabels

MIN_SHOWING_REGIONS = 12
MIN_SHOWING_IMAGES = 4
"""Where fewer show the class, one or two regions that there are to find decide a game."""


@dataclass(frozen=True)
class MiningRules:
    """How a replay is played.

    num_games: with other images for the segmenter, each.
    learned_share: of the images, those that show the class and the others: the segmenter's.
    picked_share: of the other images' regions, picked in one look: T.
    max_regions: labelled regions that take part, drawn where there are more.
    num_updates: gradient steps of the segmenter.
    head: how it learns.
    """

    num_games: int = 16
    learned_share: float = 0.5
    picked_share: float = 0.2
    max_regions: int = 400
    num_updates: int = 200
    head: HeadConfig = field(default_factory=lambda: HeadConfig(batch_size=256))


def check_target(
    class_pixels: np.ndarray, image_index: np.ndarray, target: int, class_name: str | None = None
) -> None:
    """Refuse to replay the search for a class that hardly any labelled region shows.

    Args:
        class_pixels: (R, C + 1) labelled pixels of each class, void last.
        image_index: (R,) which image each region lies in.
        target: index of the class.
        class_name: for the message; None: nobody knows it.

    Raises:
        TooFewLabels: saying how much it takes.
    """
    is_showing = class_pixels[:, target] > 0
    num_regions, num_images = int(is_showing.sum()), len(np.unique(image_index[is_showing]))
    if num_regions < MIN_SHOWING_REGIONS or num_images < MIN_SHOWING_IMAGES:
        named = f"class {target}" if class_name is None else f"'{class_name}'"
        raise TooFewLabels(
            f"{num_regions} labelled regions of {num_images} images show {named}, and a "
            f"replay of the search for it takes {MIN_SHOWING_REGIONS} regions of "
            f"{MIN_SHOWING_IMAGES} images; label more of it"
        )


def replay_mining(
    regions: RegionPoints,
    strategies: Mapping[str, Strategy],
    target: int,
    rules: MiningRules,
    seed: int = 0,
    *,
    class_name: str | None = None,
    device: str = "cpu",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, np.ndarray]:
    """Every strategy picks from the same pools, each from one look.

    Args:
        regions: the labelled regions, each with an annotated point.
        strategies: by name; those that look for a class are told which, see `Aimed`.
        target: index of the class that is gathered.
        rules: how often and on how much.
        seed: of splits, training and draws.
        class_name: for messages.
        device: where segmenters learn.
        report: told how many games of how many are done; what it raises ends the replay.

    Returns:
        (G,) of each strategy, in [0, 1]: target pixels in its picks, of the most that as many picks
        could hold.

    Raises:
        TooFewLabels: if too few regions or images show the class.
    """
    check_target(regions.class_pixels, regions.image_index, target, class_name)
    nothing = regions.take(np.arange(1))  # the state set and the reward set are not looked at
    simulation = FastSimulation(regions, nothing, nothing, rules.head, device)
    scores: dict[str, list[float]] = {name: [] for name in strategies}
    for game in range(rules.num_games):
        learned, pool = _split(regions, target, rules, np.random.default_rng([seed, game]))
        simulation.begin(learned, rules.num_updates, seed + game)
        count = max(1, round(rules.picked_share * len(pool)))
        orders = look(simulation, strategies, learned, pool, count, seed + game)
        for name, order in orders.items():
            picked = pool[order[:count]]
            scores[name].append(float(gathered(regions.class_pixels[:, target], picked, pool)))
        report(game + 1, rules.num_games)
    return {name: np.array(values) for name, values in scores.items()}


def look(
    simulation: Simulation,
    strategies: Mapping[str, Strategy],
    labelled: np.ndarray,
    offered: np.ndarray,
    count: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Strategies rank the same regions, which are described once for all of them; see `ranked`."""
    needed = frozenset[str]().union(*(each.needs.features for each in strategies.values()))
    described = simulation.describe(offered, needed)
    return ranked(simulation, strategies, labelled, offered, described, count, seed)


def ranked(
    simulation: Simulation,
    strategies: Mapping[str, Strategy],
    labelled: np.ndarray,
    offered: np.ndarray,
    described: RegionFeatures,
    count: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """The order in which each strategy would pick, from one look.

    Args:
        simulation: a segmenter that has learned from the labelled regions.
        strategies: by name.
        labelled: (L,) indices of regions.
        offered: (R,) likewise.
        described: of these, what the strategies need.
        count: how many will be picked.
        seed: of strategies that draw.

    Returns:
        (R,) positions in `offered` of each strategy, its best first.
    """
    orders = {}
    for name, strategy in strategies.items():
        rng = np.random.default_rng([seed, 1])
        state = state_of(simulation, strategy, labelled, offered[None], rng, 0.0)
        state = replace(state, count=count, pool_index=None)
        orders[name] = np.argsort(-strategy.scores(state, described), kind="stable")
    return orders


def gathered(pixels: np.ndarray, picked: np.ndarray, pool: np.ndarray) -> float:
    """Share of what could be gathered: (R,) pixels of the class by region -> in [0, 1]."""
    most = np.sort(pixels[pool])[::-1][: len(picked)].sum()
    return float(pixels[picked].sum() / max(1, most))


def out_of_fold(
    regions: RegionPoints,
    head: HeadConfig,
    features: Collection[str],
    *,
    num_folds: int = 5,
    num_updates: int = 200,
    seed: int = 0,
    device: str = "cpu",
) -> RegionFeatures:
    """Features of regions, each under a head that never learned from its image's fold.

    Args:
        regions: labelled, each with an annotated point.
        head: how heads learn.
        features: names in `core.features.FEATURES`.
        num_folds: heads, and parts into which the images are divided; fewer where there are fewer
            images.
        num_updates: gradient steps of each head.
        seed: of folds and training.
        device: where heads learn.

    Returns:
        In the order of the regions.

    Raises:
        TooFewLabels: if all regions lie in one image.
    """
    fold = image_folds(regions.image_index, num_folds, np.random.default_rng([seed, 0]))
    count = int(fold.max()) + 1
    nothing = regions.take(np.arange(1))
    simulation = FastSimulation(regions, nothing, nothing, head, device)
    num_features = regions.points.features.shape[2]
    fresh = Heads.fresh(
        num_features, simulation.num_classes, head, [seed], torch.device(device)
    ).copies(count)
    others = [np.flatnonzero(fold != each) for each in range(count)]
    heads = fresh.trained(simulation.points, others, num_updates, seed)
    parts = []
    for each in range(count):
        simulation.heads = heads.only(each)
        parts.append(simulation.describe(np.flatnonzero(fold == each), features))
    return concat(parts).take(np.argsort(np.argsort(fold, kind="stable")))


def image_folds(image_index: np.ndarray, num_folds: int, rng: np.random.Generator) -> np.ndarray:
    """(R,) image of each region -> (R,) fold of each, as many images in one as in another.

    Raises:
        TooFewLabels: if all regions lie in one image.
    """
    images, position = np.unique(image_index, return_inverse=True)
    if len(images) < 2:
        raise TooFewLabels(
            f"all {len(image_index)} labelled regions lie in one image, and regions are described "
            "by segmenters that learned from other images; label some of another one"
        )
    fold_of_image = rng.permutation(np.arange(len(images)) % min(num_folds, len(images)))
    folds: np.ndarray = fold_of_image[position]
    return folds


def _split(
    regions: RegionPoints, target: int, rules: MiningRules, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the segmenter's regions and of the pool's; images of both show the class."""
    images = np.unique(regions.image_index)
    is_showing = np.isin(images, regions.image_index[regions.class_pixels[:, target] > 0])
    learned = []
    for some in (images[is_showing], images[~is_showing]):
        count = round(rules.learned_share * len(some))
        learned.append(rng.permutation(some)[: min(max(1, count), len(some) - 1)])
    is_learned = np.isin(regions.image_index, np.concatenate(learned))
    return np.flatnonzero(is_learned), np.flatnonzero(~is_learned)
