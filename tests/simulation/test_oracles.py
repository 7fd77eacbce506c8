from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.acquisition import PoolState
from ralis_backend.simulation import Truth
from ralis_backend.simulation.oracles import ORACLES
from tests.core.make_features import region_features


@pytest.mark.parametrize(
    ("name", "best"), [("oracle-error", 0), ("oracle-rarity", 1), ("oracle-coverage", 2)]
)
def test_each_oracle_finds_the_region_that_its_truth_names(name, best):
    pixels = np.array([[90, 10, 0], [10, 90, 0], [60, 40, 0]])
    truth = Truth(pixels, np.array([0.9, 0.1, 0.2]), np.array([[0.1, 0], [0, 0.1], [0, 0.9]]))
    labelled = np.array([[900, 100, 0]])
    state = PoolState(labelled, np.zeros((1, 4)), 1, np.random.default_rng(0))
    actions = region_features(
        np.full((3, 2), 0.5), class_counts=np.full((3, 2), 50.0), bald=np.full(3, 0.3)
    )
    scores = ORACLES[name].scores(replace(state, truth=truth), actions)
    assert scores.dtype == np.float32
    assert scores.argmax() == best
