from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.core.features.ralis import NUM_BINS, action_length, region_length
from ralis_backend.core.policy.network import QueryNetwork

NUM_CLASSES, NUM_STATE_REGIONS = 5, 7


@pytest.fixture
def network() -> QueryNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = QueryNetwork(NUM_CLASSES, NUM_STATE_REGIONS)
        for _ in range(3):
            network(*_batch(8, 6, seed=1))  # BatchNorm statistics other than 0 and 1
    return network.eval()


def _batch(num_states: int, num_actions: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state_shape = (num_states, NUM_STATE_REGIONS, region_length(NUM_CLASSES))
    action_shape = (num_states, num_actions, action_length(NUM_CLASSES))
    return (
        3 * torch.randn(state_shape, generator=generator),
        3 * torch.randn(action_shape, generator=generator),
    )


def _normed(values: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    mean, variance = layer.norm.running_mean.numpy(), layer.norm.running_var.numpy()
    scale, shift = layer.norm.weight.detach().numpy(), layer.norm.bias.detach().numpy()
    return (values - mean) / np.sqrt(variance + layer.norm.eps) * scale + shift


def _linear(values: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    return layer.linear.weight.detach().numpy() @ values + layer.linear.bias.detach().numpy()


def _hidden(values: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    return _linear(np.maximum(_normed(values, layer), 0), layer)


def _slow_q(network: QueryNetwork, state: np.ndarray, action: np.ndarray) -> float:
    """One action of one state, a region at a time."""
    per_region = []
    for region in state:
        for layer in network.state_layers:
            region = _hidden(region, layer)
        per_region.append(region.item())
    summary = _hidden(np.array(per_region), network.state_summary)
    described, divergences = action[: -2 * NUM_BINS], action[-2 * NUM_BINS :]
    for layer in network.action_layers:
        described = _hidden(described, layer)
    joined = np.concatenate([described, summary])
    value = _linear(_normed(joined, network.value), network.value).item()
    return value / (1 + np.exp(-_hidden(divergences, network.gate).item()))


def test_parameters_are_as_many_as_the_papers_on_camvid():
    network = QueryNetwork(num_classes=11, num_state_regions=240)
    assert sum(parameter.numel() for parameter in network.parameters()) == 390_099


def test_q_values_equal_a_loop_over_actions(network):
    states, actions = _batch(3, 4)
    with torch.no_grad():
        q_values = network(states, actions)
    expected = [
        [_slow_q(network, state, action) for action in pool]
        for state, pool in zip(states.numpy(), actions.numpy(), strict=True)
    ]
    np.testing.assert_allclose(q_values, expected, rtol=1e-4, atol=1e-4)


def test_the_gate_scales_the_value(network):
    states, actions = _batch(2, 3)
    with torch.no_grad():
        open_gate = network(states, actions)
        network.gate.linear.weight.zero_()
        network.gate.linear.bias.zero_()
        half_open = network(states, actions)
        network.gate.linear.bias.fill_(100)
        wide_open = network(states, actions)
        network.gate.linear.bias.fill_(-100)
        shut = network(states, actions)
    np.testing.assert_allclose(half_open, wide_open / 2, rtol=1e-5)
    assert (open_gate.abs() < wide_open.abs()).all()
    assert not shut.round(decimals=6).any()


def test_divergences_reach_the_gate_alone(network):
    states, actions = _batch(1, 2)
    others = actions.clone()
    others[..., -2 * NUM_BINS :] = 0
    with torch.no_grad():
        network.gate.linear.weight.zero_()
        np.testing.assert_array_equal(network(states, actions), network(states, others))


def test_one_summary_of_the_state_serves_all_its_actions(network):
    states, actions = _batch(2, 5)
    with torch.no_grad():
        summary = network.summarise(states)
        assert summary.shape == (2, 128)
        shared = network.action_values(summary, actions)
        np.testing.assert_array_equal(shared, network(states, actions))
        for index in range(5):
            alone = network.action_values(summary, actions[:, index : index + 1])
            np.testing.assert_allclose(alone[:, 0], shared[:, index], rtol=1e-4, atol=1e-5)


def test_the_order_of_actions_is_the_order_of_q_values(network):
    states, actions = _batch(2, 6)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    with torch.no_grad():
        expected = network(states, actions)[:, order]
        np.testing.assert_allclose(network(states, actions[:, order]), expected, rtol=1e-5)


def test_states_of_a_batch_do_not_mix(network):
    states, actions = _batch(3, 4)
    with torch.no_grad():
        together = network(states, actions)
        for index in range(3):
            alone = network(states[index : index + 1], actions[index : index + 1])
            np.testing.assert_allclose(alone[0], together[index], rtol=1e-4, atol=1e-5)


def test_another_state_changes_the_q_values(network):
    states, actions = _batch(2, 4)
    with torch.no_grad():
        assert not torch.allclose(network(states, actions), network(states.flip(0), actions))


def test_every_parameter_is_trained():
    network = QueryNetwork(NUM_CLASSES, NUM_STATE_REGIONS)
    network(*_batch(8, 3)).square().sum().backward()
    without_gradient = [name for name, each in network.named_parameters() if each.grad is None]
    assert not without_gradient
