from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.ideas import Changed
from ralis_backend.core import weights
from ralis_backend.core.acquisition import strategy
from ralis_backend.core.policy.adaptive import KNOBS, AdaptivePolicy, AdaptiveSpec
from ralis_backend.core.policy.adaptive_inputs import PROJECT_INPUTS, project_inputs
from tests.core.policy.test_agnostic import _actions, _state, _with_order


def _turned(spec: AdaptiveSpec | None = None, **knobs: float) -> AdaptivePolicy:
    """A policy whose knobs are set like this in every project."""
    policy = AdaptivePolicy.untrained(spec or AdaptiveSpec(), "any")
    policy.gains[:, 0] = [knobs.get(name, 0.0) for name in KNOBS]
    return policy


def test_a_removed_class_is_no_part_of_the_project():
    actions = _actions(40)
    state = replace(_state(), removed_classes=(1,))
    found = dict(zip(PROJECT_INPUTS, project_inputs(state, actions), strict=True))
    assert found["classes"] == pytest.approx(np.log(actions.class_counts.shape[1] - 1))


@pytest.mark.parametrize("pools", [None, 5])
@pytest.mark.parametrize("background", [None, 1])
def test_with_weights_of_zero_it_is_coverage(pools, background):
    actions = _actions(40)
    state = replace(_state(), background=background)
    if pools:
        state = replace(state, pool_index=np.repeat(np.arange(pools), 40 // pools))
    expected = strategy("coverage").scores(state, actions)
    np.testing.assert_array_equal(_turned().scores(state, actions), expected)


@pytest.mark.parametrize("chooser", [strategy("coverage-diverse"), _turned(apart=1)])
def test_looks_are_copied_as_often_for_many_picks_as_for_few(chooser, monkeypatch):
    actions = _actions(40).select(np.arange(1, 40))
    plain, copied = type(actions).__getitem__, []

    def counting(self, name):
        copied.append(name)
        return plain(self, name)

    monkeypatch.setattr(type(actions), "__getitem__", counting)
    counts = []
    for count in (1, 8):
        copied.clear()
        chooser.scores(replace(_state(), count=count), actions)
        counts.append(copied.count("embeddings"))
    assert 1 <= counts[0] == counts[1]


def test_the_order_of_classes_makes_no_difference():
    policy = _turned(bald=0.3, entropy=0.5, prior=-1, scarcity=0.5, novelty=0.2)
    state, actions = _state(), _actions()
    shuffled = policy.scores(*_with_order(state, actions, np.array([2, 0, 3, 1])))
    np.testing.assert_array_equal(policy.scores(state, actions), shuffled)


@pytest.mark.parametrize("num_classes", [1, 2, 60])
def test_one_policy_scores_any_number_of_classes_and_regions(num_classes):
    policy = _turned(bald=1, entropy=1, margin=-1, typicality=1, novelty=1, boundary=1, scarcity=1)
    state = _state(num_classes)
    for count in (17, 1, 0):
        scores = policy.scores(state, _actions(max(1, count), num_classes).take(np.arange(count)))
        assert scores.shape == (count,)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()


@pytest.mark.parametrize("knob", ["margin", "boundary"])
def test_a_knob_that_is_turned_up_prefers_what_it_is_about(knob):
    state, actions = _state(), _actions(200)
    values = actions[knob]
    means = []
    for setting in (-2.0, 0.0, 2.0):
        picks = np.argsort(-_turned(**{knob: setting}).scores(state, actions))[:10]
        means.append(values[picks].mean())
    assert means[0] < means[1] < means[2]


def test_a_lower_prior_prefers_classes_with_few_labels():
    state, actions = _state(), _actions(200)
    pixels = np.array([[60_000, 60_000, 60_000, 10, 0]])
    state = replace(state, labelled_pixels_by_region=pixels)
    rare = []
    for prior in (-2.0, 0.0, 2.0):
        picks = np.argsort(-_turned(prior=prior).scores(state, actions))[:10]
        rare.append(actions.class_probabilities[picks, 3].mean())
    assert rare[0] > rare[1] > rare[2]


def test_knobs_follow_the_project_and_stay_within_bounds():
    state, actions = _state(), _actions()
    inputs = project_inputs(state, actions)
    spec = AdaptiveSpec(center=tuple(inputs - 1), scale=(2.0,) * len(PROJECT_INPUTS))
    policy = AdaptivePolicy.untrained(spec, "any")
    policy.gains[0, 0], policy.gains[0, 1 + PROJECT_INPUTS.index("labels")] = 0.25, 0.5
    assert policy.knobs(state, actions)["bald"] == pytest.approx(0.25 + 0.5 * 0.5)
    policy.gains[0, 0] = 90
    assert policy.knobs(state, actions)["bald"] == 2


def test_the_inputs_say_what_kind_of_project_it_is():
    state, actions = _state(), _actions()
    pixels = np.array([[500, 500, 0, 0, 77], [0, 1000, 0, 0, 0]])
    state = replace(state, labelled_pixels_by_region=pixels)
    found = dict(zip(PROJECT_INPUTS, project_inputs(state, actions), strict=True))
    assert found["classes"] == pytest.approx(np.log(4))
    shares = np.array([0.25, 0.75])
    assert found["evenness"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(4))
    assert found["labels"] == pytest.approx(np.log(2))
    assert found["doubt"] == pytest.approx(actions.entropy.mean() / np.log(4), rel=1e-5)
    assert found["lacking"] == 0.5
    predicted = actions.class_counts.sum(axis=0) / actions.class_counts.sum()
    total_variation = np.abs(predicted - [0.25, 0.75, 0, 0]).sum() / 2
    assert found["mismatch"] == pytest.approx(total_variation, rel=1e-5)
    assert found["disagreement"] == pytest.approx(actions.bald.mean() / actions.entropy.mean())
    same = actions.replaced(entropy=actions.bald)
    assert project_inputs(state, same)[PROJECT_INPUTS.index("agreement")] == pytest.approx(1)
    flat = actions.replaced(entropy=np.ones(len(actions), np.float32))
    assert project_inputs(state, flat)[PROJECT_INPUTS.index("agreement")] == 0


def test_a_project_unlike_those_of_its_training_has_drifted():
    state, actions = _state(), _actions()
    inputs = project_inputs(state, actions)
    far, near = inputs.copy(), inputs.copy()
    far[[1, 4]] += 5
    spec = AdaptiveSpec(low=tuple(near - 1), high=tuple(near + 1))
    assert _turned(spec).drift(state, actions).share_outside == 0
    drift = _turned(replace(spec, low=tuple(far - 1), high=tuple(far + 1))).drift(state, actions)
    assert drift.share_outside == pytest.approx(2 / 8)
    assert set(drift.worst) == {PROJECT_INPUTS[1], PROJECT_INPUTS[4]}


@pytest.mark.parametrize(("beyond", "is_far"), [(0.9, False), (1.1, True)])
def test_one_input_far_outside_is_told_though_it_is_one_of_eight(beyond, is_far):
    state, actions = _state(), _actions()
    inputs = project_inputs(state, actions)
    low, high = inputs - 1, inputs + 1
    high[0] = inputs[0] - beyond  # ranges are two wide
    low[0] = high[0] - 2
    spec = AdaptiveSpec(low=tuple(low), high=tuple(high))
    drift = _turned(spec).drift(state, actions)
    assert drift.share_outside == pytest.approx(1 / 8)
    assert drift.far == (("classes",) if is_far else ())


def test_it_says_in_words_what_it_looks_for():
    state, actions = _state(), _actions(100)
    pixels = np.array([[60_000, 60_000, 60_000, 10, 0]])
    state = replace(state, labelled_pixels_by_region=pixels)
    told = _turned(boundary=1.0).manner(state, actions)
    assert told.startswith("looks for ")
    for words in ("doubtful pixels (", "classes with few labels (", "borders between classes ("):
        assert words in told
    assert "areas without borders" in _turned(boundary=-1.0).manner(state, actions)
    assert "borders" not in _turned().manner(state, actions)
    assert _turned().manner(state, actions.take(np.arange(1))) is None
    assert strategy("coverage").manner(state, actions) is None


def test_a_policy_comes_back_from_its_file_as_it_was(tmp_path):
    spec = AdaptiveSpec(low=(0.0,) * 8, high=(1.0,) * 8, training={"seed": 3})
    policy = _turned(spec, bald=0.5, margin=-0.25)
    policy.save(tmp_path / "mine.safetensors")
    found = AdaptivePolicy.load(tmp_path / "mine.safetensors")
    assert found.name == "mine"
    assert (found.spec.low, found.spec.training) == ([0.0] * 8, {"seed": 3})
    state, actions = _state(), _actions()
    np.testing.assert_array_equal(found.scores(state, actions), policy.scores(state, actions))
    assert found.drift(state, actions) is not None


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ((9, 9), {"kind": "segmenter"}, "holds a segmenter"),
        ((9, 9), {"knobs": ["bald", "luck"]}, "its knobs are"),
        ((9, 9), {"knobs": ["bald"]}, r"its weights are \(9, 9\), not \(1, 9\)"),
        ((9, 4), {}, r"its weights are \(9, 4\)"),
        ((9, 9), {"spec": {"center": [0.0], "scale": [1.0]}}, "'center' is .*expected 8 numbers"),
        ((9, 9), {"spec": {"center": "12345678"}}, "'center' is 12345678, expected 8 numbers"),
        ((9, 9), {"spec": {"center": [10**400] * 8}}, "'center' is .*expected 8 numbers"),
        ((9, 9), {"spec": {"scale": [1.0] * 7 + [0.0]}}, "'scale' has 0.0, expected 1e-09 or more"),
        ((9, 9), {"spec": {"scale": [1.0] * 7 + [1e300]}}, "'scale' is"),
        ((9, 9), {"spec": {"low": [0.0] * 8, "high": ["1"] * 8}}, "'high' is"),
        ((9, 9), {"spec": {"low": [0.0] * 3, "high": [1.0] * 3}}, "'low' is .*8 numbers or none"),
        ((9, 9), {"spec": {"depth": 3}}, "train it again"),
        ((9, 9), {"spec": {"low": [0.0]}}, "train it again"),
    ],
)
def test_a_file_that_is_no_such_policy_is_refused(tmp_path, tensors, metadata, message):
    import torch

    path = tmp_path / "bad.safetensors"
    known = {"kind": "adaptive-policy", "knobs": list(KNOBS), "spec": {}}
    weights.save(path, {"gains": torch.zeros(tensors)}, {**known, **metadata})
    with pytest.raises(weights.WeightsError, match=message):
        AdaptivePolicy.load(path)


