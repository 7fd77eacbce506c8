from __future__ import annotations

import pytest
import torch

from ralis_backend.core.learning.rewards.actions import (
    cell_logits,
    draw_actions,
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


def test_cells_that_are_not_drawn_have_their_most_probable_class():
    log_policy = torch.tensor([0.3, 0.4, 0.3]).log().reshape(1, 3, 1, 1).expand(1, 3, 50, 50)
    actions = draw_actions(log_policy, 4, _generator(), drawn_share=0.1)
    assert float((actions != 1).float().mean()) == pytest.approx(0.1 * 0.6, abs=0.01)


def test_the_same_seed_draws_the_same_maps():
    log_policy = torch.randn(2, 3, 4, 5, generator=_generator(1)).log_softmax(dim=1)
    first, again, other = (draw_actions(log_policy, 3, _generator(seed)) for seed in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_probabilities_that_are_not_finite_are_refused_in_words():
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        draw_actions(torch.full((1, 2, 1, 1), float("nan")), 2, _generator())


def test_log_probabilities_are_those_of_what_was_drawn():
    log_policy = torch.tensor([[[[0.1, 0.6]], [[0.9, 0.4]]]]).log()  # B=1, C=2, one row, two cols
    actions = torch.tensor([[[[0, 1]]], [[[1, 1]]]])  # G=2
    expected = torch.tensor([[[[0.1, 0.4]]], [[[0.9, 0.4]]]])
    torch.testing.assert_close(log_probabilities(log_policy, actions).exp(), expected)
