"""Upper bounds: pickers that know the labels. They cannot be used on a project."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ralis_backend.core.acquisition import Needs, PoolState, Scorer, Strategy
from ralis_backend.core.acquisition.classes import RARITY_FLOOR, Coverage, cover
from ralis_backend.core.features import RegionFeatures
from ralis_backend.simulation import Truth


class Oracle(Scorer):
    """A picker that knows the labels.

    Args:
        name: as on the command line.
        measure: what is labelled, the candidates and the truth about them -> (R,) scores.
        features: of the candidates, that it looks at besides.
    """

    is_pointwise = True

    def __init__(
        self,
        name: str,
        measure: Callable[[PoolState, RegionFeatures, Truth], np.ndarray],
        *features: str,
    ) -> None:
        self.name = name
        self.needs = Needs(frozenset(features), has_truth=True)
        self._measure = measure

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) float32, the best region highest."""
        return np.asarray(self._measure(state, actions, state.truth), np.float32)


def _rarity(state: PoolState, actions: RegionFeatures, truth: Truth) -> np.ndarray:
    pixels = truth.class_pixels[:, :-1]
    shares = pixels / np.maximum(1, truth.class_pixels.sum(axis=1, keepdims=True))
    rarity: np.ndarray = (shares / (state.labelled_shares + RARITY_FLOOR)).sum(axis=1)
    return rarity


def _coverage(state: PoolState, actions: RegionFeatures, truth: Truth) -> np.ndarray:
    if len(actions) == 0:
        return np.zeros(0, np.float32)
    return cover(state, actions, truth.class_bald, Coverage.prior, Coverage.pixels_per_point)


def _error(state: PoolState, actions: RegionFeatures, truth: Truth) -> np.ndarray:
    return truth.error


ORACLES: dict[str, Strategy] = {
    each.name: each
    for each in (
        Oracle("oracle-rarity", _rarity),
        Oracle("oracle-coverage", _coverage, "bald", "class_counts"),
        Oracle("oracle-error", _error),
    )
}
