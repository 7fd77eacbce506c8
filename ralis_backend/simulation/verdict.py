"""Labelled regions -> which strategy would have chosen better among them, with intervals.

The labelling game is played many times on what a project has labelled so far. In each game other
images are held out to measure on; strategies of one game begin alike and are offered the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from ralis_backend.core.acquisition import Strategy
from ralis_backend.core.intervals import mean_interval
from ralis_backend.simulation.arena import FastArena
from ralis_backend.simulation.game import GameRules, play
from ralis_backend.simulation.heads import HeadConfig
from ralis_backend.simulation.points import RegionPoints

HEURISTICS = ("coverage-diverse", "coverage", "clasp-pe")
"""Strategies that nobody has to train: what a learned one is measured against."""
BASELINE = "random"
MIN_REGIONS = 96
"""Half an interval of a lead on CamVid, points of mIoU: 1.7 to 2.9 at 48 labelled regions, 0.5 to
1.4 at 96 (8 games, one draw of regions each); 0.6 to 1.5 at 120, 0.4 to 1.2 at 240 (16 games, five
draws)."""
MIN_IMAGES = 8
MARGIN = 1.0
"""Points of mIoU: a policy is trusted if it is shown to lose less than this."""

VerdictName = Literal["too few labels", "trusted", "not trusted"]


class TooFewLabels(ValueError):
    """There is not enough to replay; the message says how much there is and how much it takes."""


@dataclass(frozen=True)
class ReplayRules:
    """How often and on how much is played.

    num_games: with other images held out, and another start, each.
    held_out_share: of the labelled images, to measure on.
    max_regions: labelled regions that take part, drawn where there are more.
    updates_per_step, final_updates: as in `GameRules`.
    head: how heads learn.
    """

    num_games: int = 16
    held_out_share: float = 0.3
    max_regions: int = 400
    updates_per_step: int = 30
    final_updates: int = 100
    head: HeadConfig = field(default_factory=lambda: HeadConfig(batch_size=256))

    def of_game(self, num_regions: int) -> GameRules:
        """From an eighth of the pool to a half of it: beyond, there is little left to choose."""
        start, half = max(2, num_regions // 8), num_regions // 2
        budgets = sorted({start + round(share * (half - start)) for share in (1 / 3, 2 / 3, 1)})
        return GameRules(
            budgets=tuple(budgets),
            initial_regions=start,
            regions_per_step=max(1, (half - start) // 6),
            updates_per_step=self.updates_per_step,
            initial_updates=2 * self.updates_per_step,
            final_updates=self.final_updates,
        )


@dataclass(frozen=True)
class Lead:
    """How much more mIoU, in points, averaged over games; `low` to `high` holds 95 %.

    The interval is of the games: that other regions might have been labelled is not in it.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """What a replay says of one strategy.

    score: mIoU in percent, averaged over the budgets and games.
    heuristic: the best of `HEURISTICS` besides it. over_heuristic, over_random: None where that was
        not played.
    """

    name: VerdictName
    score: float
    heuristic: str | None
    over_heuristic: Lead | None
    over_random: Lead | None

    def to_json(self) -> dict[str, Any]:
        """Numbers rounded, for metrics and files."""

        def rounded(lead: Lead | None) -> dict[str, float] | None:
            if lead is None:
                return None
            return {key: round(value, 3) for key, value in asdict(lead).items()}

        return {
            "verdict": self.name,
            "score": round(self.score, 3),
            "heuristic": self.heuristic,
            "over_heuristic": rounded(self.over_heuristic),
            "over_random": rounded(self.over_random),
        }


def check_labels(num_regions: int, num_images: int) -> None:
    """Refuse to replay on so little that the answer would be noise.

    Raises:
        TooFewLabels: saying how much it takes.
    """
    if num_regions < MIN_REGIONS or num_images < MIN_IMAGES:
        raise TooFewLabels(
            f"{num_regions} regions of {num_images} images are labelled, and a replay takes "
            f"{MIN_REGIONS} regions of {MIN_IMAGES} images; label more"
        )


