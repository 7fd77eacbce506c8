from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from unittest.mock import patch

import pytest

from ralis_backend.offline.training.adaptive import AdaptiveTrainer
from ralis_backend.offline.training.any import AnyTrainer
from ralis_backend.offline.training.config import PRESETS, EvolutionConfig, read_config
from ralis_backend.offline.training.misical import MisicalTrainer
from ralis_backend.offline.training.ralis import RalisTrainer
from ralis_backend.offline.training.registry import TRAINERS, find_trainer, register
from ralis_backend.offline.training.trainer import Options


@dataclass(frozen=True)
class OwnConfig:
    rounds: int = 3


@pytest.fixture(autouse=True)
def _unchanged_registries() -> Iterator[None]:
    with patch.dict(TRAINERS), patch.dict(PRESETS):
        yield


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_has_a_trainer(preset):
    trainers = {
        "any": AnyTrainer,
        "linear": AnyTrainer,
        "adaptive": AdaptiveTrainer,
        "adaptive-fixed": AdaptiveTrainer,
        "adaptive-apart": AdaptiveTrainer,
    }
    trainers |= {"misical": MisicalTrainer, "misical-linear": MisicalTrainer}
    expected = trainers.get(preset, RalisTrainer)
    assert isinstance(find_trainer(read_config(preset)), expected)


def test_another_package_adds_a_configuration_its_trainer_and_a_preset(tmp_path):
    trainer = AnyTrainer()
    register(OwnConfig, trainer, {"own": OwnConfig()})
    (tmp_path / "config.json").write_text('{"base": "own", "rounds": 5}')
    config = read_config(str(tmp_path / "config.json"))
    assert config == OwnConfig(5)
    assert find_trainer(config) is trainer
    with pytest.raises(ValueError, match=r"'papers' is no file; .*linear, own"):
        read_config("papers")


def test_what_is_taken_is_not_taken_over():
    with pytest.raises(ValueError, match="EvolutionConfig has a trainer"):
        register(EvolutionConfig, AnyTrainer(), {})
    with pytest.raises(ValueError, match="preset 'any' is taken"):
        register(OwnConfig, AnyTrainer(), {"own": OwnConfig(), "any": OwnConfig()})
    assert OwnConfig not in TRAINERS
    assert "own" not in PRESETS


def test_a_configuration_that_nobody_takes_is_refused():
    with pytest.raises(ValueError, match=r"no trainer takes a OwnConfig; .*TrainingConfig"):
        find_trainer(OwnConfig())


def test_options_change_what_a_trainer_lets_them_change():
    config = read_config("repaired")
    assert RalisTrainer().configured(config, Options()) == config
    changed = RalisTrainer().configured(config, Options("cvar", 7, "full", True))
    assert changed.environment.reward == "cvar"
    assert (changed.episodes, changed.fidelity, changed.does_shuffle_rewards) == (7, "full", True)
    config = read_config("any")
    assert AnyTrainer().configured(config, Options("miou", None, "fast")) == config
    changed = AnyTrainer().configured(config, Options(episodes=7, does_shuffle_rewards=True))
    assert (changed.generations, changed.does_shuffle_rewards) == (7, True)
