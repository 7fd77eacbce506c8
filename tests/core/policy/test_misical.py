from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core import weights
from ralis_backend.core.acquisition import Aimed, PoolState
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy import MisicalPolicy, MisicalSpec
from ralis_backend.core.policy.misical_inputs import (
    INPUTS,
    NUM_KEPT,
    REGION_INPUTS,
    Standard,
    class_order,
    region_inputs,
    state_inputs,
)
from ralis_backend.core.policy.registry import find_strategy
from tests.core.make_features import region_features

BY_CLASS = ("class_probabilities", "class_counts", "class_peaks", "class_deep_bald")


def _actions(num_regions: int = 30, num_classes: int = 4, seed: int = 0) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(num_classes), num_regions).astype(np.float32)
    bald, entropy = rng.random((2, num_regions), np.float32)
    return region_features(
        shares,
        class_counts=np.floor(1000 * shares),
        class_peaks=np.sqrt(shares),
        class_deep_bald=shares * bald[:, None],
        deep_bald=bald,
        deep_bald_peak=2 * bald,
        entropy=entropy,
    )


def _state(num_classes: int = 4, target: int = 1) -> PoolState:
    rng = np.random.default_rng(1)
    pixels = rng.integers(-600, 900, (9, num_classes + 1)).clip(0)
    return PoolState(pixels, None, 5, rng, target_class=target)


def _policy(architecture: str = "mlp", **spec) -> MisicalPolicy:
    return MisicalPolicy.untrained(MisicalSpec(architecture, 16, **spec), 3, "misical")


def test_the_target_comes_first_and_then_what_is_seen_with_it_more_than_elsewhere():
    pixels = np.array(
        [
            [5, 9, 0, 0, 0],
            [5, 9, 0, 0, 0],
            [5, 0, 3, 0, 0],
            [5, 0, 3, 0, 0],
            [5, 0, 0, 0, 0],
        ]
    )
    state = replace(_state(), labelled_pixels_by_region=pixels)
    order = {
        target: class_order(replace(state, target_class=target), _actions()).tolist()
        for target in range(4)
    }
    assert order[1] == [1, 0, 3, 2]  # 0 is everywhere, 3 was never seen, 2 keeps away
    assert order[2] == [2, 0, 3, 1]
    assert [order[target][0] for target in range(4)] == [0, 1, 2, 3]


def test_without_labels_and_with_many_classes_the_order_has_the_target_and_seven_others():
    nothing = PoolState(np.zeros((0, 21)), None, 5, np.random.default_rng(0), target_class=13)
    shares = np.arange(1, 21) / 210  # of equals the more likely come first
    order = class_order(nothing, region_features(np.float32([shares])))
    assert order.tolist() == [13, 19, 18, 17, 16, 15, 14, 12]
    assert not state_inputs(nothing, 20).any()


@pytest.mark.parametrize("num_labelled", [0, 9])
def test_classes_without_labels_are_told_apart_by_the_pool_and_not_by_their_place(num_labelled):
    actions, state, shuffle = _actions(30, 11), _state(11), np.random.default_rng(4).permutation(11)
    pixels = state.labelled_pixels_by_region[:num_labelled].copy()
    pixels[:, 4:11] = 0
    shuffled = actions.replaced(**{name: actions[name][:, shuffle] for name in BY_CLASS})
    policy = _policy()
    first = policy.scores(replace(state, labelled_pixels_by_region=pixels), actions)
    target = shuffle.tolist().index(1)
    pixels = pixels[:, [*shuffle, 11]]
    other = replace(state, labelled_pixels_by_region=pixels, target_class=target)
    np.testing.assert_allclose(policy.scores(other, shuffled), first, rtol=1e-5, atol=1e-6)


def test_inputs_of_a_region_are_what_their_names_say():
    actions = region_features(
        np.array([[0.2, 0.8]], np.float32),
        class_counts=np.array([[30.0, 70.0]], np.float32),
        class_peaks=np.array([[0.5, 0.9]], np.float32),
        class_deep_bald=np.array([[0.05, 0.4]], np.float32),
        deep_bald=np.array([0.3], np.float32),
        deep_bald_peak=np.array([0.6], np.float32),
        entropy=np.array([0.7], np.float32),
    )
    inputs = dict(zip(REGION_INPUTS, region_inputs(actions, np.array([1, 0]))[0], strict=True))
    expected = {
        "presence_0": 0.8, "presence_1": 0.2, "peak_0": 0.9, "peak_1": 0.5,
        "predicted_share_0": 0.7, "predicted_share_1": 0.3, "class_bald_0": 0.5,
        "class_bald_1": 0.25, "bald": 0.3, "peak_bald": 0.6, "entropy": 0.7,
    }  # fmt: skip
    for name, value in inputs.items():
        assert value == pytest.approx(expected.get(name, 0), abs=1e-5), name