def replay(
    regions: RegionPoints,
    strategies: Mapping[str, Strategy],
    rules: ReplayRules,
    seed: int = 0,
    *,
    state_set: RegionPoints | None = None,
    device: str = "cpu",
    report: Callable[[int, int], None] = lambda done, total: None,
    is_clear: Callable[[Mapping[str, np.ndarray]], bool] = lambda _: False,
) -> dict[str, np.ndarray]:
    """Play every strategy in every game.

    A curve took 1.3 s of one core at 96 regions of CamVid and 1.4 s at 300; to encode an image
    takes 0.15 s. Four strategies and sixteen games are under two minutes.

    Args:
        regions: the labelled regions, each with an annotated point.
        strategies: by name.
        rules: how often and on how much.
        seed: of splits, starts and training.
        state_set: for policies that look at one; the held-out regions if None.
        device: where heads learn.
        report: told how many curves of how many are done; what it raises ends the replay.
        is_clear: asked after every game whether the scores so far say enough.

    Returns:
        (G,) mIoU in percent of each strategy, averaged over the budgets of each game.

    Raises:
        TooFewLabels: below `MIN_REGIONS` regions or `MIN_IMAGES` images.
    """
    check_labels(len(regions), len(np.unique(regions.image_index)))
    scores: dict[str, list[float]] = {name: [] for name in strategies}
    total = rules.num_games * len(strategies)
    for game in range(rules.num_games):
        pool, held_out = _split(regions, rules.held_out_share, np.random.default_rng([seed, game]))
        arena = FastArena("labelled", pool, state_set or held_out, held_out, rules.head, device)
        of_game = rules.of_game(len(pool))
        for name, strategy in strategies.items():
            curve = play(arena, strategy, seed + game, of_game)["curve"]
            scores[name].append(100 * float(np.mean([point["miou"] for point in curve])))
            report(sum(map(len, scores.values())), total)
        if is_clear({name: np.array(values) for name, values in scores.items()}):
            break
    return {name: np.array(values) for name, values in scores.items()}


def verdict(scores: Mapping[str, np.ndarray], name: str) -> Verdict:
    """Whether a strategy may rank: `trusted` if it is shown not to be worse.

    That is, not by `MARGIN` or more than the best heuristic, nor than random: the interval of each
    lead must lie above -`MARGIN`. One that lies below 0 makes it `not trusted`; otherwise it takes
    more labels to say.

    Args:
        scores: what `replay` returned.
        name: the strategy in question.
    """
    others = [each for each in HEURISTICS if each in scores and each != name]
    heuristic = max(others, key=lambda each: float(scores[each].mean()), default=None)
    over_heuristic = lead(scores[name] - scores[heuristic]) if heuristic else None
    is_compared = BASELINE in scores and name != BASELINE
    over_random = lead_over_random(scores, name) if is_compared else None
    return Verdict(
        _judged([each for each in (over_heuristic, over_random) if each is not None]),
        float(scores[name].mean()),
        heuristic,
        over_heuristic,
        over_random,
    )


def lead_over_random(scores: Mapping[str, np.ndarray], name: str) -> Lead:
    """The lead of a strategy over a random choice, in what `replay` returned of both."""
    return lead(scores[name] - scores[BASELINE])


def is_behind_random(scores: Mapping[str, np.ndarray], name: str) -> bool:
    """Whether a strategy is shown to lose to a random choice: its interval lies below 0."""
    return lead_over_random(scores, name).high < 0


def _judged(leads: Sequence[Lead]) -> VerdictName:
    if any(each.high < 0 for each in leads):
        return "not trusted"
    return "trusted" if all(each.low > -MARGIN for each in leads) else "too few labels"


def lead(differences: np.ndarray) -> Lead:
    """Mean of paired differences, (G,), with its interval."""
    low, high = mean_interval(differences)
    return Lead(float(differences.mean()), float(low), float(high))


def _split(
    regions: RegionPoints, held_out_share: float, rng: np.random.Generator
) -> tuple[RegionPoints, RegionPoints]:
    """Regions to choose among, and those of the held-out images."""
    images = rng.permutation(np.unique(regions.image_index))
    num_held_out = max(1, round(held_out_share * len(images)))
    is_held_out = np.isin(regions.image_index, images[:num_held_out])
    return regions.take(np.flatnonzero(~is_held_out)), regions.take(np.flatnonzero(is_held_out))
