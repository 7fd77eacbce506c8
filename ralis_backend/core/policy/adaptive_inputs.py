"""A project's state and its candidates -> a few numbers that say what kind of project it is.

They mean the same for every label set, region size and pool, and need nothing but what a ranking
has at hand.
"""

from __future__ import annotations

import numpy as np

from ralis_backend.core.acquisition import PoolState
from ralis_backend.core.features import RegionFeatures

PROJECT_INPUTS = (
    "classes",
    "evenness",
    "labels",
    "doubt",
    "disagreement",
    "agreement",
    "mismatch",
    "lacking",
)
"""Ln of the number of classes; entropy of the labelled shares over its maximum; ln of the number of
labelled regions; mean entropy of the candidates over its maximum; their mean BALD over their mean
entropy; rank correlation of both; how far the predicted shares of classes are from the labelled
ones (total variation); share of the classes with less than a thousandth of the labels."""

_TINY = 1e-9
_MAX_COMPARED = 4096
_HARDLY_ANY = 1e-3


def project_inputs(state: PoolState, actions: RegionFeatures) -> np.ndarray:
    """(8,) float64, `PROJECT_INPUTS`, of the classes that there are; of at least one candidate."""
    is_there = state.existing(actions.class_counts.shape[1])
    num_classes = int(is_there.sum())
    most = np.log(max(2, num_classes))
    labelled = state.labelled_shares[is_there]
    predicted = actions.class_counts.sum(axis=0, dtype=np.float64)[is_there]
    predicted = predicted / max(_TINY, float(predicted.sum()))
    doubt, disagreement = float(actions.entropy.mean()), float(actions.bald.mean())
    step = max(1, len(actions) // _MAX_COMPARED)
    return np.array(
        [
            np.log(max(1, num_classes)),
            _entropy(labelled) / most,
            np.log(max(1, len(state.labelled_pixels_by_region))),
            doubt / most,
            disagreement / max(_TINY, doubt),
            _rank_correlation(actions.bald[::step], actions.entropy[::step]),
            float(np.abs(predicted - labelled).sum()) / 2,
            float((labelled < _HARDLY_ANY).mean()),
        ]
    )


def _entropy(shares: np.ndarray) -> float:
    known = shares[shares > 0]
    return float(-(known * np.log(known)).sum())


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, in [-1, 1]; 0 where all values of one are equal."""
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (one, other)]
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
