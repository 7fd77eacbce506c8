from __future__ import annotations

import pytest
import torch

from ralis_backend.offline.training.losses import find_loss, huber, squared

Q_VALUES = torch.tensor([0.0, 1.0, 4.0])
TARGETS = torch.tensor([0.5, 1.0, 1.0])  # errors -0.5, 0 and 3


def test_losses_by_hand():
    assert float(huber(Q_VALUES, TARGETS)) == pytest.approx((0.125 + 0 + 2.5) / 3)
    assert float(squared(Q_VALUES, TARGETS)) == pytest.approx((0.25 + 0 + 9) / 3)


def test_a_weight_multiplies_the_loss_of_its_transition():
    weights = torch.tensor([1.0, 1.0, 0.5])
    assert float(huber(Q_VALUES, TARGETS, weights)) == pytest.approx((0.125 + 0 + 1.25) / 3)
    assert float(squared(Q_VALUES, TARGETS, weights)) == pytest.approx((0.25 + 0 + 4.5) / 3)


@pytest.mark.parametrize("name", ["huber", "squared"])
def test_weights_of_one_change_no_bit(name):
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(37, generator=generator)
    with_ones, without = (
        find_loss(name)(errors, torch.zeros(37), weights) for weights in (torch.ones(37), None)
    )
    assert torch.equal(with_ones, without)
