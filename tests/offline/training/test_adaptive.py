from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.core.policy.adaptive import KNOBS, AdaptivePolicy, AdaptiveSpec
from ralis_backend.core.policy.adaptive_inputs import PROJECT_INPUTS
from ralis_backend.offline.training import adaptive
from ralis_backend.offline.training.adaptive import AdaptiveTrainer, PlayedGame, fit, longest, train
from ralis_backend.offline.training.config import AdaptiveConfig
from ralis_backend.offline.training.trainer import Options

CONFIG = AdaptiveConfig(
    games=2, pairs=2, search_games=2, lengths=(1.0, 2.0), initial_regions=(3, 5), steps=(2,),
    regions_per_step=(3,), pool_sizes=(3,), hidden=(8,), updates_per_step=4, initial_updates=6,
    max_held_out=6,
)  # fmt: skip
SPEC = AdaptiveSpec()


def _games(slopes: np.ndarray, count: int, seed: int, noise: float = 0.1) -> list[PlayedGame]:
    """Games in which (9, 1 + 8) slopes tell what a pair differs by."""
    rng = np.random.default_rng(seed)
    games = []
    for _ in range(count):
        inputs, turned = rng.normal(size=(3, 8)), rng.normal(size=(5, len(KNOBS)))
        slope = slopes @ np.append(1.0, inputs.mean(axis=0))
        differences = 2.0 * (turned @ slope) + noise * rng.normal(size=5)
        games.append(PlayedGame(inputs, turned, differences, 2.0))
    return games


def test_slopes_are_found_with_what_they_depend_on():
    truth = np.zeros((len(KNOBS), 1 + len(PROJECT_INPUTS)))
    truth[1, 0], truth[4, 0], truth[2, 3] = 0.5, -0.4, 0.3
    games = {name: _games(truth, 80, seed) for seed, name in enumerate("abc")}
    found, foretold = fit(games, SPEC, replace(CONFIG, ridge=(0.001, 10.0)), 0)
    np.testing.assert_allclose(found, truth, atol=0.1)
    assert foretold[0]["cosine"] > foretold[1]["cosine"] > 0  # held back too much


def test_what_depends_on_the_project_is_left_away_where_it_misleads():
    games = {}
    for seed, sign in enumerate((1, -1, 1, -1)):  # another dependence in each dataset
        truth = np.zeros((len(KNOBS), 1 + len(PROJECT_INPUTS)))
        truth[1, 0], truth[2, 3] = 0.3, 0.6 * sign
        games[str(seed)] = _games(truth, 60, seed)
    found, _ = fit(games, SPEC, replace(CONFIG, ridge=(0.001, 1e6)), 0)
    assert found[1, 0] > 0.1
    assert np.abs(found[:, 1:]).max() < 1e-3


def test_a_fixed_mixture_depends_on_nothing():
    truth = np.zeros((len(KNOBS), 1 + len(PROJECT_INPUTS)))
    truth[1, 0], truth[2, 3] = 0.3, 0.6
    found, _ = fit({"a": _games(truth, 80, 0)}, SPEC, replace(CONFIG, adapts=False), 0)
    assert found[1, 0] == pytest.approx(0.3, abs=0.15)
    assert (found[:, 1:] == 0).all()


def test_only_what_may_be_turned_is_and_depends_on_what_it_may():
    truth = np.zeros((len(KNOBS), 1 + len(PROJECT_INPUTS)))
    truth[1, 0], truth[1, 3], truth[8, 0], truth[8, 3], truth[8, 5] = 0.3, 0.4, 0.5, 0.3, 0.4
    config = replace(CONFIG, knobs=("apart",), inputs=("labels",), ridge=(0.001,))
    found, _ = fit({name: _games(truth, 80, ord(name)) for name in "ab"}, SPEC, config, 0)
    assert found[8, 0] == pytest.approx(0.5, abs=0.1)
    assert found[8, 3] == pytest.approx(0.3, abs=0.15)
    found[8, [0, 3]] = 0
    assert (found == 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"knobs": ("luck",)}, "luck is none of bald, "),
        ({"inputs": ("weather", "labels")}, "weather is none of classes, "),
        ({"knobs": ()}, "no knob may be turned"),
    ],
)
def test_knobs_and_inputs_that_there_are_none_of_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **wrong)


