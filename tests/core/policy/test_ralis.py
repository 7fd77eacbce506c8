from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core import weights
from ralis_backend.core.acquisition import PoolState
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy import (
    PolicyDoesNotFit,
    PolicySpec,
    QueryNetwork,
    RalisPolicy,
    network_inputs,
    state_images,
)
from ralis_backend.online.ranking import scores_from_pools
from tests.core.make_features import region_features

CLASSES = ("road", "pole", "sky")
SPEC = PolicySpec(CLASSES, (32, 32), num_state_regions=6, regions_per_step=3, pool_size=4)
VARIANTS = ("faithful", "repaired")


def _policy(spec: PolicySpec = SPEC, seed: int = 0) -> RalisPolicy:
    torch.manual_seed(seed)
    network = QueryNetwork(len(spec.classes), spec.num_state_regions)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return RalisPolicy(spec, network)


def _features(num_regions: int, seed: int = 0) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([1, 1, 1], num_regions).astype(np.float32)
    return region_features(
        shares,
        entropy=rng.random(num_regions, np.float32),
        margin=rng.random(num_regions, np.float32),
        embeddings=rng.random((num_regions, 4), np.float32),
        class_counts=np.floor(1024 * shares),
        entropy_grid=rng.random((num_regions, 192), np.float32),
    )


