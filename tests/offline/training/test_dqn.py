from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.policy import QueryNetwork
from ralis_backend.offline.training.buffer import Transitions
from ralis_backend.offline.training.dqn import DoubleDqn, DqnConfig
from ralis_backend.offline.training.targets import TargetRule

CONFIG = DqnConfig()


def _network(seed: int = 0) -> QueryNetwork:
    torch.manual_seed(seed)
    return QueryNetwork(2, 4)


def _batch(size: int = 16, seed: int = 0) -> Transitions:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    discounts = torch.full((size,), 0.9)
    discounts[: size // 4] = 0
    return Transitions(
        numbers(size, 4, 195), numbers(size, 259), numbers(size), numbers(size, 4, 195),
        numbers(size, 5, 259), discounts,
    )  # fmt: skip


def _observation() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "state": rng.random((4, 195), np.float32),
        "actions": rng.random((6, 5, 259), np.float32),
    }


def test_the_target_is_the_target_networks_value_of_the_query_networks_choice():
    network = _network()
    config = replace(CONFIG, loss="squared", learning_rate=0.0, choice_statistics="running")
    dqn = DoubleDqn(network, config)
    dqn.target.load_state_dict(_network(1).state_dict())
    batch = _batch()
    network.eval()
    best = network(batch.next_states, batch.next_actions).argmax(dim=1)
    ahead = dqn.target(batch.next_states, batch.next_actions)[torch.arange(16), best]
    targets = batch.returns + batch.discounts * ahead
    assert torch.equal(targets[:4], batch.returns[:4])  # the episode ended there
    network.train()
    with torch.no_grad():
        q_values = network(batch.states, batch.actions[:, None])[:, 0]
    errors = q_values - targets.detach()
    update = dqn.update(batch)
    assert update.loss == pytest.approx(float(errors.pow(2).mean()), rel=1e-4)
    torch.testing.assert_close(update.errors, errors, rtol=1e-3, atol=1e-5)


def test_transitions_of_no_weight_teach_nothing():
    weights = torch.ones(16)
    weights[8:] = 0
    half = _batch()
    changed = replace(half, returns=half.returns + 5 * (weights == 0))
    networks = []
    for batch in (half, changed):
        dqn = DoubleDqn(_network(), replace(CONFIG, loss="squared"))
        dqn.update(batch, weights)
        networks.append(dqn.network.state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    assert not torch.equal(networks[0]["value.linear.weight"], _network().value.linear.weight)


def test_the_target_rule_is_told_of_every_moment():
    told: list[object] = []

    class Told(TargetRule):
        def begin_episode(self, target, network):
            told.append("begin")

        def after_update(self, target, network):
            told.append("update")

        def end_step(self, target, network, num_steps_done):
            told.append(num_steps_done)

    dqn = DoubleDqn(_network(), CONFIG, target_rule=Told())
    dqn.begin_episode()
    for _ in range(2):
        dqn.update(_batch())
        dqn.end_step()
    assert told == ["begin", "update", 1, "update", 2]


def test_an_unknown_loss_lists_those_there_are():
    with pytest.raises(ValueError, match="'mse'; expected one of huber, squared"):
        DoubleDqn(_network(), replace(CONFIG, loss="mse"))


def test_updates_fit_a_fixed_batch():
    dqn = DoubleDqn(_network(), replace(CONFIG, optimizer="adam", learning_rate=1e-3))
    batch = replace(_batch(), discounts=torch.zeros(16))
    losses = [dqn.update(batch).loss for _ in range(60)]
    assert losses[-1] < losses[0] / 5


def test_the_target_network_follows_with_its_batch_statistics():
    dqn = DoubleDqn(_network(), replace(CONFIG, target_update=3))
    before = {name: value.clone() for name, value in dqn.target.state_dict().items()}
    for _ in range(2):
        dqn.update(_batch())
        dqn.end_step()
    assert all(torch.equal(before[name], it) for name, it in dqn.target.state_dict().items())
    dqn.end_step()
    after = dqn.target.state_dict()
    assert all(torch.equal(after[name], it) for name, it in dqn.network.state_dict().items())
    assert not torch.equal(before["gate.norm.running_mean"], after["gate.norm.running_mean"])


def test_epsilon_falls_as_the_code_of_record_says():
    dqn = DoubleDqn(_network(), CONFIG)
    assert dqn.epsilon == pytest.approx(0.9)
    dqn.num_steps_done = 30
    assert dqn.epsilon == pytest.approx(0.05 + 0.85 * np.exp(-3))


def test_a_linear_schedule_ends_where_it_should():
    config = replace(CONFIG, epsilon_schedule="linear", epsilon_start=1.0, epsilon_decay=100)
    dqn = DoubleDqn(_network(), config)
    dqn.num_steps_done = 50
    assert dqn.epsilon == pytest.approx(0.525)
    dqn.num_steps_done = 500
    assert dqn.epsilon == pytest.approx(0.05)


def test_the_learning_rate_decays_with_every_step():
    dqn = DoubleDqn(_network(), CONFIG)
    for _ in range(10):
        dqn.end_step()
    assert dqn._optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.97**10)


@pytest.mark.parametrize("exploration", ["batch", "pick"])
def test_exploration_is_drawn_once_or_for_every_pick(exploration):
    config = replace(
        CONFIG, exploration=exploration, epsilon_start=0.5, epsilon_end=0.5, epsilon_decay=1.0
    )
    dqn = DoubleDqn(_network(), config)
    observation = _observation()
    greedy = dqn.values(observation).argmax(axis=1)
    rng = np.random.default_rng(0)
    shares = [float((dqn.act(observation, rng) == greedy).mean()) for _ in range(300)]
    assert np.mean(shares) == pytest.approx(0.5 + 0.5 / 5, abs=0.06)
    wholly_greedy = np.mean(np.array(shares) == 1)
    assert wholly_greedy > 0.4 if exploration == "batch" else wholly_greedy < 0.2


def test_a_loss_that_is_not_finite_stops_the_training():
    dqn = DoubleDqn(_network(), CONFIG)
    broken = replace(_batch(), returns=torch.full((16,), torch.nan))
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        dqn.update(broken)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_checkpoint_goes_on_to_the_bit(optimizer):
    config = replace(CONFIG, optimizer=optimizer)
    dqn, other = DoubleDqn(_network(), config), DoubleDqn(_network(7), config)
    for seed in range(3):
        dqn.update(_batch(seed=seed))
        dqn.end_step()
    tensors, numbers = dqn.state_dict()
    other.load_state_dict({name: it.clone() for name, it in tensors.items()}, numbers)
    for each in (dqn, other):
        each.update(_batch(seed=9))
        each.end_step()
    assert dqn.epsilon == other.epsilon
    for name, value in dqn.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
