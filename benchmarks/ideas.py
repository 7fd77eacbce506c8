"""Ideas for a better default that were tried: changes of `coverage`, each in a few lines.

`benchmarks/formulas.py` plays them by name; its report says what they are worth.
"""

from __future__ import annotations

import numpy as np

from ralis_backend.core.acquisition import Needs, PoolState, Scorer, Strategy
from ralis_backend.core.acquisition.classes import Coverage
from ralis_backend.core.acquisition.state import greedy_scores
from ralis_backend.core.features import RegionFeatures

_TINY = 1e-12
_NEIGHBOURS = 8
_TEMPERATURE = 0.02
"""Of the weights of neighbours by cosine similarity."""


class Changed(Scorer):
    """`coverage`, with terms added to the logarithm of a region's gain.

    Args:
        name: as on the command line.
        neighbours: times how far the predicted classes are from those of the eight labelled regions
            that look most like it (total variation, standardised).
        mixed: share of the classes that is taken from these regions instead of the prediction.
        noise: times a Gumbel number.
        apart: times how much it looks like an earlier pick of the batch (standardised).
    """

    needs = Needs.of("bald", "class_bald", "class_counts", "class_probabilities", "embeddings")

    def __init__(
        self,
        name: str,
        *,
        neighbours: float = 0.0,
        mixed: float = 0.0,
        noise: float = 0.0,
        apart: float = 0.0,
    ) -> None:
        self.name = name
        self._neighbours, self._mixed, self._noise, self._apart = neighbours, mixed, noise, apart

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made."""
        own: np.ndarray = np.zeros(len(actions))
        if self._neighbours or self._mixed:
            expected = _expected(state, actions.embeddings)
            away = np.abs(actions.class_probabilities - expected).sum(axis=1) / 2
            own = own + self._neighbours * _standardised(away)
            by_likeness = expected * actions.bald[:, None]
            mixed = (1 - self._mixed) * actions.class_bald + self._mixed * by_likeness
            actions = actions.replaced(class_bald=mixed.astype(np.float32))
        own = own + self._noise * state.rng.gumbel(size=len(actions))
        return self._covered(state, actions, own)

    def _covered(self, state: PoolState, actions: RegionFeatures, own: np.ndarray) -> np.ndarray:
        size = actions.class_counts.sum(axis=1, keepdims=True) / Coverage.pixels_per_point
        base = state.labelled_pixels / Coverage.pixels_per_point + Coverage.prior
        masses = actions.class_bald * size / max(_TINY, float(actions.bald.mean())) / base
        covered, near = np.ones(len(base)), np.zeros(len(actions))
        embeddings = actions.embeddings

        def gains() -> np.ndarray:
            gained = np.log(np.maximum(np.log1p(masses / covered).sum(axis=1), _TINY))
            worth: np.ndarray = gained + own - self._apart * near
            return worth

        def take(index: int) -> None:
            covered[:] += masses[index]
            near[:] = np.maximum(near, _standardised(embeddings @ embeddings[index]))

        return greedy_scores(state, len(actions), gains, take)


def _expected(state: PoolState, embeddings: np.ndarray) -> np.ndarray:
    """(R, C) shares of classes in the labelled regions that look most like each region."""
    known = state.known_embeddings
    pixels = state.labelled_pixels_by_region[:, :-1].astype(np.float64)
    shares = pixels / np.maximum(1, pixels.sum(axis=1, keepdims=True))
    similar = embeddings @ known.T
    count = min(_NEIGHBOURS, len(known))
    nearest = np.argpartition(-similar, count - 1, axis=1)[:, :count]
    best = np.take_along_axis(similar, nearest, axis=1)
    weights = np.exp((best - best.max(axis=1, keepdims=True)) / _TEMPERATURE)
    weights = weights / weights.sum(axis=1, keepdims=True)
    expected: np.ndarray = (weights[..., None] * shares[nearest]).sum(axis=1)
    return expected


def _standardised(values: np.ndarray) -> np.ndarray:
    deviations: np.ndarray = np.clip((values - values.mean()) / (values.std() + 1e-3), -4, 4)
    return deviations


class Twice(Scorer):
    """`coverage` of a BALD that doubts what entropy doubts, too: their geometric mean."""

    name = "coverage-both"
    needs = Needs.of("bald", "class_bald", "class_counts", "class_entropy", "entropy")

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made."""
        bald = actions.class_bald / max(_TINY, float(actions.bald.mean()))
        entropy = actions.class_entropy / max(_TINY, float(actions.entropy.mean()))
        both = np.sqrt(bald * entropy).astype(np.float32)
        doubt = both.sum(axis=1)
        return Coverage().scores(state, actions.replaced(class_bald=both, bald=doubt))


IDEAS: dict[str, Strategy] = {
    each.name: each
    for each in (
        Changed("coverage-neighbours", neighbours=0.3),
        Changed("coverage-mixed", mixed=0.3),
        Changed("coverage-noise", noise=0.2),
        Changed("coverage-apart", apart=0.4),
        Twice(),
    )
}