def test_numbers_that_are_none_or_huge_are_refused(tmp_path):
    import torch

    path = tmp_path / "bad.safetensors"
    known = {"kind": "adaptive-policy", "knobs": list(KNOBS), "spec": {}}
    weights.save(path, {"gains": torch.full((9, 9), 1e300, dtype=torch.float64)}, known)
    with pytest.raises(weights.WeightsError, match="numbers up to 1e"):
        AdaptivePolicy.load(path)
    infinite = {**known, "spec": {"center": [0.0] * 8}}
    weights.save(path, {"gains": torch.zeros((9, 9))}, infinite)
    # of the same length: JSON reads it as infinity
    path.write_bytes(path.read_bytes().replace(b"[0.0, 0.0,", b"[1e999, 0,"))
    with pytest.raises(weights.WeightsError, match=r"'center' is \[inf, .*expected 8 numbers"):
        AdaptivePolicy.load(path)


def test_a_file_with_fewer_knobs_leaves_the_others_as_they_are_in_coverage(tmp_path):
    import torch

    rows = np.array([[0.25], [-0.5]]) * np.ones(1 + len(PROJECT_INPUTS))
    metadata = {"kind": "adaptive-policy", "knobs": ["apart", "bald"], "spec": {}}
    path = tmp_path / "few.safetensors"
    weights.save(path, {"gains": torch.from_numpy(rows).float()}, metadata)
    gains = dict(zip(KNOBS, AdaptivePolicy.load(path).gains, strict=True))
    assert gains.pop("apart").tolist() == [0.25] * 9
    assert gains.pop("bald").tolist() == [-0.5] * 9
    assert not np.any(list(gains.values()))


def test_picks_are_kept_apart_and_never_together():
    state, actions = _state(), _actions(200)

    def likeness(setting: float) -> float:
        picks = np.argsort(-_turned(apart=setting).scores(state, actions))[: state.count]
        looks = actions.embeddings[picks]
        return float((looks @ looks.T).mean())

    assert likeness(-2.0) == likeness(0.0) > likeness(2.0)
    assert "picks unlike each other" in (_turned(apart=0.4).manner(state, actions) or "")
    assert "picks" not in (_turned(apart=-0.4).manner(state, actions) or "")


def test_picks_apart_are_those_of_looking_at_every_region_after_each():
    """The lazy search gives what the plain one gives, see `benchmarks/ideas.py`."""
    state, actions = _state(), _actions(200)
    plain = Changed("coverage-apart", apart=0.4).scores(state, actions)
    lazy = _turned(apart=0.4).scores(state, actions)
    count = 2 * state.count
    assert np.argsort(-lazy)[:count].tolist() == np.argsort(-plain)[:count].tolist()
