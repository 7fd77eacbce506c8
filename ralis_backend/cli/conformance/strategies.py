"""Tests of a strategy: what it says of itself, its scores and reasons, and a small game."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ralis_backend.core.acquisition import Aimed, Needs, PoolState, Strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.simulation.arena import FastArena
from ralis_backend.simulation.game import GameRules, play
from ralis_backend.simulation.heads import HeadConfig, Points
from ralis_backend.simulation.picking import state_of
from ralis_backend.simulation.points import RegionPoints

CLASS_NAMES = ("water", "sand", "grass")
MAX_REASON = 150
"""Characters of a reason that annotators still read."""
_RULES = GameRules(
    budgets=(8,),
    initial_regions=4,
    regions_per_step=2,
    pool_size=3,
    updates_per_step=2,
    initial_updates=2,
    final_updates=2,
)


def has_what_a_strategy_has(name: str, thing: object) -> None:
    """See `Strategy`."""
    if isinstance(thing, type):
        raise ValueError(
            f"it is the class {thing.__name__}, expected a strategy; end the module with "
            f"`{name.upper().replace('-', '_')} = {thing.__name__}()` and name that as entry point"
        )
    expected = (
        *("name", "needs", "is_pointwise", "is_trained"),
        *("scores", "alone", "reasons", "drift", "manner"),
    )
    if missing := [each for each in expected if not hasattr(thing, each)]:
        raise ValueError(
            f"it has no {', '.join(missing)}; derive it from Scorer of "
            "ralis_backend.core.acquisition, which has all but name and scores"
        )


def is_called_by_its_entry_point(name: str, strategy: Strategy) -> None:
    """Rankings are stored under the strategy's name, and looked for under the entry point's."""
    if strategy.name != name:
        raise ValueError(
            f"its name is '{strategy.name}', expected '{name}' as the entry point is called; "
            "rename one of them"
        )


def needs_no_labels(name: str, strategy: Strategy) -> None:
    """On a project nobody knows the labels."""
    if strategy.needs.has_truth:
        raise ValueError("it needs the truth, which no project has; set has_truth=False")


def scores_every_region(name: str, strategy: Strategy) -> None:
    """Also where there is none, from what it needs and nothing else."""
    strategy = _aimed(strategy)
    for count in (12, 1, 0):
        state, actions = _asked(strategy, count)
        scores = strategy.scores(state, actions)
        found = (getattr(scores, "shape", None), str(getattr(scores, "dtype", type(scores))))
        if found != ((count,), "float32"):
            raise ValueError(
                f"scores of {count} regions have shape {found[0]} and dtype {found[1]}, expected "
                f"({count},) and float32; return np.asarray(scores, np.float32)"
            )
        if not np.isfinite(scores).all():
            raise ValueError("a score is not finite; guard logarithms and divisions against 0")


def repeats_itself(name: str, strategy: Strategy) -> None:
    """With the same random numbers."""
    strategy = _aimed(strategy)
    first, second = (strategy.scores(*_asked(strategy)) for _ in range(2))
    if not np.array_equal(first, second):
        raise ValueError(
            "scores differ between two calls with the same state; draw from state.rng alone, and "
            "keep nothing between calls"
        )


def scores_each_region_alone_if_it_says_so(name: str, strategy: Strategy) -> None:
    """A pool is ranked in blocks where it does."""
    strategy = _aimed(strategy)
    if not strategy.is_pointwise:
        return
    whole = strategy.scores(*_asked(strategy))
    half = strategy.scores(*_asked(strategy, shown=6))
    if not np.allclose(whole[:6], half, rtol=1e-4, atol=1e-6):
        raise ValueError(
            "is_pointwise is True, but a region's score depends on the other candidates; set it to "
            "False, or leave them out of the score"
        )


def gives_each_region_a_short_reason(name: str, strategy: Strategy) -> None:
    """Annotators read it above the region."""
    strategy = _aimed(strategy)
    for count in (12, 0):
        reasons = strategy.reasons(*_asked(strategy, count), CLASS_NAMES)
        if not isinstance(reasons, list) or len(reasons) != count:
            raise ValueError(
                f"{count} regions have the reasons {reasons!r}, expected a list of {count} texts"
            )
        _check_texts(reasons)


def plays_a_game(name: str, strategy: Strategy) -> None:
    """As in `ralis benchmark` and `ralis simulate`."""
    strategy = _aimed(strategy)
    played = play(small_arena(strategy.needs), strategy, 0, _RULES)
    if len(set(played["labelled"])) != _RULES.budgets[-1]:
        raise ValueError(
            f"it picked {played['labelled']} in a game, expected eight regions, each once"
        )


TESTS = (
    has_what_a_strategy_has,
    is_called_by_its_entry_point,
    needs_no_labels,
    scores_every_region,
    repeats_itself,
    scores_each_region_alone_if_it_says_so,
    gives_each_region_a_short_reason,
    plays_a_game,
)


def small_arena(needs: Needs, num_regions: int = 24) -> FastArena:
    """A pool of three classes whose points tell them apart, with a state set as large as needed."""
    pool = _points(num_regions, seed=0)
    state_set = _points(max(1, needs.state_regions), seed=1)
    return FastArena("small", pool, state_set, _points(6, seed=2), HeadConfig(hidden=8))


def _points(num_regions: int, seed: int) -> RegionPoints:
    rng, num_classes = np.random.default_rng(seed), len(CLASS_NAMES)
    labels = rng.integers(0, num_classes, (num_regions, 4)).astype(np.uint8)
    features = np.eye(num_classes)[labels] + rng.normal(0, 0.4, (num_regions, 4, num_classes))
    embeddings = features.mean(axis=1).astype(np.float32)
    counts = [np.bincount(each, minlength=num_classes + 1) for each in labels]
    index = np.arange(num_regions)
    tensor = torch.from_numpy(features).to(torch.bfloat16)
    return RegionPoints(
        Points(tensor, torch.from_numpy(labels)),
        (2, 2),
        embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        64 * np.array(counts, np.int64),
        index // 6,
        (16, 16),
        np.stack([index % 6 // 3, index % 3], axis=1).astype(np.float32),
        mirrored=tensor.flip(1),
    )


def _aimed(strategy: Strategy) -> Strategy:
    return Aimed(strategy, 0, CLASS_NAMES[0]) if strategy.needs.has_target_class else strategy


def _asked(
    strategy: Strategy, count: int = 12, shown: int | None = None
) -> tuple[PoolState, RegionFeatures]:
    """What a strategy is told of `count` candidates, or of the first `shown` of them."""
    simulation = small_arena(strategy.needs).simulation()
    pools = np.arange(4, 4 + max(1, count))[None]
    rng = np.random.default_rng(0)
    state = state_of(simulation, strategy, np.arange(4), pools, rng, 0.5)
    state = replace(state, pool_index=None)
    part = np.arange(count if shown is None else shown)
    features = simulation.describe(pools[0], strategy.needs.features)
    return state.part(part), features.take(part)


def _check_texts(reasons: Sequence[object]) -> None:
    for reason in reasons:
        if not isinstance(reason, str) or not 0 < len(reason) <= MAX_REASON:
            raise ValueError(
                f"a reason is {reason!r}, expected 1 to {MAX_REASON} characters; annotators read "
                "it above the region"
            )
