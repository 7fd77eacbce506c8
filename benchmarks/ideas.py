"""Ideas for a better default that were tried: changes of `coverage`, each in a few lines.

`benchmarks/formulas.py` plays them by name; its report says what they are worth.
"""

from __future__ import annotations

import numpy as np

from ralis_backend.core.acquisition import Needs, PoolState, Scorer, Strategy
from ralis_backend.core.acquisition.classes import Coverage
from ralis_backend.core.acquisition.diversity import standardised
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
        fades: numbers of labelled regions up to which `apart` is whole, and from which on it is 0;
            between them it falls with their logarithm. None: it stays.
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
        fades: tuple[int, int] | None = None,
    ) -> None:
        self.name = name
        self._neighbours, self._mixed, self._noise, self._apart = neighbours, mixed, noise, apart
        self._fades = fades

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made."""
        own: np.ndarray = np.zeros(len(actions))
        if self._neighbours or self._mixed:
            expected = _expected(state, actions.embeddings)
            away = np.abs(actions.class_probabilities - expected).sum(axis=1) / 2
            own = own + self._neighbours * standardised(away)
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
        embeddings, apart = actions.embeddings, self._apart_at(len(state.labelled_pixels_by_region))

        def gains() -> np.ndarray:
            gained = np.log(np.maximum(np.log1p(masses / covered).sum(axis=1), _TINY))
            worth: np.ndarray = gained + own - apart * near
            return worth

        def take(index: int) -> None:
            covered[:] += masses[index]
            if apart:
                near[:] = np.maximum(near, standardised(embeddings @ embeddings[index]))

        return greedy_scores(state, len(actions), gains, take)

    def _apart_at(self, num_labelled: int) -> float:
        if self._fades is None:
            return self._apart
        whole, none = np.log(self._fades)
        left = (none - np.log(max(1, num_labelled))) / (none - whole)
        return float(self._apart * np.clip(left, 0, 1))


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
        Changed("coverage-apart-64", apart=0.4, fades=(64, 128)),
        Twice(),
    )
}