def test_the_state_tells_what_was_found_so_far():
    pixels = np.array([[10, 30, 60], [0, 100, 0], [50, 50, 0], [0, 0, 100]])  # the last: void
    state = PoolState(pixels, None, 1, np.random.default_rng(0), progress=0.25, target_class=0)
    expected = [np.log(61) / 10, 0.25, 0.5, 0.5, (0.25 + 0.5) / 2]
    np.testing.assert_allclose(state_inputs(state, 2), expected, rtol=1e-6)


def test_candidates_are_standardised_over_themselves():
    actions, order = _actions(), np.array([1, 0, 2, 3])
    values = Standard.of(actions, order).applied(region_inputs(actions, order))
    is_used = values.any(axis=0)
    assert is_used.sum() == 4 * 4 + 3
    np.testing.assert_allclose(values[:, is_used].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(values[:, is_used].std(axis=0), 1, atol=1e-2)


@pytest.mark.parametrize("architecture", ["mlp", "linear"])
def test_the_names_that_classes_go_by_make_no_difference(architecture):
    state, actions, order = _state(), _actions(), np.array([2, 0, 3, 1])
    renamed = replace(
        state,
        labelled_pixels_by_region=state.labelled_pixels_by_region[:, np.append(order, 4)],
        target_class=3,
    )
    others = actions.replaced(**{name: actions[name][:, order] for name in BY_CLASS})
    policy = _policy(architecture)
    np.testing.assert_allclose(
        policy.scores(state, actions), policy.scores(renamed, others), atol=1e-4
    )
    elsewhere = policy.scores(replace(state, target_class=0), actions)
    assert not np.allclose(policy.scores(state, actions), elsewhere, atol=1e-2)


@pytest.mark.parametrize("architecture", ["mlp", "linear"])
@pytest.mark.parametrize("num_classes", [2, NUM_KEPT, 60])
def test_one_policy_looks_for_a_class_of_any_number(architecture, num_classes):
    policy, state = _policy(architecture), _state(num_classes)
    actions = _actions(17, num_classes)
    scores = policy.scores(state, actions)
    assert scores.shape == (17,)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert policy.scores(state, actions.take(np.zeros(0, np.int64))).shape == (0,)
    assert np.isfinite(policy.scores(state, actions.take(np.arange(1)))).all()


def test_a_class_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="class 4 of 4"):
        _policy().scores(_state(target=4), _actions())


@pytest.mark.parametrize("architecture", ["mlp", "linear"])
def test_a_pool_in_blocks_is_mined_as_one(architecture, monkeypatch):
    policy = _policy(architecture, low=(0.1,) * len(INPUTS), high=(0.4,) * len(INPUTS))
    state, actions = _state(), _actions()
    whole, drift = policy.scores(state, actions), policy.drift(state, actions)
    blocks = RegionFeatures.blocks
    monkeypatch.setattr(RegionFeatures, "blocks", lambda table: blocks(table, 7))
    np.testing.assert_allclose(policy.scores(state, actions), whole, atol=2e-4)
    assert policy.drift(state, actions).share_outside == pytest.approx(drift.share_outside)
    assert 0 < drift.share_outside < 1


def test_drift_of_a_search_names_the_inputs_that_are_outside_the_training_ranges():
    low, high = np.full(len(INPUTS), -1e9), np.full(len(INPUTS), 1e9)
    assert _policy().drift(_state(), _actions()).share_outside == 0
    high[INPUTS.index("entropy")] = high[INPUTS.index("hit_rate")] = -1
    drift = _policy(low=tuple(low), high=tuple(high)).drift(_state(), _actions())
    assert drift.share_outside == pytest.approx(2 / len(INPUTS))
    assert drift.worst == ("hit_rate", "entropy")


@pytest.mark.parametrize("architecture", ["mlp", "linear"])
def test_a_miner_comes_back_as_it_was_saved_and_is_found_by_name_and_class(architecture, tmp_path):
    policy = _policy(architecture)
    policy.save(tmp_path / "mine.safetensors")
    found = find_strategy("mine:b", tmp_path, ["a", "b", "c", "d"], (64, 48))
    assert isinstance(found, Aimed)
    assert found.name == "mine:b"
    state, actions = _state(), _actions()
    np.testing.assert_array_equal(policy.scores(state, actions), found.scores(state, actions))
    told = found.reasons(state, actions, ["a", "b", "c", "d"])
    peak = 100 * actions.class_peaks[0, 1]
    assert told[0] == f"looks for b: {peak:.0f} % probable here"


def test_files_of_another_kind_or_shape_are_refused(tmp_path):
    path = tmp_path / "mine.safetensors"
    weights.save(path, {}, {"kind": "agnostic-policy", "spec": {}})
    with pytest.raises(weights.WeightsError, match="agnostic-policy"):
        MisicalPolicy.load(path)
    weights.save(path, {}, {"kind": "misical-policy", "spec": {"architecture": "tree"}})
    with pytest.raises(weights.WeightsError, match="tree"):
        MisicalPolicy.load(path)
    tensors = {name: torch.zeros(3) for name in _policy().network.state_dict()}
    weights.save(path, tensors, {"kind": "misical-policy", "spec": {"hidden": 16}})
    with pytest.raises(weights.WeightsError, match="train it again"):
        MisicalPolicy.load(path)
