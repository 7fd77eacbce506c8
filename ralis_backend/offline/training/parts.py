"""A configuration -> the parts that a training by Q-learning is put together from.

Whoever wants another sampler, loss, target rule or encoder gives it, and takes the rest from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from ralis_backend.core.acquisition import strategy
from ralis_backend.offline.training.buffer import ReplayBuffer
from ralis_backend.offline.training.config import TrainingConfig
from ralis_backend.offline.training.dqn import DoubleDqn
from ralis_backend.offline.training.environment import LabellingEnv
from ralis_backend.offline.training.losses import Loss
from ralis_backend.offline.training.observation import Encoder, RalisInputs
from ralis_backend.offline.training.play import Game
from ralis_backend.offline.training.sampling import Sampler, UniformSampler
from ralis_backend.offline.training.targets import TargetRule
from ralis_backend.simulation import Simulation


@dataclass(frozen=True)
class WarmUp:
    """Who plays the first episodes: `pick` gives (K,) indices into the pools that are offered."""

    episodes: int
    pick: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Parts:
    """What a training by Q-learning is put together from.

    environment: the game that is learned from. evaluation: the one that networks are measured in.
    dqn: the learner. buffer: what it remembers. sampler: what of it is learned from.
    device: where it learns. warm_up: who plays the first episodes; None: the learner.
    """

    environment: Game
    evaluation: Game
    dqn: DoubleDqn
    buffer: ReplayBuffer
    sampler: Sampler
    device: str = "cpu"
    warm_up: WarmUp | None = None


def put_together(
    simulation: Simulation,
    config: TrainingConfig,
    network: nn.Module,
    *,
    device: str = "cpu",
    encoder: Encoder | None = None,
    sampler: Callable[[ReplayBuffer], Sampler] = UniformSampler,
    loss: Loss | None = None,
    target_rule: TargetRule | None = None,
) -> Parts:
    """The parts that a configuration describes, but for those that are given.

    Args:
        simulation: pool and segmenter.
        config: rules and hyper-parameters.
        network: learns; of the encoder's shapes.
        device: where it learns.
        encoder: makes observations; else RALIS's.
        sampler: makes one for a buffer.
        loss: else the configuration's.
        target_rule: else copied as the configuration says.

    Raises:
        ValueError: if the rules do not fit the pool.
    """
    rules, learning = config.environment, config.dqn
    encoder = encoder or RalisInputs(rules.variant, device)
    environment = LabellingEnv(simulation, rules, encoder)
    plain = replace(rules, credit="shared", baseline="none", smoothing=1)
    buffer = ReplayBuffer(
        learning.replay_capacity,
        environment.shapes["state"],
        environment.shapes["actions"],
        num_steps=learning.num_steps,
        discount=learning.discount,
        device=device,
    )
    return Parts(
        environment,
        LabellingEnv(simulation, plain, encoder),
        DoubleDqn(network.to(device), learning, loss=loss, target_rule=target_rule),
        buffer,
        sampler(buffer),
        device,
        _warm_up(environment, config),
    )


def _warm_up(environment: LabellingEnv, config: TrainingConfig) -> WarmUp | None:
    if not config.warm_episodes:
        return None
    formula = strategy(config.warm_strategy)
    return WarmUp(config.warm_episodes, lambda: environment.advised(formula))
