"""Who ranks a project now: what is wanted, as far as project and segmenter allow."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ralis_backend.core.acquisition import Needs, PoolState, Strategy, strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy.registry import find_strategy
from ralis_backend.core.segmenter import DEFAULT_SPEC, MAPS, SegmenterSpec
from ralis_backend.core.text import reason_of
from ralis_backend.online.store.tables import Project, Version

logger = logging.getLogger(__name__)

COLD_START = "k-center"
RARITY = "rarity"
FALLBACK = "coverage"
"""Ranks where the wanted strategy cannot: what the default becomes with many labels, and the best
of the formulas that look at no embeddings, see `benchmarks/results/formulas`."""
WITHOUT_MAPS = "entropy"
"""Ranks where the segmenter offers too little for `FALLBACK`: probabilities are enough."""


@dataclass(frozen=True)
class RankingConfig:
    """How a project's images are cut and ranked.

    `region_size` is (height, width) in pixels; `strategy` the name of a strategy of
    `core/acquisition` or of a trained policy in `policies_dir`, used after the cold start. A policy
    compares candidates with the `whole` unlabelled pool, or picks from random pools as in
    `training`. `spec` is the segmenter; its classes are the project's.
    """

    strategy: str = "default"
    policies_dir: Path = Path("policies")
    policy_pool: Literal["whole", "training"] = "whole"
    region_size: tuple[int, int] = (128, 128)
    regions_per_round: int = 24
    spec: SegmenterSpec = DEFAULT_SPEC
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class ChosenStrategy:
    """The strategy that ranks a project now; `note` says why it is not the wanted one.

    `aside`: the same in a few words, for annotators. `offers`: what the segmenter can give.
    `beside`: features that whoever looks for a class at the same time needs.
    """

    strategy: Strategy
    note: str | None = None
    aside: str | None = None
    offers: Collection[str] = MAPS
    beside: frozenset[str] = frozenset()

    @property
    def heuristic(self) -> Strategy:
        """What replaces a strategy that cannot rank: the best that the segmenter can serve."""
        best = strategy(FALLBACK)
        return best if best.needs.maps.issubset(self.offers) else strategy(WITHOUT_MAPS)

    @property
    def described(self) -> Needs:
        """What images must be described with: for the strategy, and for what may replace it.

        For what is sought at the same time as well: one look serves both.
        """
        features = set(self.strategy.needs.features | self.beside)
        if self.strategy.is_trained:
            features |= self.heuristic.needs.features
        if self.strategy.needs.state_regions:
            features.add("embeddings")  # which images look like the pool
        if self.strategy.needs.has_unlabelled_pool:
            features.add("class_counts")
        return Needs(frozenset(features))

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Why these regions are worth labelling, for annotators."""
        reasons = self.strategy.reasons(state, actions, class_names)
        return reasons if self.aside is None else [f"{text} ({self.aside})" for text in reasons]


def strategy_for(
    project: Project,
    version: Version | None,
    learned: np.ndarray,
    config: RankingConfig,
    offers: Collection[str] = MAPS,
) -> ChosenStrategy:
    """The strategy that ranks a project now, with a segmenter that offers these maps.

    `learned`: (C,) painted pixels of each class that the version has learned from.

    Cold start: without a trained segmenter an entropy means nothing, so the first round is
    spread over the images' looks; while that of the first round has not learned every class,
    regions that probably hold rare ones come first; then the configured strategy. `random` needs no
    cold start. A policy that does not fit the project is replaced by the best heuristic,
    with a note; so is a strategy that looks at what the segmenter does not offer.
    """
    wanted = project.strategy or config.strategy
    if wanted == "random":
        return ChosenStrategy(strategy(wanted), offers=offers)
    if version is None or version.weights_key is None:
        first = ChosenStrategy(strategy(COLD_START), offers=offers)
        return _served(project, first, strategy("random"))
    is_sought = np.array([entry["is_active"] for entry in project.classes], bool)
    if project.background_class is not None:
        is_sought[project.background_class] = False
    if version.before_round in (None, 0) and (learned[is_sought] == 0).any():
        return ChosenStrategy(strategy(RARITY), offers=offers)
    try:
        found = find_strategy(wanted, config.policies_dir, project.class_names, config.region_size)
    except (ValueError, OSError) as error:
        return fallback(project, offers, reason_of(error))
    chosen = ChosenStrategy(found, offers=offers)
    return _served(project, chosen, chosen.heuristic)


def _served(project: Project, chosen: ChosenStrategy, instead: Strategy) -> ChosenStrategy:
    """The chosen strategy where the segmenter offers what it looks at, else another and why."""
    missing = sorted(chosen.described.maps.difference(chosen.offers))
    if not missing:
        return chosen
    note = (
        f"strategy {chosen.strategy.name} looks at {', '.join(missing)}; the segmenter offers "
        f"{', '.join(sorted(chosen.offers)) or 'probabilities alone'}: choose another strategy, or "
        "another segmenter"
    )
    return _instead(project, ChosenStrategy(instead, note, offers=chosen.offers))


def fallback(
    project: Project,
    offers: Collection[str],
    note: str,
    aside: str | None = None,
    instead: str = FALLBACK,
) -> ChosenStrategy:
    """The best heuristic instead of the wanted strategy, or `instead`; said in the log as well."""
    heuristic = ChosenStrategy(strategy(instead), offers=offers)
    if instead == FALLBACK:
        heuristic = replace(heuristic, strategy=heuristic.heuristic)
    return _instead(project, replace(heuristic, note=note, aside=aside))


def _instead(project: Project, chosen: ChosenStrategy) -> ChosenStrategy:
    logger.warning(
        "project %s is ranked by %s: %s", project.tool_id, chosen.strategy.name, chosen.note
    )
    return chosen
