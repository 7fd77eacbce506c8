from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.checkpoints import OtherRun
from ralis_backend.core.policy import MisicalPolicy
from ralis_backend.core.policy.misical_inputs import INPUTS, STATE_INPUTS
from ralis_backend.offline.training.config import MisicalConfig, read_config
from ralis_backend.offline.training.misical import (
    MisicalTrainer,
    fit_linear,
    learn,
    one_look,
    prepared,
    train_misical,
)
from ralis_backend.offline.training.trainer import Options, Progress
from tests.offline.training.make_searches import TOLD_BY, toy_search
from tests.simulation.make_regions import labelled

PRESET = read_config("misical")
TOY = replace(
    PRESET,
    episodes=30,
    num_steps=20,
    pool_size=8,
    hidden=32,
    keep="last",
    evaluate_every=0,
    dqn=replace(
        PRESET.dqn, learning_rate=2e-3, discount=0.5, num_steps=1, batch_size=32, update_every=1,
        replay_capacity=2000, learning_starts=64, epsilon_decay=300.0,
    ),
    soft_update=0.02,
)  # fmt: skip
TINY = replace(
    TOY, episodes=3, num_steps=4, pool_size=4, num_segmenters=3, initial_regions=(20, 30),
    initial_updates=10, max_candidates=60, evaluate_every=1, evaluation_episodes=2,
    keep="best", checkpoint_every=1,
    dqn=replace(TOY.dqn, learning_starts=4, batch_size=4),
)  # fmt: skip
LINEAR = replace(TINY, architecture="linear")


def _toys(seed: int, count: int = 20):
    return [[toy_search(100 * seed + index)] for index in range(count)]


@pytest.mark.e2e
def test_it_solves_a_search_with_a_known_best_picker_and_shuffled_rewards_do_not(tmp_path):
    learned = learn(_toys(0), _toys(1), TOY, tmp_path / "learned", {})
    assert one_look(learned, _toys(2)) > 0.75
    placebo = replace(TOY, does_shuffle_rewards=True)
    shuffled = learn(_toys(0), _toys(1), placebo, tmp_path / "shuffled", {})
    assert one_look(shuffled, _toys(2)) < 0.45


def test_the_linear_ranker_finds_the_input_that_tells_and_dealt_out_shares_do_not():
    searches = [each for head in _toys(0) for each in head]
    spread = searches[0].inputs.std(axis=0)
    told = np.abs(fit_linear(searches, 0.01)) * spread
    assert told.argmax() == TOLD_BY
    assert told[TOLD_BY] > 10 * np.delete(told, TOLD_BY).max()
    placebo = np.abs(fit_linear(searches, 0.01, np.random.default_rng(0))) * spread
    assert placebo.max() < 0.2 * told[TOLD_BY]


def test_ridge_regression_is_what_its_formula_says():
    search = toy_search(0)
    design = search.inputs.astype(np.float64)
    aim = (search.shares - search.shares.mean()) / search.shares.std()
    joined = np.concatenate([design, np.sqrt(0.5 * len(design)) * np.eye(design.shape[1])])
    expected = np.linalg.lstsq(joined, np.concatenate([aim, np.zeros(design.shape[1])]))[0]
    np.testing.assert_allclose(fit_linear([search], 0.5), expected, rtol=1e-5)


@pytest.mark.parametrize("config", [TINY, LINEAR], ids=["mlp", "linear"])
def test_the_files_hold_everything_needed_to_repeat_a_search(config, tmp_path):
    heard: list[Progress] = []
    sources = {"one": labelled(), "other": labelled(num_images=12)}
    policy = train_misical(sources, config, tmp_path / "mine-0.5", seed=3, on_progress=heard.append)
    results = json.loads((tmp_path / "mine-0.5.json").read_text())
    assert results["labelled_regions"] == {"one": 160, "other": 120}
    assert results["seed"] == 3
    assert 0 < results["gathered"] <= 1
    (tmp_path / "again.json").write_text(json.dumps({"base": "misical", **results["config"]}))
    assert read_config(str(tmp_path / "again.json")) == config
    again = MisicalPolicy.load(tmp_path / "mine-0.5.safetensors")
    assert again.spec.low == list(policy.spec.low)
    assert again.spec.training["config"] == results["config"]
    assert len(again.spec.low) == len(INPUTS)
    assert (np.array(again.spec.low) <= np.array(again.spec.high)).all()
    assert again.spec.high[STATE_INPUTS.index("progress")] == 1
    assert heard[0].facts == "head 1 of 8 is prepared"
    if config is TINY:
        assert [each["episode"] for each in results["episodes"]] == [1, 2, 3]
        assert len(results["evaluations"]) == 3
        assert heard[-1].done == 3


def test_the_searches_of_a_dataset_are_the_same_whatever_the_others_are():
    alone = prepared({"one": labelled()}, TINY, 0)
    beside = prepared({"other": labelled(num_images=12), "one": labelled()}, TINY, 0)
    assert [len(part) for part in alone] == [3, 1]
    for mine, all_of_them in zip(alone, beside, strict=True):
        for head, same in zip(mine, all_of_them[len(mine) :], strict=True):
            np.testing.assert_array_equal(head[0].inputs, same[0].inputs)


def test_an_interrupted_search_training_goes_on_to_the_bit(tmp_path):
    def stop(progress: Progress) -> None:
        if progress.done > 1.3:
            raise KeyboardInterrupt

    whole = learn(_toys(0), _toys(1), TINY, tmp_path / "whole", {}, seed=1)
    with pytest.raises(KeyboardInterrupt):
        learn(_toys(0), _toys(1), TINY, tmp_path / "halved", {}, seed=1, on_progress=stop)
    resumed = learn(_toys(0), _toys(1), TINY, tmp_path / "halved", {}, seed=1)
    expected = whole.network.state_dict()
    for name, value in resumed.network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_search_training_does_not_go_on_over_other_masks(tmp_path):
    source = labelled()
    config = replace(TINY, episodes=1)
    train_misical({"one": source}, config, tmp_path / "mine")
    source.class_pixels[[0, 1]] = source.class_pixels[[1, 0]]
    with pytest.raises(OtherRun, match=r"it differs in datasets.*delete it to begin anew"):
        train_misical({"one": source}, config, tmp_path / "mine")


def test_options_change_a_search_training_or_are_refused():
    trainer, config = MisicalTrainer(), MisicalConfig()
    assert trainer.configured(config, Options()) == config
    changed = trainer.configured(config, Options("continuous", 7, "fast", True))
    assert changed == replace(config, reward="continuous", episodes=7, does_shuffle_rewards=True)
    with pytest.raises(ValueError, match="reward categorical or continuous, not miou"):
        trainer.configured(config, Options(reward="miou"))
    with pytest.raises(ValueError, match="fidelity fast"):
        trainer.configured(config, Options(fidelity="full"))