def test_shuffled_rewards_teach_nothing():
    truth = np.zeros((len(KNOBS), 1 + len(PROJECT_INPUTS)))
    truth[1, 0] = 0.5
    config = replace(CONFIG, adapts=False, does_shuffle_rewards=True)
    found, _ = fit({"a": _games(truth, 200, 0)}, SPEC, config, 0)
    assert np.abs(found).max() < 0.12


def test_every_dataset_counts_alike():
    one, other = np.zeros((2, len(KNOBS), 1 + len(PROJECT_INPUTS)))
    one[0, 0], other[1, 0] = 0.5, 0.5
    games = {"many": _games(one, 300, 0), "few": _games(other, 100, 1)}
    found, _ = fit(games, SPEC, replace(CONFIG, adapts=False), 0)
    assert found[0, 0] == pytest.approx(found[1, 0], abs=0.05)


def test_the_gradient_is_followed_as_far_as_it_leads():
    leads = {
        "a": np.array([[0.2, 0.5], [0.4, 0.7]]),
        "b": np.array([[0.3, -0.9], [0.3, -0.7], [0.3, -0.8]]),
    }
    length, table = longest(leads, CONFIG)
    assert length == 1.0
    assert table[1]["lead"] == pytest.approx((0.6 - 0.8) / 2)
    assert table[1]["by_dataset"] == {"a": 0.6, "b": -0.8}
    assert longest({"a": np.full((2, 2), -0.1)}, CONFIG)[0] == 0.0


def test_a_policy_is_trained_saved_and_trained_again_to_the_bit(source, tmp_path, monkeypatch):
    def told(progress: object) -> None:
        raise KeyboardInterrupt

    whole = train({"tiny": source}, CONFIG, tmp_path / "whole", cache=tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        train(
            {"tiny": source},
            CONFIG,
            tmp_path / "half-0.5",
            cache=tmp_path / "two",
            on_progress=told,
        )
    half = train({"tiny": source}, CONFIG, tmp_path / "half-0.5", cache=tmp_path / "two")
    np.testing.assert_array_equal(whole.gains, half.gains)
    results = json.loads((tmp_path / "half-0.5.json").read_text())
    assert results["labelled_regions"] == {"tiny": 30}
    assert [entry["length"] for entry in results["lengths"]] == [1.0, 2.0]
    saved = AdaptivePolicy.load(tmp_path / "half-0.5.safetensors")
    assert saved.spec.training["config"] == results["config"]
    assert len(saved.spec.low) == len(PROJECT_INPUTS)
    # games of a dataset are played once, whatever else is made of them
    monkeypatch.setattr(adaptive, "_play", lambda *_: pytest.fail("played again"))
    config = replace(CONFIG, games=1, adapts=False)
    train({"tiny": source}, config, tmp_path / "other", cache=tmp_path / "two")
    # but not those that were scored in another way
    monkeypatch.setattr(adaptive, "SCORED_CLASSES", "shown or predicted")
    with pytest.raises(pytest.fail.Exception, match="played again"):
        train({"tiny": source}, config, tmp_path / "other", cache=tmp_path / "two")


def test_options_of_the_command_line_are_taken_or_refused():
    trainer = AdaptiveTrainer()
    changed = trainer.configured(CONFIG, Options(episodes=7, does_shuffle_rewards=True))
    assert (changed.games, changed.does_shuffle_rewards) == (7, True)
    with pytest.raises(ValueError, match="reward miou and fidelity fast"):
        trainer.configured(CONFIG, Options(reward="wiou"))
