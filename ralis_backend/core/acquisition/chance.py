"""Strategies that draw: the baselines to beat, and an uncertainty with noise against redundancy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ralis_backend.core.acquisition.state import PoolState
from ralis_backend.core.acquisition.strategy import Needs, Scorer, likeliest
from ralis_backend.core.features import RegionFeatures

_TINY = 1e-12


class Random(Scorer):
    """Every region is as good as any other: the baseline to beat."""

    name = "random"
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) uniform in [0, 1)."""
        return state.rng.random(len(actions), np.float32)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Says that there is none."""
        return ["picked at random"] * len(actions)


class ForegroundRandom(Scorer):
    """At random, but a third of the draws looks for classes and their borders.

    4/6 uniform, 1/6 a pixel of a class that is drawn first, 1/6 a pixel on a border. Classes are
    those that the segmenter predicts, without the background; the original looks at true labels.
    Source: "nnActive", arXiv:2511.19183.
    """

    name = "foreground-random"
    needs = Needs.of("class_counts", "boundary", "class_probabilities")

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) keys whose order is that of draws without replacement (Gumbel's trick)."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        counts = actions.class_counts.astype(np.float64)
        totals = counts.sum(axis=0) * state.looked_for(counts.shape[1])
        of_class = counts[:, totals > 0] / totals[totals > 0]
        chances = np.full(len(actions), 4 / 6 / len(actions))
        if of_class.size:
            chances += of_class.mean(axis=1) / 6
        chances += actions.boundary / max(_TINY, float(actions.boundary.sum())) / 6
        return np.asarray(np.log(chances) + state.rng.gumbel(size=len(actions)), np.float32)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Says what the draw prefers."""
        return [
            f"drawn at random among classes and borders; {seen}"
            for seen in likeliest(actions, class_names)
        ]


class Power(Scorer):
    """BALD with noise on its logarithm, so that a batch does not repeat itself.

    key = ln BALD + Gumbel(0, 1 / beta), beta = 1. Source: "Stochastic Batch Acquisition",
    arXiv:2106.12059 (PowerBALD).
    """

    name = "power"
    needs = Needs.of("bald", "class_probabilities")
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) noisy logarithms."""
        noise = state.rng.gumbel(size=len(actions))
        return np.asarray(np.log(np.maximum(actions.bald, _TINY)) + noise, np.float32)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the classes in question."""
        return [f"drawn by doubt, mostly {seen}" for seen in likeliest(actions, class_names)]
