from __future__ import annotations

import pytest
import torch
from torch import nn

from ralis_backend.offline.training.targets import HardCopy, SoftUpdate, TargetRule


def _networks() -> tuple[nn.Module, nn.Module]:
    target, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    network(torch.tensor([[1.0, 2.0], [5.0, 8.0]]))  # moves its statistics, which are buffers
    return target, network


def _is_equal(target: nn.Module, network: nn.Module) -> bool:
    state = network.state_dict()
    return all(torch.equal(value, state[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize(("step", "expected"), [(1, False), (2, False), (3, True), (6, True)])
def test_a_hard_copy_is_made_every_so_many_steps(step, expected):
    target, network = _networks()
    rule = HardCopy(3)
    rule.begin_episode(target, network)
    rule.after_update(target, network)
    rule.end_step(target, network, step)
    assert _is_equal(target, network) == expected


@pytest.mark.parametrize("does_copy", [True, False])
def test_a_hard_copy_is_made_when_an_episode_begins_if_wanted(does_copy):
    target, network = _networks()
    HardCopy(3, does_copy).begin_episode(target, network)
    assert _is_equal(target, network) == does_copy


def test_a_rule_that_overrides_nothing_leaves_the_target_as_it_was():
    target, network = _networks()
    rule = TargetRule()
    rule.begin_episode(target, network)
    rule.after_update(target, network)
    rule.end_step(target, network, 1)
    assert _is_equal(target, nn.BatchNorm1d(2))


def test_a_soft_update_moves_a_share_of_the_way_and_takes_statistics_along():
    target, network = _networks()
    assert network.running_mean.tolist() == pytest.approx([0.3, 0.5])
    SoftUpdate(0.25).after_update(target, network)
    assert target.running_mean.tolist() == pytest.approx([0.075, 0.125])
    SoftUpdate(0.25).after_update(target, network)
    assert target.running_mean.tolist() == pytest.approx([0.13125, 0.21875])
    assert int(target.num_batches_tracked) == int(network.num_batches_tracked) == 1


def test_a_soft_update_happens_after_gradient_steps_alone():
    target, network = _networks()
    rule = SoftUpdate(1.0)
    rule.begin_episode(target, network)
    rule.end_step(target, network, 1)
    assert not _is_equal(target, network)
    rule.after_update(target, network)
    assert _is_equal(target, network)
