from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from ralis_backend.core.acquisition import Needs, PoolState, Scorer, strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.training.config import REPAIRED
from ralis_backend.offline.training.open_simulation import open_simulation
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.picking import pick
from tests.tiny_dataset import REGION_SIZE

LABELLED = np.arange(2)
POOLS = np.array([[9, 4, 17], [21, 5, 28]])


@dataclass
class Witness(Scorer):
    """Prefers the region that comes last, and remembers what it was told."""

    needs: Needs = field(default_factory=Needs)
    name: str = "witness"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        self.state, self.actions = state, actions
        return np.arange(len(actions), dtype=np.float32)


@pytest.fixture(scope="module")
def simulation(tiny_dataset, tmp_path_factory) -> Simulation:
    config = replace(REPAIRED, region_size=REGION_SIZE)
    spec = SegmenterSpec(3, encoder_weights=None)
    simulation = open_simulation(tiny_dataset, config, tmp_path_factory.mktemp("cache"), spec=spec)
    simulation.begin(LABELLED, 2, 0)
    return simulation


def _told(simulation: Simulation, needs: Needs) -> Witness:
    witness = Witness(needs)
    picked = pick(simulation, witness, LABELLED, POOLS, np.random.default_rng(0), 0.25)
    np.testing.assert_array_equal(picked, [17, 28])
    return witness


def test_a_strategy_without_needs_is_told_what_costs_nothing(simulation):
    witness = _told(simulation, Needs())
    assert list(witness.actions) == []
    assert len(witness.actions) == 6
    state = witness.state
    np.testing.assert_array_equal(
        state.labelled_pixels_by_region, simulation.class_pixels[LABELLED]
    )
    np.testing.assert_array_equal(state.pool_index, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(state.places.image, simulation.places.image[POOLS.ravel()])
    np.testing.assert_array_equal(state.labelled_places.center, simulation.places.center[LABELLED])
    assert (state.count, state.progress) == (2, 0.25)
    costly = (
        state.labelled_embeddings, state.state_set, state.unlabelled_counts, state.truth,
        state.target_class,
    )  # fmt: skip
    assert costly == (None,) * 5


def test_a_strategy_is_told_each_thing_that_it_needs(simulation):
    needs = Needs(
        frozenset({"embeddings", "class_counts"}),
        state_regions=12,
        has_unlabelled_pool=True,
        has_truth=True,
    )
    witness = _told(simulation, needs)
    assert set(witness.actions) == set(witness.state.state_set) == needs.features
    np.testing.assert_array_equal(witness.actions.embeddings, simulation.embeddings(POOLS.ravel()))
    state = witness.state
    np.testing.assert_array_equal(state.labelled_embeddings, simulation.embeddings(LABELLED))
    assert len(state.state_set) == 12
    others = np.arange(2, len(simulation.class_pixels))
    np.testing.assert_array_equal(state.unlabelled_counts, simulation.class_counts(others))
    np.testing.assert_array_equal(state.truth.class_pixels, simulation.class_pixels[POOLS.ravel()])


def test_the_best_of_each_pool_is_picked(simulation):
    entropy = strategy("entropy")
    values = simulation.describe(POOLS.ravel(), ("entropy",)).entropy.reshape(POOLS.shape)
    picked = pick(simulation, entropy, LABELLED, POOLS, np.random.default_rng(0), 0.5)
    np.testing.assert_array_equal(
        picked, [POOLS[0][values[0].argmax()], POOLS[1][values[1].argmax()]]
    )


def test_a_draw_follows_the_generator_alone(simulation):
    random = strategy("random")
    pools = np.arange(30).reshape(2, 15)
    picks = [
        pick(simulation, random, LABELLED, pools, np.random.default_rng(seed), 0.5)
        for seed in (1, 1, 2, 3)
    ]
    np.testing.assert_array_equal(picks[0], picks[1])
    assert len({tuple(each) for each in picks}) > 1


def test_the_best_of_everything_may_all_come_from_one_pool(simulation):
    witness, rng = Witness(), np.random.default_rng(0)
    picked = pick(simulation, witness, LABELLED, POOLS, rng, 0.25, is_whole=True)
    np.testing.assert_array_equal(picked, [28, 5])
    assert witness.state.pool_index is None
    assert witness.state.count == 2