def _state(num_state_regions: int = 6, count: int = 3) -> PoolState:
    rng = np.random.default_rng(1)
    return PoolState(
        rng.integers(0, 300, (5, 4)),
        np.zeros((5, 4), np.float32),
        count,
        np.random.default_rng(2),
        _features(num_state_regions, 9),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_the_networks_q_values(variant):
    policy = _policy(replace(SPEC, variant=variant))
    scores = policy.scores(_state(), _features(10))
    state, actions = network_inputs(_state(), _features(10), variant)
    with torch.inference_mode():
        expected = policy.network(state[None], actions[None])[0]
    np.testing.assert_array_equal(scores, expected.numpy())
    assert scores.dtype == np.float32
    assert policy.scores(_state(), _features(0)).shape == (0,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_policy_gives_the_same_scores(variant, tmp_path):
    policy = _policy(replace(SPEC, variant=variant, training={"seed": 3}))
    policy.save(tmp_path / "mine.safetensors")
    loaded = RalisPolicy.load(tmp_path / "mine.safetensors")
    assert loaded.spec == policy.spec
    assert loaded.name == "mine"
    np.testing.assert_array_equal(
        loaded.scores(_state(), _features(10)), policy.scores(_state(), _features(10))
    )


def test_a_project_may_have_the_classes_in_another_order():
    order = np.array([2, 0, 1])  # the project's class i is the policy's class order[i]
    policy = _policy()
    fitted = policy.fitted([CLASSES[index] for index in order], (32, 32))

    def shuffled(features: RegionFeatures) -> RegionFeatures:
        return features.replaced(
            class_probabilities=features.class_probabilities[:, order],
            class_counts=features.class_counts[:, order],
        )

    state = _state()
    assert state.state_set is not None
    project = replace(
        state,
        labelled_pixels_by_region=state.labelled_pixels_by_region[:, [*order, 3]],
        state_set=shuffled(state.state_set),
        unlabelled_counts=_features(8, 4).class_counts[:, order],
    )
    state = replace(state, unlabelled_counts=_features(8, 4).class_counts)
    np.testing.assert_allclose(
        fitted.scores(project, shuffled(_features(10))),
        policy.scores(state, _features(10)),
        rtol=1e-5,
    )


def test_names_of_classes_are_compared_without_case_and_spaces():
    _policy().fitted([" Road", "POLE", "sky"], (32, 32))


@pytest.mark.parametrize(
    ("classes", "size", "message"),
    [
        (["road", "pole"], (32, 32), "3 classes road, pole, sky; the project has 2: road, pole"),
        (["road", "pole", "tree"], (32, 32), "Train one for these classes"),
        ([], (32, 32), "has 0: none"),
        (CLASSES, (64, 32), "32x32 pixels.*RALIS_REGION_SIZE=32x32"),
    ],
)
def test_a_project_that_does_not_fit_is_refused_with_what_to_do(classes, size, message):
    with pytest.raises(PolicyDoesNotFit, match=message):
        _policy().fitted(classes, size)


def test_a_state_set_that_is_too_small_is_refused_and_a_larger_one_cut():
    policy = _policy()
    with pytest.raises(PolicyDoesNotFit, match="6 regions; the project has 5"):
        policy.scores(_state(5), _features(4))
    with pytest.raises(PolicyDoesNotFit, match="has 0"):
        policy.scores(replace(_state(), state_set=None), _features(4))
    larger = _state(9)
    assert larger.state_set is not None
    cut = replace(larger, state_set=larger.state_set.take(np.arange(6)))
    np.testing.assert_array_equal(
        policy.scores(larger, _features(4)), policy.scores(cut, _features(4))
    )


def test_pools_as_in_training_put_the_best_of_each_first():
    policy = _policy()
    actions = _features(30)
    scores = scores_from_pools(policy, _state(), actions)
    drawn = np.random.default_rng(2).choice(30, 12, replace=False)
    state = replace(_state(), unlabelled_counts=actions.class_counts[drawn])
    plain = policy.scores(state, actions)
    expected = {int(pool[plain[pool].argmax()]) for pool in drawn.reshape(3, 4)}
    assert set(np.argsort(-scores)[:3].tolist()) == expected
    others = np.array(sorted(set(range(30)) - expected))
    np.testing.assert_array_equal(scores[others], plain[others])


@pytest.mark.parametrize("num_regions", [1, 2, 3, 7, 11])
def test_pools_shrink_with_what_is_left(num_regions):
    scores = scores_from_pools(_policy(), _state(), _features(num_regions))
    assert scores.shape == (num_regions,)
    assert np.isfinite(scores).all()


def test_reasons_name_the_policy_and_the_class():
    actions = _features(3)
    reasons = _policy().reasons(_state(), actions, CLASSES)
    for reason, index in zip(reasons, actions.class_probabilities.argmax(axis=1), strict=True):
        assert reason == f"chosen by the trained policy ralis, mostly {CLASSES[index]}"


def test_files_that_are_no_policy_are_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    policy = _policy()
    policy.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(weights.WeightsError, match="truncated"):
        RalisPolicy.load(path)
    path.write_text("hello")
    with pytest.raises(weights.WeightsError, match="no safetensors"):
        RalisPolicy.load(path)
    weights.save(path, {"a": torch.zeros(1)}, {"kind": "segmenter"})
    with pytest.raises(weights.WeightsError, match="not a query policy"):
        RalisPolicy.load(path)
    path.write_bytes(whole.replace(b'"format_version":"1"', b'"format_version":"7"'))
    with pytest.raises(weights.WeightsError, match="format version '7'"):
        RalisPolicy.load(path)
    with pytest.raises(FileNotFoundError):
        RalisPolicy.load(tmp_path / "none.safetensors")


def test_weights_that_are_not_finite_or_do_not_fit_the_spec_are_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    broken = _policy()
    with torch.no_grad():
        broken.network.value.linear.weight[0, 0] = torch.nan
    with pytest.raises(weights.WeightsError, match="NaN"):
        broken.save(path)
    mismatched = RalisPolicy(replace(SPEC, num_state_regions=7), _policy().network)
    mismatched.save(path)
    with pytest.raises(weights.WeightsError, match="does not fit the network"):
        RalisPolicy.load(path)
    RalisPolicy(replace(SPEC, variant="better"), _policy().network).save(path)  # type: ignore[arg-type]
    with pytest.raises(weights.WeightsError, match="unknown feature variant 'better'"):
        RalisPolicy.load(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": ("Road", 7)}, "classes are .*, expected a list of names"),
        ({"classes": "abc"}, "classes are abc, expected a list of names"),
        ({"region_size": (0, 8)}, "region_size is .*, expected whole numbers of at least 1"),
        ({"region_size": 8}, "train it again"),
        ({"region_size": (8, 8, 8)}, "train it again"),
        ({"pool_size": "many"}, "pool_size is .*, expected whole numbers"),
        ({"regions_per_step": 2.5}, "regions_per_step is .*, expected whole numbers"),
    ],
)
def test_a_file_whose_spec_says_what_cannot_be_is_refused(tmp_path, wrong, message):
    path = tmp_path / "policy.safetensors"
    RalisPolicy(replace(SPEC, **wrong), _policy().network).save(path)
    with pytest.raises(weights.WeightsError, match=message):
        RalisPolicy.load(path)


def test_state_images_together_look_like_the_pool():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 8))
    embeddings = centers[rng.integers(4, size=100)] + 0.05 * rng.normal(size=(100, 8))
    chosen = state_images(embeddings, 8)
    assert len(set(chosen)) == 8
    mean = embeddings.mean(axis=0)
    own = np.linalg.norm(embeddings[chosen].mean(axis=0) - mean)
    at_random = [
        np.linalg.norm(embeddings[rng.choice(100, 8, replace=False)].mean(axis=0) - mean)
        for _ in range(50)
    ]
    assert own < np.quantile(at_random, 0.1)
    assert state_images(embeddings, 8) == chosen
    assert sorted(state_images(embeddings[:3], 8)) == [0, 1, 2]
