"""A fully labelled dataset -> searches for one class, in which a miner learns.

A head learns from a few regions and looks at others once; each class that it can be sought by is a
search. Heads are prepared once, so that an episode costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ralis_backend.core.acquisition import PoolState
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy.misical_inputs import (
    NEEDS,
    Standard,
    class_order,
    found,
    region_inputs,
)
from ralis_backend.offline.training.config import MisicalConfig
from ralis_backend.offline.training.scenarios import draw_mapping, relabelled
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig
from ralis_backend.simulation.points import RegionPoints

_LEAST_SHOWING = 10
_SAMPLED = 40


@dataclass(frozen=True)
class Search:
    """A class to look for among R regions, of which a head that never learned from them knows.

    inputs: (R, 35) float32, standardised over the regions.
    pixels: (R,) pixels of the class in each region. annotated: (R,) its annotated pixels.
    known_pixels, known_annotated: (L,) pixels of the class, and annotated ones, of the regions that
        the head learned from.
    some, much: shares of a region from which on it shows some, or much, of the class.
    sample: (N, 35) float32 inputs of some regions as they are, to tell their ranges.
    """

    inputs: np.ndarray
    pixels: np.ndarray
    annotated: np.ndarray
    known_pixels: np.ndarray
    known_annotated: np.ndarray
    some: float
    much: float
    sample: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def shares(self) -> np.ndarray:
        """(R,) share of the class in each region's annotated pixels."""
        shares: np.ndarray = self.pixels / self.annotated
        return shares

    def state(self, picked: np.ndarray, progress: float) -> np.ndarray:
        """(5,) what is known after some picks, indices of regions."""
        return found(
            np.concatenate([self.known_pixels, self.pixels[picked]]),
            np.concatenate([self.known_annotated, self.annotated[picked]]),
            progress,
        )


def prepare_searches(
    source: RegionPoints,
    config: MisicalConfig,
    count: int,
    rng: np.random.Generator,
    report: Callable[[int], None] = lambda _: None,
) -> list[list[Search]]:
    """The searches of `count` heads; those of a head are one list, at least one in each.

    Args:
        source: labelled regions.
        config: how they are drawn.
        count: heads.
        rng: of the draws.
        report: told how many are prepared.

    Raises:
        ValueError: if the source holds too few regions or classes.
    """
    prepared: list[list[Search]] = []
    for _ in range(20 * count):
        searches = _prepared(source, config, rng)
        if searches:
            prepared.append(searches)
            report(len(prepared))
        if len(prepared) == count:
            return prepared
    raise ValueError(
        f"{len(prepared)} of {count} heads with a search could be drawn: it takes "
        f"{config.num_steps + config.pool_size} regions besides {config.initial_regions[0]} first "
        f"labels, and a class that {_LEAST_SHOWING} of them and one first label show, but no more "
        f"than {100 * config.max_share:.0f} % of them; give a larger dataset, or lower num_steps"
    )


def _prepared(
    source: RegionPoints, config: MisicalConfig, rng: np.random.Generator
) -> list[Search]:
    """The searches of one head; none where the draw does not allow any."""
    drawn = relabelled(source, draw_mapping(source.class_pixels.shape[1] - 1, rng))
    annotated = np.flatnonzero(drawn.class_pixels[:, :-1].sum(axis=1))
    order = rng.permutation(annotated)
    low, high = config.initial_regions
    count = int(rng.integers(low, high + 1))
    learned, offered = order[:count], order[count : count + config.max_candidates]
    seed = int(rng.integers(2**31))
    if len(offered) < config.num_steps + config.pool_size:
        return []
    targets = _targets(drawn, learned, offered, config)
    if not len(targets):
        return []
    nothing = drawn.take(np.arange(1))
    simulation = FastSimulation(drawn, nothing, nothing, HeadConfig())
    simulation.begin(learned, config.initial_updates, seed)
    described = simulation.describe(offered, NEEDS.features)
    known, pixels = drawn.class_pixels[learned], drawn.class_pixels[offered]
    return [search_for(int(each), described, known, pixels, config, rng) for each in targets]


def _targets(
    source: RegionPoints, learned: np.ndarray, offered: np.ndarray, config: MisicalConfig
) -> np.ndarray:
    """Classes that were seen, and that there are some of to find, but not everywhere.

    The background is none: nobody looks for it.
    """
    is_shown = source.class_pixels[:, :-1] > 0  # (R, C)
    is_known, num_showing = is_shown[learned].any(axis=0), is_shown[offered].sum(axis=0)
    if source.background is not None:
        is_known[source.background] = False
    is_sought = (num_showing >= _LEAST_SHOWING) & (num_showing <= config.max_share * len(offered))
    targets: np.ndarray = np.flatnonzero(is_known & is_sought)
    return targets


def search_for(
    target: int,
    described: RegionFeatures,
    known: np.ndarray,
    class_pixels: np.ndarray,
    config: MisicalConfig,
    rng: np.random.Generator,
) -> Search:
    """The search for one class.

    Args:
        target: its index.
        described: R candidates.
        known: (L, C + 1) pixels of the labelled regions.
        class_pixels: (R, C + 1) those of the candidates.
        config: what counts as much of a class.
        rng: of the sample.
    """
    state = PoolState(known, None, 1, rng, target_class=target)
    order = class_order(state, described)
    inputs = region_inputs(described, order)
    annotated = np.maximum(1, class_pixels[:, :-1].sum(axis=1))
    known_annotated = np.maximum(1, known[:, :-1].sum(axis=1))
    some, much = _thresholds(known[:, target] / known_annotated, config)
    sampled = rng.permutation(len(inputs))[:_SAMPLED]
    return Search(
        Standard.of(described, order).applied(inputs).astype(np.float32),
        class_pixels[:, target],
        annotated,
        known[:, target],
        known_annotated,
        some,
        much,
        inputs[sampled],
    )


def _thresholds(known_shares: np.ndarray, config: MisicalConfig) -> tuple[float, float]:
    """What is some of a class and what is much, by what first labels show of it."""
    positive = known_shares[known_shares > 0]
    if len(positive) < config.least_positives:
        return config.least_shares
    some, much = np.quantile(positive, config.quantiles)
    return float(some), float(much)
