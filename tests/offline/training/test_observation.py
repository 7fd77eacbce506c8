from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ralis_backend.core.policy import network_inputs
from ralis_backend.offline.training.environment import LabellingEnv
from ralis_backend.offline.training.observation import RalisInputs
from ralis_backend.offline.training.parts import put_together
from tests.offline.toy import CONFIG, ToySimulation


def test_ralis_observes_what_its_policy_sees():
    simulation = ToySimulation()
    environment = LabellingEnv(simulation, CONFIG.environment)
    environment.reset(seed=4)
    state = environment.pool_state(np.random.default_rng(0))
    offered = simulation.describe(environment.pools.reshape(-1))
    encoder = RalisInputs("repaired")
    encoded, expected = encoder.encode(state, offered), network_inputs(state, offered, "repaired")
    for ours, theirs in zip(encoded, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
    shapes = encoder.shapes(simulation)
    assert (encoded[0].shape, encoded[1].shape[1]) == shapes


class Counts:
    """An encoder of one's own: how many regions are labelled, and the classes of those offered."""

    features = frozenset(("class_counts",))

    def shapes(self, simulation):
        return (1,), simulation.num_classes

    def encode(self, state, offered):
        labelled = len(state.labelled_pixels_by_region)
        return np.array([labelled], np.float32), offered.class_counts


class Sum(nn.Module):
    """A network for it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, state, actions):
        return self.linear(actions)[..., 0] + state


def test_another_encoder_and_network_play_the_same_game():
    simulation = ToySimulation()
    rules = replace(CONFIG.environment, budget=12)
    config = replace(CONFIG, environment=rules, dqn=replace(CONFIG.dqn, learning_starts=1))
    parts = put_together(simulation, config, Sum(), encoder=Counts())
    observation, _ = parts.environment.reset(seed=0)
    assert observation["state"].tolist() == [4]
    assert observation["actions"].shape == (4, 6, 4)
    parts.buffer.begin(observation)
    picked = parts.dqn.act(observation, np.random.default_rng(0))
    observation, _, _, _, info = parts.environment.step(picked)
    assert observation["state"].tolist() == [8]
    parts.buffer.add(picked, info["rewards"], observation, False)
    batch = parts.buffer.take(torch.zeros(3, dtype=torch.int64), torch.arange(3))
    before = parts.dqn.network.linear.weight.clone()
    assert parts.dqn.update(batch).errors.shape == (3,)
    assert not torch.equal(before, parts.dqn.network.linear.weight)
