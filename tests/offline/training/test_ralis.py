from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ralis_backend.core import weights
from ralis_backend.core.acquisition import strategy
from ralis_backend.core.checkpoints import OtherRun
from ralis_backend.core.policy import QueryNetwork, RalisPolicy
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.datasets import Dataset, DatasetClass, Sample
from ralis_backend.offline.training import ralis
from ralis_backend.offline.training.config import read_config
from ralis_backend.offline.training.parts import put_together
from ralis_backend.offline.training.q_training import QTraining
from ralis_backend.offline.training.ralis import RalisTrainer, train
from ralis_backend.offline.training.trainer import Equipment
from tests.offline.toy import CONFIG, ToySimulation, picks_useful

NAMES = ("sky", "ground", "thing", "water")


def _dataset() -> Dataset:
    classes = tuple(DatasetClass(name, (0, 0, 0)) for name in NAMES)
    return Dataset("toy", Path("toy"), classes, {}, {"d_t": ()})


@pytest.mark.long
@pytest.mark.e2e
def test_it_solves_a_game_with_a_known_best_action_and_shuffled_rewards_do_not(tmp_path):
    learned = train(_dataset(), ToySimulation(), CONFIG, tmp_path / "learned", seed=0)
    assert picks_useful(learned.network) > 0.9
    placebo = replace(CONFIG, does_shuffle_rewards=True)
    shuffled = [
        train(_dataset(), ToySimulation(), placebo, tmp_path / f"{seed}", seed=seed)
        for seed in range(2)
    ]
    assert np.mean([picks_useful(each.network) for each in shuffled]) < 0.6


@pytest.mark.e2e  # slow
def test_the_results_file_holds_everything_needed_to_repeat_it(tmp_path):
    config = replace(CONFIG, episodes=5)
    train(_dataset(), ToySimulation(), config, tmp_path / "policy-0.5", seed=3)
    results = json.loads((tmp_path / "policy-0.5.json").read_text())
    assert results["seed"] == 3
    assert results["config"]["environment"]["credit"] == "difference"
    assert [each["episode"] for each in results["episodes"]] == [1, 2, 3, 4, 5]
    assert results["evaluations"][0]["episode"] == 5
    (tmp_path / "again.json").write_text(json.dumps({"base": "repaired", **results["config"]}))
    assert read_config(str(tmp_path / "again.json")) == config
    policy = RalisPolicy.load(tmp_path / "policy-0.5.safetensors")
    assert policy.spec.classes == NAMES
    assert policy.spec.num_state_regions == 4
    assert policy.name == "policy-0.5"


def test_the_first_episodes_are_played_by_a_formula(tmp_path, monkeypatch):
    config = replace(CONFIG, episodes=3, warm_episodes=2, warm_strategy="entropy")
    parts = put_together(ToySimulation(), config, QueryNetwork(4, 4))
    played, advised = [], []
    step, environment = parts.environment.step, parts.environment

    def stepped(action: np.ndarray):
        played.append(np.asarray(action).tolist())
        advised.append(environment.advised(strategy("entropy")).tolist())
        return step(action)

    monkeypatch.setattr(environment, "step", stepped)
    QTraining(parts, config, 0, tmp_path / "checkpoint.safetensors", {}).run()
    warm = 2 * environment.num_steps
    assert len(played) == 3 * environment.num_steps
    assert played[:warm] == advised[:warm]
    assert played[warm:] != advised[warm:]


