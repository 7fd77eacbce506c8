"""Configurations -> trainers: those of the backend, and those that other packages register."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ralis_backend.offline.training.adaptive import AdaptiveTrainer
from ralis_backend.offline.training.any import AnyTrainer
from ralis_backend.offline.training.config import (
    PRESETS,
    AdaptiveConfig,
    EvolutionConfig,
    MisicalConfig,
    TrainingConfig,
)
from ralis_backend.offline.training.misical import MisicalTrainer
from ralis_backend.offline.training.ralis import RalisTrainer
from ralis_backend.offline.training.trainer import Trainer

Config = TypeVar("Config")

TRAINERS: dict[type[Any], Trainer[Any]] = {
    TrainingConfig: RalisTrainer(),
    EvolutionConfig: AnyTrainer(),
    AdaptiveConfig: AdaptiveTrainer(),
    MisicalConfig: MisicalTrainer(),
}
"""Types of configurations -> who trains with them."""


def register(
    config: type[Config], trainer: Trainer[Config], presets: Mapping[str, Config] | None = None
) -> None:
    """Add a trainer: `ralis train-policy --config PRESET` then uses it.

    Args:
        config: a frozen dataclass of plain values and of such dataclasses.
        trainer: takes configurations of exactly this type.
        presets: names for `--config`, and as `base` of JSON files; a package that names them as
            entry points of `ralis_backend.presets` gives none here.

    Raises:
        ValueError: if the type or a name is taken.
    """
    if config in TRAINERS:
        raise ValueError(f"{config.__name__} has a trainer; give a configuration type of your own")
    presets = presets or {}
    taken = sorted(name for name in presets if name in PRESETS)
    if taken:
        raise ValueError(f"preset '{taken[0]}' is taken; name yours otherwise")
    TRAINERS[config] = trainer
    PRESETS.update(presets)


def find_trainer(config: object) -> Trainer[Any]:
    """The trainer that takes such a configuration.

    Raises:
        ValueError: if there is none.
    """
    if type(config) not in TRAINERS:
        known = ", ".join(each.__name__ for each in TRAINERS)
        raise ValueError(
            f"no trainer takes a {type(config).__name__}; expected one of {known}, or register one"
        )
    return TRAINERS[type(config)]
