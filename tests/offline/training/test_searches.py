from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.policy.misical_inputs import REGION_INPUTS, found
from ralis_backend.core.regions import VOID
from ralis_backend.offline.training.config import MisicalConfig
from ralis_backend.offline.training.scenarios import relabelled
from ralis_backend.offline.training.searches import prepare_searches, search_for
from tests.core.make_features import region_features
from tests.simulation.make_regions import labelled

CONFIG = MisicalConfig(
    num_steps=4, pool_size=5, initial_regions=(20, 30), initial_updates=20, max_candidates=120
)


def test_a_head_gives_a_search_for_each_class_that_can_be_looked_for():
    heads = prepare_searches(labelled(), CONFIG, 6, np.random.default_rng(0))
    assert len(heads) == 6
    for search in (each for searches in heads for each in searches):
        assert 9 <= len(search) <= 120
        assert 20 <= len(search.known_pixels) <= 30
        assert 10 <= (search.pixels > 0).sum() <= 0.6 * len(search)
        assert search.known_pixels.any()
        np.testing.assert_allclose(search.inputs.mean(axis=0), 0, atol=1e-3)
        assert search.sample.shape == (40, len(REGION_INPUTS))
    assert {len(searches) for searches in heads} >= {2, 3}  # merged, left out, as they are


def test_the_same_seed_prepares_the_same_searches():
    one, two, other = (
        prepare_searches(labelled(), CONFIG, 2, np.random.default_rng(seed))[1][0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.inputs, two.inputs)
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert one.inputs.shape != other.inputs.shape or not np.allclose(one.inputs, other.inputs)


def test_a_dataset_without_anything_to_look_for_is_refused():
    regions = labelled(num_images=4, per_image=5)
    with pytest.raises(ValueError, match=r"0 of 2 heads.*9 regions besides 20 first labels"):
        prepare_searches(regions, CONFIG, 2, np.random.default_rng(0))


def _search(known: list[list[int]], **changes):
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [1.0, 0.0]], np.float32)
    pixels = np.array([[90, 10, 0], [30, 60, 10], [100, 0, 0]])
    config = replace(CONFIG, **changes)
    rng = np.random.default_rng(0)
    return search_for(1, region_features(shares), np.array(known), pixels, config, rng)


def test_a_search_knows_what_is_where_and_what_was_found_before():
    search = _search([[50, 50, 0], [80, 0, 20]])
    assert search.pixels.tolist() == [10, 60, 0]
    assert search.annotated.tolist() == [100, 90, 100]
    np.testing.assert_allclose(search.shares, [0.1, 2 / 3, 0])
    np.testing.assert_allclose(search.inputs[:, 0], [-0.508, 1.397, -0.889], atol=1e-3)
    expected = found(np.array([50, 0, 60]), np.array([100, 80, 90]), 0.25)
    np.testing.assert_array_equal(search.state(np.array([1]), 0.25), expected)


def test_what_counts_as_much_comes_from_first_labels_where_there_are_enough():
    known = [[100 - share, share, 0] for share in (0, 0, 10, 20, 30, 40)]
    few, enough = (_search(known, least_positives=least) for least in (5, 4))
    assert (few.some, few.much) == (0.01, 0.1)
    assert (enough.some, enough.much) == pytest.approx((0.2, 0.3))


def test_the_background_is_not_looked_for():
    two = relabelled(labelled(), np.array([0, 1, VOID]))  # neither is merged or left out
    two.class_pixels[:, 1] -= 4 * (two.class_pixels[:, 1] > 0)  # so that its regions are known
    for background, pixels in ((0, 60), (1, 64)):
        heads = prepare_searches(
            replace(two, background=background), CONFIG, 2, np.random.default_rng(0)
        )
        assert [[search.pixels.max() for search in each] for each in heads] == 2 * [[pixels]]
