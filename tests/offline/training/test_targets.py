from __future__ import annotations

import pytest
import torch
from torch import nn

from ralis_backend.offline.training.targets import HardCopy, TargetRule


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
