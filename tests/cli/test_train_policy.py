from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import partial
from shutil import copytree
from unittest.mock import patch

import numpy as np
import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec, RalisPolicy
from ralis_backend.offline.datasets import DatasetClass, write_dataset
from ralis_backend.offline.training.config import PRESETS
from ralis_backend.offline.training.registry import TRAINERS, register
from ralis_backend.offline.training.rewards import SCORES
from ralis_backend.offline.training.trainer import Progress

NAMES = ("ground", "band")
TINY = {
    "base": "repaired",
    "episodes": 2,
    "region_size": [32, 32],
    "evaluate_every": 2,
    "evaluation_episodes": 1,
    "checkpoint_every": 1,
    "environment": {
        "budget": 12, "regions_per_step": 4, "pool_size": 3, "initial_regions": 4,
        "updates_per_step": 3, "initial_updates": 5, "credit_groups": 2,
    },
    "dqn": {"learning_starts": 4, "replay_capacity": 40, "batch_size": 4, "num_steps": 1},
}  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)

    def draw():
        mask = np.zeros((64, 96), np.uint8)
        mask[rng.integers(8, 40) :][:16] = 1
        image = np.where(mask[..., None] == 1, 200, 60) + rng.integers(-40, 40, (64, 96, 3))
        return image.astype(np.uint8), mask

    sizes = {"d_s": 2, "d_t": 6, "d_v": 4, "d_r": 2, "test": 2}
    entries = [
        (split, f"all/{split}-{number}", *draw())
        for split, count in sizes.items()
        for number in range(count)
    ]
    write_dataset(tmp_path / "tiny", [DatasetClass(name, (1, 2, 3)) for name in NAMES], entries)
    return tmp_path / "tiny"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RALIS_ENCODER_WEIGHTS", "none")

    def invoke(*arguments: str):
        return CliRunner().invoke(app, list(arguments))

    return invoke


def test_a_name_that_stands_for_another_strategy_is_refused_before_training(run, tmp_path):
    answer = run("train-policy", "--dataset", str(tmp_path), "--out", "policies/ralis")
    assert "a policy named 'ralis' would never be used" in str(answer.exception or answer.output)
    assert not (tmp_path / "policies").exists()


@pytest.mark.e2e
def test_a_policy_is_trained_and_compared_from_the_command_line(dataset, run, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    arguments = ["train-policy", "--dataset", str(dataset), "--config", "tiny.json"]
    done = run(*arguments, "--reward", "wiou", "--seed", "4", "--out", "policies/mine")
    assert done.exit_code == 0, done.output
    assert "episode 2 of 2, step 2 of 2" in done.output
    assert "policies/mine.safetensors is the policy" in done.output.replace("\n", "")
    policy = RalisPolicy.load(tmp_path / "policies" / "mine.safetensors")
    assert policy.spec.classes == NAMES
    results = json.loads((tmp_path / "policies" / "mine.json").read_text())
    assert results["config"]["environment"]["reward"] == "wiou"
    assert results["seed"] == 4
    assert list((tmp_path / "policies" / "mine.training" / "tensorboard").iterdir())

    arguments = ["benchmark", "--dataset", str(dataset), "--strategies", "random,mine"]
    done = run(*arguments, "--seeds", "1", "--budgets", "48,54",
               "--region-size", "32x32", "--out", "results")  # fmt: skip
    assert isinstance(done.exception, ValueError)  # four images hold 24 regions
    assert "exceeds the pool's 24 regions" in str(done.exception)
    done = run(*arguments, "--seeds", "2", "--budgets", "8,12", "--updates", "10",
               "--jobs", "1", "--region-size", "32x32", "--out", "results")  # fmt: skip
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert set(content["strategies"]) == {"random", "mine"}
    assert [point["regions"] for point in content["strategies"]["mine"]["curve"]] == [8, 12]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--reward", "dice", "unknown reward 'dice'"),
        ("--config", "nowhere.json", "is no file"),
        ("--fidelity", "slow", "--fidelity 'slow' is unknown"),
        ("--dataset", "nowhere", "is no folder"),
        ("--out", "mine.safetensors", "leave out .safetensors"),
    ],
)
def test_wrong_options_are_refused_before_any_work(dataset, run, option, value, message):
    options = {"--dataset": str(dataset), "--out": "mine"} | {option: value}
    done = run("train-policy", *(part for pair in options.items() for part in pair))
    assert isinstance(done.exception, ValueError)
    assert message in str(done.exception)


