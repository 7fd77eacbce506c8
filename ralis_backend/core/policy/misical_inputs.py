"""Features of regions and one class -> numbers that mean the same whatever that class is.

The class that is sought comes first, then the classes that regions showing it show most; the first
eight are kept, so one network serves any class of any label set.

Known of the paper (arXiv:2307.09109, abstract and summaries; its text could not be had): BALD,
beside features of the class's presence, computed once by a model that learned from the first
labels. Which numbers these are, their order by co-occurrence and their scale is our design.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ralis_backend.core.acquisition import Needs, PoolState
from ralis_backend.core.acquisition.mining import target_of
from ralis_backend.core.features import RegionFeatures

NUM_KEPT = 8
CLASS_INPUTS = ("presence", "peak", "predicted_share", "class_bald")
"""Of each kept class: mean and largest probability, share of the pixels that are predicted it, and
BALD where it is probable."""
REGION_INPUTS = (
    *(f"{name}_{rank}" for name in CLASS_INPUTS for rank in range(NUM_KEPT)),
    "bald",
    "peak_bald",
    "entropy",
)
"""The target's have rank 0."""
STATE_INPUTS = ("log_pixels", "progress", "hit_rate", "best_share", "mean_share")
INPUTS = (*STATE_INPUTS, *REGION_INPUTS)
NEEDS = Needs(
    frozenset(
        (
            "class_probabilities",
            "class_peaks",
            "class_counts",
            "class_deep_bald",
            "deep_bald",
            "deep_bald_peak",
            "entropy",
        )
    ),
    has_target_class=True,
)
"""What the inputs are made of."""

_TINY = 1e-6
_SMOOTHING = 2.0
"""Regions that are added to both counts: a class that was hardly seen tells little."""


def class_order(state: PoolState, actions: RegionFeatures) -> np.ndarray:
    """(min(C, 8),) indices of classes: the target, then those that co-occur with it most.

    By the number of labelled regions that show a class and the target, over what it would be if
    one had nothing to do with the other, both plus 2; equals by labelled pixels, then by expected
    share of the candidates, so that the order in which a project names its classes says nothing.

    Raises:
        ValueError: if no class is sought, or one that the segmenter does not have.
    """
    target = target_of(state, actions.class_probabilities.shape[1])
    pixels = state.labelled_pixels_by_region[:, :-1]
    is_shown = pixels > 0  # (L, C)
    together = is_shown[is_shown[:, target]].sum(axis=0)
    by_chance = is_shown[:, target].sum() * is_shown.sum(axis=0) / max(1, len(is_shown))
    lift = (together + _SMOOTHING) / (by_chance + _SMOOTHING)
    expected = actions.class_probabilities.mean(axis=0, dtype=np.float64)
    order = np.lexsort((-expected, -pixels.sum(axis=0), -lift))
    others: np.ndarray = order[order != target][: NUM_KEPT - 1]
    return np.concatenate([[target], others])


def region_inputs(actions: RegionFeatures, order: np.ndarray) -> np.ndarray:
    """(R, 35) float32, `REGION_INPUTS` of each region, of the classes in this order; 0 beyond."""
    probabilities = actions.class_probabilities[:, order]
    counts = actions.class_counts
    inputs = np.zeros((len(actions), len(REGION_INPUTS)), np.float32)
    by_class = (
        probabilities,
        actions.class_peaks[:, order],
        counts[:, order] / np.maximum(1, counts.sum(axis=1, keepdims=True)),
        actions.class_deep_bald[:, order] / (probabilities + _TINY),
    )
    for index, values in enumerate(by_class):
        inputs[:, index * NUM_KEPT : index * NUM_KEPT + len(order)] = values
    of_region = (actions.deep_bald, actions.deep_bald_peak, actions.entropy)
    for column, values in zip((-3, -2, -1), of_region, strict=True):
        inputs[:, column] = values
    return inputs


def state_inputs(state: PoolState, num_classes: int) -> np.ndarray:
    """(5,) float32, `STATE_INPUTS`: what was found of the target so far.

    A tenth of log(1 + pixels); share of the budget that is spent; share of labelled regions that
    show it; its largest share of a labelled region's pixels, and its mean share of those that show
    it.
    """
    target = target_of(state, num_classes)
    known = state.labelled_pixels_by_region[:, :-1]
    return found(known[:, target], known.sum(axis=1), state.progress)


def found(pixels: np.ndarray, annotated: np.ndarray, progress: float) -> np.ndarray:
    """`state_inputs` of (L,) pixels of the target and (L,) annotated pixels of labelled regions."""
    shares = pixels / np.maximum(1, annotated)
    is_hit = pixels > 0
    return np.array(
        [
            np.log1p(pixels.sum()) / 10,
            progress,
            is_hit.mean() if len(pixels) else 0,
            shares.max(initial=0),
            shares[is_hit].mean() if is_hit.any() else 0,
        ],
        np.float32,
    )


@dataclass(frozen=True)
class Standard:
    """Mean and deviation of each input over all candidates, (35,) each.

    The design takes them of the first labelled regions, each under a segmenter that did not learn
    from it. A project that ranks has no such features at hand, and has the candidates'.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, actions: RegionFeatures, order: np.ndarray) -> Standard:
        """Over at least one candidate, block by block."""
        sums, squares = np.zeros((2, len(REGION_INPUTS)))
        for _, part in actions.blocks():
            values = region_inputs(part, order).astype(np.float64)
            sums += values.sum(axis=0)
            squares += (values**2).sum(axis=0)
        mean = sums / len(actions)
        variance = np.maximum(0, squares / len(actions) - mean**2)
        return cls(mean.astype(np.float32), (np.sqrt(variance) + _TINY).astype(np.float32))

    def applied(self, inputs: np.ndarray) -> np.ndarray:
        """(R, 35) -> (R, 35) float32, 0 on average."""
        standardised: np.ndarray = (inputs - self.mean) / self.deviation
        return standardised
