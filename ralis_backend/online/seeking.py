"""Who looks for the class of a wish now: the wanted miner, as far as the class is known.

A segmenter that has learned the class sees it; before, only what looks like labelled regions or
examples of it can be found, or what it takes for a class that is said to look like it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ralis_backend.core.acquisition import PoolState, Strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy.registry import MINER, find_strategy
from ralis_backend.core.segmenter import MAPS
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.store.tables import Project, Version, Wish
from ralis_backend.online.wanted import class_pixels

logger = logging.getLogger(__name__)

PRESENCE = "presence"
"""Looks where a trained miner has not proved itself: what the segmenter sees, and no more."""
LINEAR = "misical-linear"
"""What a trained miner is measured against besides; where it comes with the backend."""
SIMILARITY = "similarity"
"""Looks where no segmenter has learned the class."""
REST = (
    "no version has learned {name!r} and no region or example shows it: paint it in one region, or "
    "`ralis mine --project {number} --class {name!r} --example task:ID`"
)


@dataclass(frozen=True)
class Seeking:
    """Who looks for a wish's class.

    strategy: told which class; None: nobody can now.
    note: why it is another one than wanted, or why nobody can.
    reason: for annotators, where the strategy's own would say what nobody knows.
    aside: the note in a few words, added to the strategy's own reasons.
    target: name of the class that the strategies are aimed at.
    rivals: what a trained one is tested against; the first ranks where there is too little to test,
        and where the strategy breaks.
    """

    wish: Wish
    strategy: Strategy | None
    note: str | None = None
    reason: str | None = None
    aside: str | None = None
    target: str = ""
    rivals: Sequence[Strategy] = ()

    @property
    def features(self) -> frozenset[str]:
        """What images must be described with for it, and for what may replace it."""
        every = [each for each in (self.strategy, *self.rivals) if each is not None]
        return frozenset[str]().union(*(each.needs.features for each in every))

    def reasons(
        self, state: PoolState, regions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Why these regions may show the class, for annotators.

        Raises:
            ValueError: if nobody looks.
        """
        if self.strategy is None:
            raise ValueError(f"nobody looks for {self.wish.class_name!r}: {self.note}")
        if self.reason is not None:
            return [self.reason] * len(regions)
        reasons = self.strategy.reasons(state, regions, class_names)
        return reasons if self.aside is None else [f"{text} ({self.aside})" for text in reasons]


def seek(
    project: Project,
    version: Version,
    wish: Wish,
    labels: Sequence[RegionLabel],
    learned: np.ndarray,
    config: RankingConfig,
    offers: Collection[str] = MAPS,
) -> Seeking:
    """Who looks for the class of a wish in a version's ranking, with a segmenter that offers maps.

    Args:
        project: whose regions are looked through.
        version: that ranks.
        wish: that is followed.
        labels: of the project.
        learned: (C,) painted pixels of each class that the version has learned from.
        config: where policies lie.
        offers: what the segmenter can give besides probabilities.
    """
    name, wanted = wish.class_name, wish.strategy or MINER
    sees = {each for each, pixels in zip(project.class_names, learned, strict=True) if pixels}
    if name in sees:
        found = _sees(project, wish, wanted, name, config, offers)
        if not wish.examples:
            return found
        unused = f"{version.name} has learned {name!r}: the examples are not used any more"
        return replace(found, note="; ".join(filter(None, (found.note, unused))))
    if wish.examples or class_pixels(project, labels, name):
        found = _sees(project, wish, SIMILARITY, name, config, offers)
        if _is(found.strategy, SIMILARITY):
            note = f"{version.name} has not learned {name!r}: what looks like it is sought"
            reason = f"looks for {name}: similar to what shows it"
            return replace(found, note=note, reason=reason, rivals=())
    like = wish.like
    if like is not None and like in sees:
        found = _sees(project, wish, wanted, like, config, offers)
        note = f"{version.name} has not learned {name!r}: what it takes for {like!r} is sought"
        return replace(found, note=note, aside=f"in search of {name}, said to look like it")
    return _nobody(project, wish, REST.format(name=name, number=project.tool_id))


def _sees(
    project: Project,
    wish: Wish,
    wanted: str,
    target: str,
    config: RankingConfig,
    offers: Collection[str],
) -> Seeking:
    """The wanted miner aimed at a class; presence where it cannot be had or served."""
    presence = _find(PRESENCE, target, project, config)
    try:
        strategy = _find(wanted, target, project, config)
    except (ValueError, OSError) as error:
        return _told(project, Seeking(wish, presence, f"{wanted} cannot be used: {error}"))
    missing = sorted(strategy.needs.maps.difference(offers))
    if missing:
        note = f"{wanted} looks at {', '.join(missing)}, which the segmenter does not offer"
        return _told(project, Seeking(wish, presence, note))
    rivals = [] if strategy.name == presence.name else [presence]
    if strategy.is_trained:
        rivals += _linear(wanted, target, project, config, offers)
    return Seeking(wish, strategy, target=target, rivals=rivals)


def _linear(
    wanted: str, target: str, project: Project, config: RankingConfig, offers: Collection[str]
) -> list[Strategy]:
    """The linear ranker, where it is another one and comes with the backend."""
    try:
        linear = _find(LINEAR, target, project, config)
    except (ValueError, OSError) as error:
        logger.info("project %s: %s is no rival: %s", project.tool_id, LINEAR, error)
        return []
    is_rival = wanted != LINEAR and linear.needs.maps.issubset(offers)
    return [linear] if is_rival else []


def _is(strategy: Strategy | None, name: str) -> bool:
    return strategy is not None and strategy.name.partition(":")[0] == name


def _find(name: str, target: str, project: Project, config: RankingConfig) -> Strategy:
    return find_strategy(
        f"{name}:{target}", config.policies_dir, project.class_names, config.region_size
    )


def _nobody(project: Project, wish: Wish, why: str) -> Seeking:
    return _told(project, Seeking(wish, None, why))


def _told(project: Project, seeking: Seeking) -> Seeking:
    logger.warning(
        "project %s: %r is looked for by %s: %s",
        project.tool_id,
        seeking.wish.class_name,
        "nobody" if seeking.strategy is None else seeking.strategy.name,
        seeking.note,
    )
    return seeking