@pytest.mark.e2e
def test_a_policy_for_any_label_set_is_trained_and_compared(dataset, run, tmp_path):
    config = {
        "base": "any", "region_size": [32, 32], "generations": 2, "pairs": 1, "steps": 1,
        "initial_regions": [3, 4], "regions_per_step": 3, "pool_size": 2, "updates_per_step": 2,
        "initial_updates": 3, "linear_games": 2,
    }  # fmt: skip
    folders = ("--dataset", str(dataset), "--dataset", str(tmp_path / "other"))
    copytree(dataset, tmp_path / "other")
    for base in ("any", "linear"):
        (tmp_path / "config.json").write_text(json.dumps(config | {"base": base}))
        options = ("--out", base, "--config", "config.json", "--shuffle-rewards")
        done = run("train-policy", *folders, *options)
        assert done.exit_code == 0, done.output
        assert "game 2 of 2, spread" in done.output
        assert AgnosticPolicy.load(tmp_path / f"{base}.safetensors").name == base
    done = run(
        "benchmark", "--dataset", str(dataset), "--strategies", "any,linear,default",
        "--budgets", "8", "--initial-regions", "4", "--region-size", "32x32", "--seeds", "1",
        "--updates", "3", "--jobs", "1", "--policies", ".", "--out", "results",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert set(content["strategies"]) == {"any", "linear", "default"}


@pytest.mark.parametrize("options", [("--reward", "wiou"), ("--fidelity", "full")])
def test_a_policy_for_any_label_set_takes_one_reward_and_fidelity(dataset, run, options):
    for preset in ("any", "linear"):
        arguments = ("--dataset", str(dataset), "--config", preset, "--out", "mine")
        done = run("train-policy", *arguments, *options)
        assert "learns with reward miou and fidelity fast" in str(done.exception)


def test_every_dataset_is_checked_before_the_first_takes_time(dataset, run, tmp_path):
    classes = [DatasetClass(name, (1, 2, 3)) for name in NAMES]
    image, mask = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
    write_dataset(tmp_path / "other", classes, [("d_v", "all/0", image, mask)])
    folders = ("--dataset", str(dataset), "--dataset", str(tmp_path / "other"))
    done = run("train-policy", *folders, "--config", "any", "--out", "mine")
    assert "dataset other has no images in d_t" in str(done.exception)
    assert not (tmp_path / ".cache").exists()


@dataclass(frozen=True)
class OwnConfig:
    hidden: int = 8


class OwnTrainer:
    """From another package: its policies have seen nothing."""

    takes_several_datasets = False
    splits = ("d_v",)

    def configured(self, config, options):
        return replace(config, hidden=options.episodes or config.hidden)

    def prepare(self, config, datasets, equipment):
        return partial(self._train, config)

    def _train(self, config, out, *, seed, on_progress):
        on_progress(Progress(1, 1, 0.5, "all of it", 0.0))
        policy = AgnosticPolicy.untrained(AgnosticSpec("set", config.hidden), seed, out.name)
        policy.save(out.with_suffix(".safetensors"))


def test_another_packages_trainer_is_called_by_its_preset(dataset, run, tmp_path):
    with patch.dict(TRAINERS), patch.dict(PRESETS):
        register(OwnConfig, OwnTrainer(), {"own": OwnConfig()})
        arguments = ("--dataset", str(dataset), "--config", "own", "--out", "mine")
        done = run("train-policy", *arguments, "--episodes", "5")
        assert done.exit_code == 0, done.output
        assert "all of it, score 50.0, 0 min left" in done.output
        assert AgnosticPolicy.load(tmp_path / "mine.safetensors").spec.hidden == 5
        done = run("train-policy", *arguments, "--dataset", str(dataset))
        assert "--config own learns from one --dataset, 2 were given" in str(done.exception)


def test_help_names_every_reward_and_preset(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = set(re.findall(r"[\w-]+", run("train-policy", "--help").output))
    assert {*SCORES, *PRESETS} <= words


def test_a_policy_for_one_label_set_learns_from_one_dataset(dataset, run):
    done = run("train-policy", *2 * ("--dataset", str(dataset)), "--out", "mine")
    assert "learns from one --dataset, 2 were given" in str(done.exception)


def test_rules_that_do_not_fit_the_dataset_are_refused_before_training(dataset, run, tmp_path):
    too_much = {**TINY, "environment": {**TINY["environment"], "budget": 400}}
    (tmp_path / "tiny.json").write_text(json.dumps(too_much))
    done = run("train-policy", "--dataset", str(dataset), "--config", "tiny.json", "--out", "mine")
    assert "exceeds the pool's 36 regions" in str(done.exception)
    assert not (tmp_path / "mine.training" / "checkpoint.safetensors").exists()
