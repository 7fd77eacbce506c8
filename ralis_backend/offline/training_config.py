"""Hyper-parameters of a policy's training: the two presets, and files that change them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from ralis_backend.core.simulation.heads import HeadConfig
from ralis_backend.offline.dqn import DqnConfig
from ralis_backend.offline.environment import EnvironmentConfig


@dataclass(frozen=True)
class TrainingConfig:
    """How a policy is trained; saved beside it.

    episodes: how many times the game is played.
    environment, dqn: its rules, and how the network learns.
    fidelity: `fast` trains a small head on frozen features, `full` the whole segmenter.
    head: how the fast simulation's head learns.
    region_size: (height, width) in pixels.
    reward_regions: `all` of the reward set, or a `balanced` half in which classes are as equally
        frequent as possible.
    keep: the network of the `last` episode, or the `best` one in the evaluations.
    evaluate_every: episodes between two greedy evaluations; 0: none.
    evaluation_episodes: games per evaluation, always the same ones.
    checkpoint_every: episodes between two checkpoints.
    does_shuffle_rewards: each step's reward is replaced by an earlier one's: a placebo that must
        not learn.
    """

    episodes: int = 100
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    dqn: DqnConfig = field(default_factory=DqnConfig)
    fidelity: Literal["fast", "full"] = "fast"
    head: HeadConfig = field(default_factory=HeadConfig)
    region_size: tuple[int, int] = (90, 80)
    reward_regions: Literal["all", "balanced"] = "all"
    keep: Literal["last", "best"] = "best"
    evaluate_every: int = 10
    evaluation_episodes: int = 4
    checkpoint_every: int = 5
    does_shuffle_rewards: bool = False


FAITHFUL = TrainingConfig(
    environment=EnvironmentConfig(
        initial_regions=0,
        variant="faithful",
        unlabelled="candidates",
        is_first_reward_whole=True,
        memory="newest",
        updates_per_step=None,
        initial_updates=1500,
    ),
    head=HeadConfig(learning_rate=2e-4),  # one epoch over K regions must not undo what was known
    keep="last",
    evaluate_every=0,
)
"""As the authors' code of record for CamVid; the segmenter is the fast simulation's."""

REPAIRED = TrainingConfig(
    episodes=60,
    environment=EnvironmentConfig(credit="difference", credit_groups=4),
    dqn=DqnConfig(
        optimizer="adam",
        learning_rate=3e-4,
        weight_decay=1e-4,
        learning_rate_decay=1.0,
        discount=0.9,
        num_steps=3,
        choice_statistics="running",
        batch_size=32,
        updates_per_step=2,
        replay_capacity=4800,
        learning_starts=480,
        target_update=20,
        does_update_target_at_start=False,
        epsilon_start=1.0,
        epsilon_decay=540.0,
        epsilon_schedule="linear",
        exploration="pick",
        clip_norm=10.0,
    ),
    evaluate_every=15,
    evaluation_episodes=3,
    checkpoint_every=10,
)
"""The faults listed for the original implementation mended, each a setting of its own."""

PRESETS = {"faithful": FAITHFUL, "repaired": REPAIRED}


def read_config(source: str) -> TrainingConfig:
    """`faithful`, `repaired`, or a JSON file that names one of them as `base` and what differs.

    Raises:
        ValueError: if there is no such file, or a name or value in it is wrong.
    """
    if source in PRESETS:
        return PRESETS[source]
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"'{source}' is no file; give one, or one of {', '.join(PRESETS)}")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds no object; expected {{"base": "repaired", ...}}')
    base = content.pop("base", "repaired")
    if base not in PRESETS:
        raise ValueError(f"{path} has base {base!r}; expected one of {', '.join(PRESETS)}")
    return _overridden(PRESETS[base], content, str(path))


_Config = TypeVar("_Config")


def _overridden(base: _Config, changes: Mapping[str, Any], where: str) -> _Config:
    """`base`, a configuration, with some fields changed; nested ones field by field."""
    known = {each.name: getattr(base, each.name) for each in fields(base)}  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"{where} sets unknown '{name}'; expected one of {', '.join(known)}")
        old = known[name]
        if is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}: '{name}' is {value!r}, expected an object")
            changed[name] = _overridden(old, value, f"{where}, {name}")
        elif isinstance(old, tuple) and isinstance(value, list):
            changed[name] = tuple(value)
        elif isinstance(old, bool | str) != isinstance(value, bool | str) and old is not None:
            raise ValueError(f"{where}: '{name}' is {value!r}, expected a value like {old!r}")
        else:
            changed[name] = value
    return replace(base, **changed)  # type: ignore[type-var]
