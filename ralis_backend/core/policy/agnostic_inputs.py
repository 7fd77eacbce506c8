"""Features of regions -> numbers that mean the same whatever the classes are, and however many.

Each class of each region is described by a few numbers, so that a network can look at classes as a
set; each region by a few more. Uncertainties are relative to the candidates, labels to their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ralis_backend.core.acquisition import Needs, PoolState
from ralis_backend.core.acquisition.classes import Coverage, cover_gains, rarity_terms
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


def agnostic_inputs(state: PoolState, actions: RegionFeatures) -> AgnosticInputs:
    """The inputs of each of R candidates, at least one.

    Source: the statistics that the field's heuristics are made of; see `CLASS_INPUTS` and
    `REGION_INPUTS`. All logarithms are of ratios to the mean over the candidates.
    """
    num_regions, num_classes = actions.class_probabilities.shape
    shares = state.labelled_shares
    counts = actions.class_counts / np.maximum(1, actions.class_counts.sum(axis=1, keepdims=True))
    pool_shares = actions.class_probabilities.mean(axis=0)
    labelled = state.labelled_pixels_by_region[:, :-1] > 0
    by_class = [
        np.log(_relative(1 / (shares + 0.005))),
        np.log(_relative(1 / (pool_shares + 0.005))),
        labelled.mean(axis=0) if len(labelled) else np.zeros(num_classes),
    ]
    classes = np.stack(
        [
            actions.class_probabilities,
            counts,
            actions.class_bald / max(_TINY, float(actions.bald.mean())),
            actions.class_entropy / max(_TINY, float(actions.entropy.mean())),
            *(np.broadcast_to(each, (num_regions, num_classes)) for each in by_class),
        ],
        axis=2,
    )
    rarity = rarity_terms(state, actions).sum(axis=1)
    gains = cover_gains(
        state, actions, actions.class_bald, Coverage.prior, Coverage.pixels_per_point
    )
    regions = np.stack(
        [
            _log_ratio(actions.bald * rarity),
            _log_ratio(actions.bald),
            _log_ratio(actions.entropy),
            _log_ratio(rarity),
            _log_ratio(gains),
            actions.margin,
            actions.boundary,
            actions.entropy_grid[:, 128:].max(axis=1) / np.log(max(2, num_classes)),
            _nearest_distance(actions.embeddings, state.known_embeddings),
            _mean_similarity(actions.embeddings),
            np.full(num_regions, state.progress),
        ],
        axis=1,
    )
    return AgnosticInputs(classes.astype(np.float32), regions.astype(np.float32))


def _relative(values: np.ndarray) -> np.ndarray:
    relative: np.ndarray = values / values.mean()
    return relative


def _log_ratio(values: np.ndarray) -> np.ndarray:
    """Ln of values over their mean, at least -6: a zero says no more than that."""
    mean = max(1e-12, float(values.mean()))
    logarithm: np.ndarray = np.log(np.maximum(values / mean, np.exp(-6)))
    return logarithm


def _nearest_distance(embeddings: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(R,) 1 - cosine similarity to the most similar labelled region; 1 without any."""
    if len(known) == 0:
        return np.ones(len(embeddings), np.float32)
    best = np.full(len(embeddings), -1, np.float32)
    for start in range(0, len(known), 1024):  # a block at a time bounds memory
        best = np.maximum(best, (embeddings @ known[start : start + 1024].T).max(axis=1))
    return 1 - best


def _mean_similarity(embeddings: np.ndarray) -> np.ndarray:
    """(R,) mean cosine similarity to at most 512 candidates, evenly spaced."""
    step = max(1, len(embeddings) // _MAX_COMPARED)
    similarity: np.ndarray = embeddings @ embeddings[::step].mean(axis=0)
    return similarity
