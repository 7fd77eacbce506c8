"""Features of regions -> numbers that mean the same whatever the classes are, and however many.

Each class of each region is described by a few numbers, so that a network can look at classes as a
set; each region by a few more. Uncertainties are relative to the candidates, labels to their sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ralis_backend.core.acquisition import Needs, PoolState
from ralis_backend.core.acquisition.classes import Coverage, cover_gains, rarity_terms
from ralis_backend.core.acquisition.diversity import most_similar
from ralis_backend.core.features import RegionFeatures

CLASS_INPUTS = (
    "probability",
    "predicted_share",
    "bald_share",
    "entropy_share",
    "log_rarity",
    "log_pool_rarity",
    "labelled_regions",
)
REGION_INPUTS = (
    "log_bald_rarity",
    "log_bald",
    "log_entropy",
    "log_rarity",
    "log_coverage",
    "margin",
    "boundary",
    "peak_entropy",
    "novelty",
    "typicality",
    "progress",
)
NEEDS = Needs.of(
    "class_probabilities", "class_counts", "class_bald", "class_entropy", "bald", "entropy",
    "entropy_grid", "margin", "boundary", "embeddings",
)  # fmt: skip
"""What the inputs are made of."""

_TINY = 1e-6
_MAX_COMPARED = 512


@dataclass(frozen=True)
class AgnosticInputs:
    """What a class-count-agnostic policy looks at.

    classes: (R, C, 7) float32, `CLASS_INPUTS` of each class in each region.
    regions: (R, 11) float32, `REGION_INPUTS` of each region.
    """

    classes: np.ndarray
    regions: np.ndarray


@dataclass(frozen=True)
class PoolMeans:
    """Means over all candidates, which inputs are relative to.

    shares: (C,) class probabilities. embedding: (D,) of at most 512 candidates, evenly spaced.
    """

    shares: np.ndarray
    embedding: np.ndarray
    bald: float
    entropy: float
    rarity: float
    bald_rarity: float
    gains: float

    @classmethod
    def of(cls, state: PoolState, actions: RegionFeatures) -> PoolMeans:
        """Over at least one candidate, block by block."""
        state = replace(state, background=None)
        bald, num_regions = float(actions.bald.mean()), len(actions)
        sums = [_sums(state, part, bald) for _, part in actions.blocks()]
        shares = np.sum([each[0] for each in sums], axis=0) / num_regions
        others = np.sum([each[1] for each in sums], axis=0) / num_regions
        entropy, rarity, bald_rarity, gains = (float(each) for each in others)
        step = max(1, num_regions // _MAX_COMPARED)
        compared = actions.take(np.arange(0, num_regions, step)).embeddings
        return cls(shares, compared.mean(axis=0), bald, entropy, rarity, bald_rarity, gains)


def agnostic_inputs(
    state: PoolState, actions: RegionFeatures, means: PoolMeans | None = None
) -> AgnosticInputs:
    """The inputs of each of R candidates, at least one; to policies every class is like any other.

    Args:
        state: what is labelled.
        actions: the candidates, or some of them.
        means: over all candidates; None: `actions` are all.

    Source: the statistics that the field's heuristics are made of; see `CLASS_INPUTS` and
    `REGION_INPUTS`. All logarithms are of ratios to the mean over the candidates.
    """
    state = replace(state, background=None)
    means = means or PoolMeans.of(state, actions)
    num_regions, num_classes = actions.class_probabilities.shape
    shares = state.labelled_shares
    counts = actions.class_counts / np.maximum(1, actions.class_counts.sum(axis=1, keepdims=True))
    labelled = state.labelled_pixels_by_region[:, :-1] > 0
    by_class = [
        np.log(_relative(1 / (shares + 0.005))),
        np.log(_relative(1 / (means.shares + 0.005))),
        labelled.mean(axis=0) if len(labelled) else np.zeros(num_classes),
    ]
    classes = np.stack(
        [
            actions.class_probabilities,
            counts,
            actions.class_bald / max(_TINY, means.bald),
            actions.class_entropy / max(_TINY, means.entropy),
            *(np.broadcast_to(each, (num_regions, num_classes)) for each in by_class),
        ],
        axis=2,
    )
    rarity = rarity_terms(state, actions).sum(axis=1)
    embeddings = actions.embeddings
    regions = np.stack(
        [
            _log_ratio(actions.bald * rarity, means.bald_rarity),
            _log_ratio(actions.bald, means.bald),
            _log_ratio(actions.entropy, means.entropy),
            _log_ratio(rarity, means.rarity),
            _log_ratio(_gains(state, actions, means.bald), means.gains),
            actions.margin,
            actions.boundary,
            actions.entropy_grid[:, 128:].max(axis=1) / np.log(max(2, num_classes)),
            _nearest_distance(embeddings, state.known_embeddings),
            embeddings @ means.embedding,
            np.full(num_regions, state.progress),
        ],
        axis=1,
    )
    return AgnosticInputs(classes.astype(np.float32), regions.astype(np.float32))


def _sums(state: PoolState, actions: RegionFeatures, bald: float) -> tuple[np.ndarray, list[float]]:
    """Over some candidates: (C,) class probabilities; entropy, rarity, BALD x rarity and gains."""
    rarity = rarity_terms(state, actions).sum(axis=1)
    of_regions = (
        actions.entropy,
        rarity,
        actions.bald * rarity,
        _gains(state, actions, bald),
    )
    shares = actions.class_probabilities.sum(axis=0, dtype=np.float64)
    return shares, [float(each.sum(dtype=np.float64)) for each in of_regions]


def _gains(state: PoolState, actions: RegionFeatures, bald: float) -> np.ndarray:
    prior, pixels_per_point = Coverage.prior, Coverage.pixels_per_point
    return cover_gains(state, actions, actions.class_bald, prior, pixels_per_point, bald)


def _relative(values: np.ndarray) -> np.ndarray:
    relative: np.ndarray = values / values.mean()
    return relative


def _log_ratio(values: np.ndarray, mean: float) -> np.ndarray:
    """Ln of values over a mean, at least -6: a zero says no more than that."""
    logarithm: np.ndarray = np.log(np.maximum(values / max(1e-12, mean), np.exp(-6)))
    return logarithm


def _nearest_distance(embeddings: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(R,) 1 - cosine similarity to the most similar labelled region; 1 without any."""
    if len(known) == 0:
        return np.ones(len(embeddings), np.float32)
    return 1 - most_similar(embeddings, known)
