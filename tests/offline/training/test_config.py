from __future__ import annotations

import json

import pytest

from ralis_backend.offline.training import rewards
from ralis_backend.offline.training.config import FAITHFUL, PRESETS, REPAIRED, read_config
from ralis_backend.offline.training.dqn import DqnConfig


def test_the_faithful_configuration_is_the_code_of_record():
    rules, dqn = FAITHFUL.environment, FAITHFUL.dqn
    assert (rules.budget, rules.regions_per_step, rules.pool_size) == (480, 24, 20)
    assert (rules.memory, rules.credit, rules.variant) == ("newest", "shared", "faithful")
    assert rules.is_first_reward_whole
    assert FAITHFUL.episodes == 100
    assert dqn == DqnConfig(
        optimizer="sgd", learning_rate=1e-3, momentum=0.95, weight_decay=1e-3,
        learning_rate_decay=0.97, discount=0.999, num_steps=1, loss="huber", batch_size=16,
        updates_per_step=1, replay_capacity=600, target_update=5,
        does_update_target_at_start=True, epsilon_start=0.9, epsilon_end=0.05,
        epsilon_decay=10, epsilon_schedule="exponential", exploration="batch",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"episods": 3}', "unknown 'episods'"),
        ('{"base": "best"}', "base 'best'"),
        ('{"dqn": 3}', "'dqn' is 3, expected an object"),
        ('{"dqn": {"gamma": 0.9}}', "dqn sets unknown 'gamma'"),
        ('{"episodes": "many"}', "'episodes' is 'many'"),
        ('{"keep": "first"}', "'keep' is 'first', expected one of last, best"),
        ('{"dqn": {"loss": "mse"}}', "dqn: 'loss' is 'mse', expected one of huber, squared"),
        ('{"dqn": {"loss": ["huber"]}}', "'loss' is \\['huber'\\], expected one of"),
        ('{"environment": {"reward": "f1"}}', "environment: 'reward' is 'f1', expected .* miou"),
        ('{"base": "any", "ranker": "lin"}', "'ranker' is 'lin', expected one of set, linear"),
        ('{"environment": {"regions_per_step": 0}}', "environment: 'regions_per_step' is 0, exp"),
        ('{"environment": {"updates_per_step": -1}}', "'updates_per_step' is -1, expected"),
        ('{"checkpoint_every": 0}', "config.json: 'checkpoint_every' is 0, expected a whole"),
        ('{"dqn": {"update_every": 0}}', "dqn: 'update_every' is 0, expected a whole number"),
        ('{"dqn": {"epsilon_decay": 0}}', "'epsilon_decay' is 0, expected a number, above 0"),
        ('{"region_size": []}', "'region_size' is .*, expected 2 whole numbers, each at least 1"),
        ('{"head": {"dropout": 1}}', "head: 'dropout' is 1, expected .* below 1"),
        ('{"base": "any", "pairs": 0}', "'pairs' is 0, expected a whole number, at least 1"),
        ('{"base": "any", "steps": 0}', "'steps' is 0"),
        ('{"base": "any", "initial_regions": [9, 3]}', "expected the smallest first"),
        ('{"base": "any", "does_shuffle_rewards": "no"}', "is 'no', expected a value like False"),
        ('{"base": "adaptive", "lengths": []}', "'lengths' is .*, expected one or more numbers"),
        ('{"base": "misical", "soft_update": 2}', "'soft_update' is 2, expected .* at most 1"),
        ("[1]", "holds no object"),
        ("{", "no JSON"),
    ],
)
def test_a_wrong_config_file_is_refused_with_what_to_change(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_config(str(path))


def test_a_config_that_is_no_file_names_the_presets():
    with pytest.raises(ValueError, match="faithful, repaired"):
        read_config("papers")


def test_a_reward_that_another_package_adds_can_be_named_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(rewards.SCORES, "accuracy", lambda matrix: 0.0)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"environment": {"reward": "accuracy"}}))
    assert read_config(str(path)).environment.reward == "accuracy"


def test_a_file_changes_what_it_names_of_its_base(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"base": "faithful", "dqn": {"loss": "squared"}, "region_size": [32, 48]}')
    config = read_config(str(path))
    assert config.dqn.loss == "squared"
    assert config.region_size == (32, 48)
    assert config.environment == FAITHFUL.environment
    path.write_text('{"base": "any", "ranker": "linear"}')
    assert read_config(str(path)) == PRESETS["linear"]
    path.write_text("{}")
    assert read_config(str(path)) == REPAIRED
