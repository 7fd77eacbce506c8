from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core import weights
from ralis_backend.core.acquisition import PoolState, strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec
from ralis_backend.core.policy.agnostic_inputs import REGION_INPUTS, agnostic_inputs
from tests.core.make_features import region_features


def _actions(num_regions: int = 30, num_classes: int = 4, seed: int = 0) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(num_classes), num_regions).astype(np.float32)
    bald, entropy = rng.random((2, num_regions), np.float32)
    embeddings = rng.random((num_regions, 5), np.float32)
    return region_features(
        shares,
        bald=bald,
        entropy=entropy,
        margin=rng.random(num_regions, np.float32),
        class_counts=np.floor(1000 * shares),
        class_bald=shares * bald[:, None],
        class_entropy=shares * entropy[:, None],
        boundary=rng.random(num_regions, np.float32),
        entropy_grid=rng.random((num_regions, 192), np.float32),
        embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
    )


def _state(num_classes: int = 4) -> PoolState:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 900, (6, num_classes + 1))
    return PoolState(pixels, _actions(6).embeddings, 5, rng)


def _with_order(
    state: PoolState, actions: RegionFeatures, order: np.ndarray
) -> tuple[PoolState, RegionFeatures]:
    columns = np.append(order, len(order))
    by_class = ("class_probabilities", "class_counts", "class_entropy", "class_bald")
    return (
        replace(state, labelled_pixels_by_region=state.labelled_pixels_by_region[:, columns]),
        actions.replaced(**{name: actions[name][:, order] for name in by_class}),
    )


@pytest.mark.parametrize("architecture", ["set", "linear"])
def test_the_order_of_classes_makes_no_difference(architecture):
    policy = AgnosticPolicy.untrained(AgnosticSpec(architecture), 3, "any")
    state, actions = _state(), _actions()
    order = np.array([2, 0, 3, 1])
    shuffled = policy.scores(*_with_order(state, actions, order))
    np.testing.assert_allclose(policy.scores(state, actions), shuffled, atol=1e-4)


@pytest.mark.parametrize("architecture", ["set", "linear"])
@pytest.mark.parametrize("num_classes", [2, 6, 60])
def test_one_policy_scores_any_number_of_classes_and_regions(architecture, num_classes):
    policy = AgnosticPolicy.untrained(AgnosticSpec(architecture), 3, "any")
    state, actions = _state(num_classes), _actions(17, num_classes)
    scores = policy.scores(state, actions)
    assert scores.shape == (17,)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert policy.scores(state, actions.take(np.zeros(0, np.int64))).shape == (0,)
    alone = policy.scores(state, actions.take(np.arange(1)))
    assert np.isfinite(alone).all()


def test_without_a_correction_the_order_is_that_of_bald_x_rarity():
    policy = AgnosticPolicy.untrained(AgnosticSpec(), 0, "any")
    with torch.no_grad():
        for parameter in policy.network.score.parameters():
            parameter.zero_()
    state, actions = _state(), _actions()
    ranked = np.argsort(policy.scores(state, actions))
    assert ranked.tolist() == np.argsort(strategy("bald-rarity").scores(state, actions)).tolist()


def test_inputs_are_finite_before_anything_is_labelled_and_without_any_doubt():
    actions = region_features(np.full((3, 2), 0.5, np.float32))
    empty = PoolState(
        np.zeros((0, 3), np.int64), np.zeros((0, 1), np.float32), 2, np.random.default_rng(0)
    )
    inputs = agnostic_inputs(empty, actions)
    assert np.isfinite(inputs.classes).all()
    assert np.isfinite(inputs.regions).all()


def test_a_policy_comes_back_as_it_was_saved(tmp_path):
    policy = AgnosticPolicy.untrained(
        AgnosticSpec(hidden=4, low=(0.0,) * 18, high=(1.0,) * 18), 5, "any"
    )
    path = tmp_path / "any.safetensors"
    policy.save(path)
    again = AgnosticPolicy.load(path)
    state, actions = _state(), _actions()
    np.testing.assert_array_equal(policy.scores(state, actions), again.scores(state, actions))
    assert again.name == "any"
    weights.save(path, policy.network.state_dict(), {"kind": "ralis-policy", "spec": {}})
    with pytest.raises(weights.WeightsError, match="ralis-policy"):
        AgnosticPolicy.load(path)
    weights.save(path, {}, {"kind": "agnostic-policy", "spec": {"architecture": "tree"}})
    with pytest.raises(weights.WeightsError, match="tree"):
        AgnosticPolicy.load(path)


def test_drift_names_the_inputs_that_are_outside_the_training_ranges():
    low, high = np.full(18, -1e9), np.full(18, 1e9)
    policy = AgnosticPolicy.untrained(AgnosticSpec(low=tuple(low), high=tuple(high)), 0, "any")
    assert policy.drift(_state(), _actions()).share_outside == 0
    margin = 7 + REGION_INPUTS.index("margin")
    high[margin] = -1
    drifted = AgnosticPolicy.untrained(AgnosticSpec(low=tuple(low), high=tuple(high)), 0, "any")
    drift = drifted.drift(_state(), _actions())
    assert drift.share_outside == pytest.approx(1 / 18)
    assert drift.worst == ("margin",)


@pytest.mark.parametrize("architecture", ["set", "linear"])
def test_a_pool_in_blocks_is_scored_as_one(architecture, monkeypatch):
    rng = np.random.default_rng(0)
    features = _random_features(rng, 40, 5)
    state = PoolState(
        rng.integers(0, 90, (7, 6)), features.embeddings[:3] + 0.1, 4, np.random.default_rng(0)
    )
    spec = AgnosticSpec(architecture, low=(0.1,) * 18, high=(0.4,) * 18)
    policy = AgnosticPolicy.untrained(spec, 0, "any")
    whole, drift = policy.scores(state, features), policy.drift(state, features)
    blocks = RegionFeatures.blocks
    monkeypatch.setattr(RegionFeatures, "blocks", lambda table: blocks(table, 7))
    np.testing.assert_allclose(policy.scores(state, features), whole, atol=2e-5)
    in_blocks = policy.drift(state, features)
    assert in_blocks.share_outside == pytest.approx(drift.share_outside)
    assert in_blocks.worst == drift.worst
    inputs = agnostic_inputs(state, features)
    learned = policy.network(torch.from_numpy(inputs.classes), torch.from_numpy(inputs.regions))
    if architecture == "linear":
        np.testing.assert_allclose(whole, learned.detach().numpy(), atol=2e-5)


def _random_features(rng, num_regions, num_classes):
    shares = rng.dirichlet(np.ones(num_classes), num_regions).astype(np.float32)
    wide = {
        name: rng.random((num_regions, width), np.float32)
        for name, width in [("class_counts", num_classes), ("class_bald", num_classes),
                            ("class_entropy", num_classes), ("entropy_grid", 192),
                            ("embeddings", 6)]
    }  # fmt: skip
    narrow = {
        name: rng.random(num_regions, np.float32)
        for name in ("entropy", "margin", "bald", "boundary")
    }
    return RegionFeatures(num_regions, {"class_probabilities": shares, **wide, **narrow})
