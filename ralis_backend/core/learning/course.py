"""Looks at what is held out, one after another -> whether training that goes on has converged."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ContinuingConfig:
    """How training goes on.

    learning_rate: as a share of the peak rate of `FinetuneConfig`, all along.
    decay: of the moving average, see `MovingAverage`.
    updates_per_look: between two looks at what is held out; more where looks take long.
    look_share: of the computing, that looks take at most.
    patience: it has converged after so many looks without a gain.
    least_gain: in score; less is none.
    """

    learning_rate: float = 0.5
    decay: float = 0.99
    updates_per_look: int = 50
    look_share: float = 0.2
    patience: int = 10
    least_gain: float = 0.001


@dataclass(frozen=True)
class Course:
    """How far a continued training is.

    updates: that were made.
    best_score: the highest on what is held out, that of the start included; None before.
    best_updates: after how many updates it was reached.
    num_looks: without a gain since.
    """

    updates: int = 0
    best_score: float | None = None
    best_updates: int = 0
    num_looks: int = 0

    def seen(self, score: float, updates: int, config: ContinuingConfig) -> Course:
        """After one more look; a score that is NaN is no gain."""
        best = -math.inf if self.best_score is None else self.best_score
        if score >= best + config.least_gain:
            return Course(updates, score, updates)
        return replace(self, updates=updates, num_looks=self.num_looks + 1)

    def has_converged(self, config: ContinuingConfig) -> bool:
        """Whether going on has not helped for long enough."""
        return self.num_looks >= config.patience
