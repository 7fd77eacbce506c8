from __future__ import annotations

import torch

from ralis_backend.core.learning.rewards.actions import (
    cell_logits,
    draw_actions,
    draw_with_shared_noise,
    log_probabilities,
    on_pixels,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_cell_has_the_mean_logits_of_its_pixels_also_at_the_border():
    logits = torch.tensor([[[[1.0, 3.0, 5.0], [3.0, 5.0, 9.0], [2.0, 4.0, 8.0]]]])
    torch.testing.assert_close(cell_logits(logits, 2), torch.tensor([[[[3.0, 7.0], [3.0, 8.0]]]]))
    assert cell_logits(logits, 1) is logits


def test_every_pixel_has_its_cells_action():
    actions = torch.tensor([[1, 2], [3, 4]])
    expected = torch.tensor([[1, 1, 2], [1, 1, 2], [3, 3, 4]])
    assert torch.equal(on_pixels(actions, 2, (3, 3)), expected)


def test_actions_are_drawn_as_often_as_the_policy_says():
    log_policy = torch.tensor([0.7, 0.2, 0.1]).log().reshape(1, 3, 1, 1).expand(2, 3, 4, 5)
    actions = draw_actions(log_policy, 2000, _generator())
    assert actions.shape == (2000, 2, 4, 5)
    shares = torch.bincount(actions.flatten(), minlength=3) / actions.numel()
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.01, rtol=0)


def test_with_shared_noise_each_pixel_is_drawn_as_often_as_its_own_policy_says():
    policy = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]).log().T.reshape(1, 3, 1, 2)
    actions = draw_with_shared_noise(policy, 4000, 4, _generator())
    assert actions.shape == (4000, 1, 1, 2)
    for pixel, expected in enumerate(([0.7, 0.2, 0.1], [0.1, 0.3, 0.6])):
        shares = torch.bincount(actions[..., pixel].flatten(), minlength=3) / 4000
        torch.testing.assert_close(shares, torch.tensor(expected), atol=0.03, rtol=0)


def test_with_shared_noise_like_pixels_of_a_cell_have_one_class():
    coin = torch.full((1, 2, 20, 30), 0.5).log()
    actions = draw_with_shared_noise(coin, 6, 10, _generator())
    downwards, sidewards = ((actions.diff(dim=dim) != 0) for dim in (2, 3))
    assert int(downwards.any(dim=(1, 3)).sum(dim=1).max()) <= 2  # borders of a map
    assert int(sidewards.any(dim=(1, 2)).sum(dim=1).max()) <= 3
    assert downwards.any()
    assert sidewards.any()


def test_the_same_seed_draws_the_same_maps():
    log_policy = torch.randn(2, 3, 4, 5, generator=_generator(1)).log_softmax(dim=1)
    first, again, other = (draw_actions(log_policy, 3, _generator(seed)) for seed in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_log_probabilities_are_those_of_what_was_drawn():
    log_policy = torch.tensor([[[[0.1, 0.6]], [[0.9, 0.4]]]]).log()  # B=1, C=2, one row, two cols
    actions = torch.tensor([[[[0, 1]]], [[[1, 1]]]])  # G=2
    expected = torch.tensor([[[[0.1, 0.4]]], [[[0.9, 0.4]]]])
    torch.testing.assert_close(log_probabilities(log_policy, actions).exp(), expected)