@pytest.mark.e2e  # slow
def test_the_same_seed_gives_the_same_policy_and_another_seed_another(tmp_path):
    config = replace(CONFIG, episodes=3)
    names = [("one", 0), ("two", 0), ("three", 1)]
    one, two, three = (
        train(_dataset(), ToySimulation(), config, tmp_path / name, seed=seed).network.state_dict()
        for name, seed in names
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not torch.equal(one["value.linear.weight"], three["value.linear.weight"])


@pytest.mark.e2e
def test_the_best_network_is_kept_when_asked_to(tmp_path):
    config = replace(CONFIG, episodes=10, keep="best", evaluate_every=1)
    train(_dataset(), ToySimulation(), config, tmp_path / "policy-0.5")
    results = json.loads((tmp_path / "policy-0.5.json").read_text())
    best = max(results["evaluations"], key=lambda it: it["mean_score"])
    assert results["kept_episode"] == best["episode"]
    tensors, _ = weights.load(tmp_path / "policy-0.5.training" / "checkpoint.safetensors")
    policy = RalisPolicy.load(tmp_path / "policy-0.5.safetensors")
    for name, value in policy.network.state_dict().items():
        assert torch.equal(value, tensors[f"best/{name}"])


@pytest.mark.e2e  # slow
def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    config = replace(CONFIG, episodes=5)
    train(_dataset(), ToySimulation(), config, tmp_path / "policy-0.5")
    with pytest.raises(ValueError, match="other settings"):
        train(_dataset(), ToySimulation(), config, tmp_path / "policy-0.5", seed=1)


def test_a_training_does_not_go_on_over_other_masks(tmp_path):
    config = replace(CONFIG, episodes=1, evaluate_every=0, checkpoint_every=1)
    image, mask = tmp_path / "a.jpg", tmp_path / "a.png"
    image.write_bytes(b"pixels")
    mask.write_bytes(b"as they were")
    samples = {"a": Sample("a", image, mask)}
    dataset = replace(_dataset(), samples=samples, splits={"d_t": ("a",)})
    train(dataset, ToySimulation(), config, tmp_path / "policy")
    mask.write_bytes(b"as they should be")
    with pytest.raises(OtherRun, match=r"it differs in files_sha256.*delete it to begin anew"):
        train(dataset, ToySimulation(), config, tmp_path / "policy")


def test_a_training_does_not_go_on_with_another_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(ralis, "open_simulation", lambda *_, **__: ToySimulation())
    config = replace(CONFIG, episodes=1, evaluate_every=0, checkpoint_every=1)
    ground, *others = _dataset().classes
    dataset = replace(_dataset(), classes=(replace(ground, is_background=True), *others))

    def trained(weights: str | None, fidelity: str = "fast"):
        equipment = Equipment(tmp_path, SegmenterSpec(1, "Unet", encoder_weights=weights))
        prepared = replace(config, fidelity=fidelity)
        training = RalisTrainer().prepare(prepared, [dataset], equipment)
        return training(tmp_path / "policy", seed=0, on_progress=lambda _: None)

    trained(None)
    results = json.loads((tmp_path / "policy.json").read_text())
    assert results["segmenter"] == {"encoder": "mobilenet_v2", "encoder_weights": None}
    assert (results["background"], results["scored_classes"]) == (0, "shown")
    with pytest.raises(OtherRun, match=r"it differs in segmenter\.encoder_weights\)"):
        trained("imagenet")
    with pytest.raises(OtherRun, match=r"segmenter\.architecture, segmenter\.num_classes\)"):
        trained(None, "full")


KILLED_CONFIG = replace(CONFIG, episodes=5, checkpoint_every=2)
SCRIPT = """
import sys
from pathlib import Path
from ralis_backend.offline.training.open_simulation import open_simulation
from ralis_backend.offline.training.parts import put_together
from ralis_backend.offline.training.q_training import QTraining
from ralis_backend.offline.training.ralis import train
from tests.offline.training.test_ralis import KILLED_CONFIG, _dataset
from tests.offline.toy import ToySimulation
train(_dataset(), ToySimulation(), KILLED_CONFIG, Path(sys.argv[1]), seed=5)
"""


@pytest.mark.long
@pytest.mark.e2e
def test_a_killed_training_goes_on_to_the_bit(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    checkpoint = tmp_path / "killed.training" / "checkpoint.safetensors"
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")], env=environment
    )
    deadline = time.monotonic() + 60
    while not checkpoint.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert checkpoint.is_file()
    assert not (tmp_path / "killed.safetensors").exists()
    killed, whole = (
        train(_dataset(), ToySimulation(), KILLED_CONFIG, tmp_path / name, seed=5)
        for name in ("killed", "whole")
    )
    for name, value in killed.network.state_dict().items():
        assert torch.equal(value, whole.network.state_dict()[name]), name
    curves = [json.loads((tmp_path / f"{it}.json").read_text()) for it in ("killed", "whole")]
    for curve in curves:
        for episode in curve["episodes"]:
            episode.pop("seconds")
    assert curves[0]["episodes"] == curves[1]["episodes"]
