from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.acquisition import STRATEGIES, Aimed, PoolState
from tests.core.make_features import region_features

SEEN = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], np.float32)
PEAKS = np.array([[0.9, 0.3, 0.95], [0.4, 0.9, 0.2], [0.5, 0.5, 0.6]], np.float32)
LOOKS = np.eye(3, dtype=np.float32)


def _state(**known) -> PoolState:
    nothing = np.zeros((0, 4), np.int64)
    state = PoolState(nothing, np.zeros((0, 3), np.float32), 2, np.random.default_rng(0))
    return replace(state, **known)


def _regions():
    return region_features(SEEN, class_peaks=PEAKS, class_bald=SEEN[::-1], embeddings=LOOKS)


@pytest.mark.parametrize(
    ("name", "best"), [("presence", 2), ("presence-max", 0), ("presence-bald", 0)]
)
def test_each_looks_at_the_class_that_it_is_told(name, best):
    aimed = Aimed(STRATEGIES[name], 2, "Bicyclist")
    assert aimed.name == f"{name}:Bicyclist"
    scores = aimed.scores(_state(), _regions())
    assert scores.argmax() == best
    assert scores.dtype == np.float32
    assert aimed.reasons(_state(), _regions(), ("Road", "Car", "Bicyclist")) == [
        "looks for Bicyclist: 95 % probable here",
        "looks for Bicyclist: 20 % probable here",
        "looks for Bicyclist: 60 % probable here",
    ]


def test_similar_is_what_looks_like_labelled_regions_with_much_of_the_class():
    pixels = np.array([[0, 9, 1, 0], [0, 0, 10, 90], [0, 0, 0, 100]])
    known = LOOKS[[0, 1, 2]]  # the last one is void: it says nothing
    aimed = Aimed(STRATEGIES["similarity"], 2, "Bicyclist")
    scores = aimed.scores(
        _state(labelled_pixels_by_region=pixels, labelled_embeddings=known), _regions()
    )
    weights = np.exp(np.array([[20, 0], [0, 20], [0, 0]]) - 20.0)
    np.testing.assert_allclose(scores, weights @ [0.1, 1] / weights.sum(axis=1), rtol=1e-4)


def test_pixels_of_the_embedded_regions_count_where_they_are_others_than_the_labelled_ones():
    state = _state(
        labelled_pixels_by_region=np.array([[5, 5, 5, 0]]),
        labelled_embeddings=LOOKS[:2],
        embedded_pixels=np.array([[0, 0, 10, 0], [10, 0, 0, 0]]),
    )
    scores = Aimed(STRATEGIES["similarity"], 2, "Bicyclist").scores(state, _regions())
    assert scores.argmax() == 0


def test_without_a_label_of_the_class_its_examples_are_what_is_looked_for():
    aimed = Aimed(STRATEGIES["similarity"], 2, "Bicyclist")
    labelled = {
        "labelled_pixels_by_region": np.array([[10, 0, 0, 0]]),
        "labelled_embeddings": LOOKS[:1],
    }
    scores = aimed.scores(_state(**labelled, examples=LOOKS[1:2]), _regions())
    np.testing.assert_allclose(scores, [0, 1, 0], atol=1e-6)


def test_without_labels_and_examples_of_the_class_it_is_sought_where_it_is_probable():
    similarity, presence = (
        Aimed(STRATEGIES[name], 2, "Bicyclist") for name in ("similarity", "presence")
    )
    state = _state(
        labelled_pixels_by_region=np.array([[10, 0, 0, 0]]), labelled_embeddings=LOOKS[:1]
    )
    expected = presence.scores(state, _regions())
    np.testing.assert_array_equal(similarity.scores(state, _regions()), expected)
    np.testing.assert_array_equal(similarity.alone(state, _regions()), expected)


def test_likeness_that_cannot_be_told_is_not_compared_with_that_of_the_pool():
    aimed = Aimed(STRATEGIES["similarity"], 2, "Bicyclist")
    state = _state(
        labelled_pixels_by_region=np.array([[0, 0, 10, 0]]), labelled_embeddings=LOOKS[:0]
    )
    assert aimed.alone(state, _regions()) is None
    np.testing.assert_array_equal(aimed.scores(state, _regions()), SEEN[:, 2])


def test_a_miner_that_was_not_told_a_class_says_how_to():
    for name in ("presence", "presence-max", "presence-bald", "similarity"):
        with pytest.raises(ValueError, match=r"was told class None of 3; name it as `strategy:"):
            STRATEGIES[name].scores(_state(), _regions())
        with pytest.raises(ValueError, match=r"was told class 3 of 3"):
            Aimed(STRATEGIES[name], 3, "Bus").scores(_state(), _regions())
