"""Features of regions -> scores, higher first, and the pick of the best under a spread.

Every strategy is a scorer behind one protocol, `Strategy`; learned policies join it.
"""

from __future__ import annotations

from ralis_backend.core.acquisition.chance import ForegroundRandom, Power, Random
from ralis_backend.core.acquisition.classes import (
    BaldRarity,
    ClaspPe,
    ClassBal,
    Coverage,
    EntropyRarity,
    Rarity,
)
from ralis_backend.core.acquisition.diversity import KCenter, SpatialDiversity
from ralis_backend.core.acquisition.selection import select
from ralis_backend.core.acquisition.state import Places, PoolState, Strategy
from ralis_backend.core.acquisition.uncertainty import (
    Bald,
    Entropy,
    Equal,
    Margin,
    mean_entropy,
    peak_entropy,
    top_entropy,
)

__all__ = ["STRATEGIES", "Places", "PoolState", "Strategy", "select", "strategy"]

_ALL: tuple[Strategy, ...] = (
    Random(),
    ForegroundRandom(),
    Entropy("entropy", mean_entropy),
    Entropy("entropy-max", peak_entropy),
    Entropy("entropy-top", top_entropy),
    Margin(),
    Bald(),
    ClassBal(),
    Power(),
    ClaspPe(),
    KCenter(),
    Equal(),
    SpatialDiversity(),
    Rarity(),
    EntropyRarity(),
    BaldRarity(),
    Coverage(),
)
STRATEGIES: dict[str, Strategy] = {each.name: each for each in _ALL}


def strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        ValueError: if there is none, naming those there are.
    """
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy '{name}'; expected one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
