"""Upper bounds: pickers that know the labels. They cannot be used on a project."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ralis_backend.core.acquisition import PoolState
from ralis_backend.core.acquisition.classes import RARITY_FLOOR, Coverage, cover
from ralis_backend.core.features import RegionFeatures
from ralis_backend.simulation import Truth


class Oracle:
    """A picker that knows the labels.

    Args:
        name: as on the command line.
        measure: what is labelled, the candidates and the truth about them -> (R,) scores.
    """

    looks_twice = False
    is_pointwise = True

    def __init__(
        self, name: str, measure: Callable[[PoolState, RegionFeatures, Truth], np.ndarray]
    ) -> None:
        self.name = name
        self._measure = measure

    def scores(self, state: PoolState, actions: RegionFeatures, truth: Truth) -> np.ndarray:
        """(R,) float32, the best region highest."""
        return np.asarray(self._measure(state, actions, truth), np.float32)


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


ORACLES = {
    each.name: each
    for each in (
        Oracle("oracle-rarity", _rarity),
        Oracle("oracle-coverage", _coverage),
        Oracle("oracle-error", _error),
    )
}
