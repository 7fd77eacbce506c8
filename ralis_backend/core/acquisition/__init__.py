"""Features of regions -> scores, higher first, and the pick of the best under a spread.

Every strategy is a scorer behind one protocol, `Strategy`; learned policies join it. A new one is a
class in a file of this folder and a line in `STRATEGIES`, or an entry point of another package in
the group `ralis_backend.strategies`.
"""

from __future__ import annotations

from ralis_backend.core.acquisition.chance import ForegroundRandom, Power, Random
from ralis_backend.core.acquisition.classes import (
    BaldRarity,
    ClaspPe,
    ClassBal,
    Coverage,
    DiverseCoverage,
    EntropyRarity,
    Rarity,
)
from ralis_backend.core.acquisition.diversity import KCenter, SpatialDiversity
from ralis_backend.core.acquisition.mining import (
    Presence,
    PresenceBald,
    PresenceMax,
    Similarity,
)
from ralis_backend.core.acquisition.selection import select
from ralis_backend.core.acquisition.state import Places, PoolState
from ralis_backend.core.acquisition.strategy import Aimed, Drift, Needs, Scorer, Strategy
from ralis_backend.core.acquisition.uncertainty import (
    Bald,
    Entropy,
    Equal,
    Margin,
    mean_entropy,
    peak_entropy,
    top_entropy,
)
from ralis_backend.core.registry import Registry

__all__ = [
    "STRATEGIES",
    "Aimed",
    "Drift",
    "Needs",
    "Places",
    "PoolState",
    "Scorer",
    "Strategy",
    "select",
    "strategy",
]

STRATEGIES: Registry[Strategy] = Registry("strategy", "ralis_backend.strategies")
"""Every strategy that nobody has to train, by name."""

for _each in (
    Random(),
    ForegroundRandom(),
    Entropy("entropy", mean_entropy),
    Entropy("entropy-max", peak_entropy, "entropy_grid"),
    Entropy("entropy-top", top_entropy, "entropy_grid"),
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
    DiverseCoverage(),
    Presence(),
    PresenceMax(),
    PresenceBald(),
    Similarity(),
):
    STRATEGIES.register(_each.name, _each)


def strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        ValueError: if there is none, naming those there are.
    """
    return STRATEGIES.find(name)
