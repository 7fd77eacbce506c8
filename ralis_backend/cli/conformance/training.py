"""Tests of what policies are trained with and read by: policies, rewards, presets."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from ralis_backend.core import weights
from ralis_backend.core.policy.registry import PolicyLoader
from ralis_backend.offline.training.registry import find_trainer
from ralis_backend.offline.training.rewards import Score
from ralis_backend.offline.training.trainer import Options

SPLITS = ("d_s", "d_t", "d_v", "d_r", "test")
_WORSE = np.array([[60, 30, 10], [20, 50, 30], [10, 30, 60]])
_BETTER = np.array([[90, 5, 5], [5, 90, 5], [5, 5, 90]])
_ABSENT = np.array([[90, 10, 0], [10, 80, 10], [0, 0, 0]])


def is_a_loader(name: str, loader: object) -> None:
    """See `PolicyLoader`."""
    if not callable(loader):
        raise ValueError(f"it is {loader!r}, expected what loads a policy: (path, name) -> policy")


def refuses_what_is_no_policy_of_its_kind(name: str, loader: PolicyLoader) -> None:
    """By the error that people are told of."""
    with tempfile.TemporaryDirectory() as folder:
        other, damaged = Path(folder) / "other.safetensors", Path(folder) / "damaged.safetensors"
        weights.save(other, {"weight": torch.zeros(2)}, {"kind": "something else"})
        damaged.write_bytes(b"no policy")
        for path in (other, damaged):
            _check_refused(loader, path)


POLICY_TESTS = (is_a_loader, refuses_what_is_no_policy_of_its_kind)


def _check_refused(loader: PolicyLoader, path: Path) -> None:
    what = "a file of another kind" if path.stem == "other" else "a damaged file"
    advice = "read it with ralis_backend.core.weights.load, and look at metadata['kind']"
    try:
        loader(path, "mine")
    except weights.WeightsError:
        return
    except Exception as error:
        raise ValueError(
            f"{what} is refused with {type(error).__name__}: {error}; expected WeightsError: "
            f"{advice}"
        ) from error
    raise ValueError(f"{what} is taken for a policy, expected WeightsError; {advice}")


def gives_a_number(name: str, score: Score) -> None:
    """Also where a class is absent."""
    for matrix in (_WORSE, _BETTER, _ABSENT):
        found = score(matrix)
        if not np.isscalar(found) or not np.isfinite(float(found)):
            raise ValueError(
                f"it gives {found!r} for the confusion matrix {matrix.tolist()}, a row per true "
                "class, expected one finite number; leave classes without a pixel out"
            )


def is_higher_for_a_better_segmenter(name: str, score: Score) -> None:
    """A reward is the rise of the score."""
    worse, better = score(_WORSE), score(_BETTER)
    if not better > worse:
        raise ValueError(
            f"it gives {better} for a segmenter that is mostly right and {worse} for one that is "
            "often wrong; expected the higher score for the better one: turn the sign"
        )


REWARD_TESTS = (gives_a_number, is_higher_for_a_better_segmenter)


def is_a_configuration(name: str, preset: object) -> None:
    """A frozen dataclass's object."""
    if isinstance(preset, type) or not dataclasses.is_dataclass(preset):
        raise ValueError(
            f"it is {preset!r}, expected an object of a frozen dataclass: `--config` files change "
            "its fields"
        )


def has_a_trainer(name: str, preset: object) -> None:
    """Registered by the module that the preset comes from."""
    trainer = find_trainer(preset)
    expected = ("takes_several_datasets", "splits", "configured", "prepare")
    if missing := [each for each in expected if not hasattr(trainer, each)]:
        raise ValueError(f"its trainer has no {', '.join(missing)}; see Trainer")
    if not isinstance(trainer.takes_several_datasets, bool):
        raise ValueError(
            f"takes_several_datasets is {trainer.takes_several_datasets!r}, expected True or False"
        )
    if not trainer.splits or not set(trainer.splits) <= set(SPLITS):
        raise ValueError(f"splits is {trainer.splits!r}, expected some of {', '.join(SPLITS)}")


def is_configured_by_the_command_line(name: str, preset: object) -> None:
    """Without options, and with one."""
    trainer = find_trainer(preset)
    for options in (Options(), Options(episodes=3)):
        found = trainer.configured(preset, options)
        if type(found) is not type(preset):
            raise ValueError(
                f"configured gives a {type(found).__name__}, expected a {type(preset).__name__}"
            )


PRESET_TESTS = (is_a_configuration, has_a_trainer, is_configured_by_the_command_line)
