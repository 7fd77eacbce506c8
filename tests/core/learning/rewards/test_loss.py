from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ralis_backend.core.learning.rewards.actions import draw_actions, log_probabilities
from ralis_backend.core.learning.rewards.advantages import PIXEL_CREDITS, synchronised
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.loss import (
    clipped_gain,
    divergence,
    entropy,
    policy_loss,
)
from ralis_backend.core.learning.rewards.scores import correct_pixels

PLAIN = RewardConfig(kl_weight=0, entropy_weight=0)


def _toy(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a little image with three classes, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((1, 3, 4, 5), generator=generator).requires_grad_()
    return logits, torch.randint(0, 3, (1, 4, 5), generator=generator)


def _gradient(logits: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    return gradient


@pytest.mark.parametrize("credit", PIXEL_CREDITS)
def test_with_pixel_rewards_the_gradient_points_where_that_of_cross_entropy_does(credit):
    logits, masks = _toy()
    log_policy = logits.log_softmax(dim=1)
    actions = draw_actions(log_policy.detach(), 20_000, torch.Generator().manual_seed(1))
    rewards = correct_pixels(actions, masks)
    advantages = synchronised(PIXEL_CREDITS[credit](rewards.values), rewards.is_known)
    old = log_probabilities(log_policy.detach(), actions)
    loss = policy_loss(log_policy, actions, advantages, old, None, PLAIN)
    found = _gradient(logits, loss).movedim(1, -1).reshape(-1, 3)
    wanted = _gradient(logits, functional.cross_entropy(logits, masks)).movedim(1, -1)
    wanted = wanted.reshape(-1, 3)
    assert functional.cosine_similarity(found, wanted, dim=1).min() > 0.95
    # of plain rewards it is cross-entropy's times the probability of the true class
    true = logits.detach().softmax(dim=1).gather(1, masks[:, None]).flatten()
    lengths = found.norm(dim=1) / wanted.norm(dim=1) / (true if credit == "plain" else 1)
    torch.testing.assert_close(lengths, lengths.mean().expand(20), rtol=0.2, atol=0)


def test_with_the_old_policy_the_gradient_is_that_of_reinforce():
    logits, _ = _toy()
    log_policy = logits.log_softmax(dim=1)
    actions = draw_actions(log_policy.detach(), 2, torch.Generator().manual_seed(1))
    advantages = torch.randn(actions.shape, generator=torch.Generator().manual_seed(2))
    chosen = log_probabilities(log_policy, actions)
    loss = policy_loss(log_policy, actions, advantages, chosen.detach(), None, PLAIN)
    reinforce = -(chosen * advantages).mean()
    torch.testing.assert_close(_gradient(logits, loss), _gradient(logits, reinforce))


def test_the_gain_is_clipped_where_it_would_go_further_and_not_where_it_comes_back():
    ratios = torch.tensor([1.5, 0.5, 1.5, 0.5])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    gains = clipped_gain(ratios.log(), torch.zeros(4), advantages, clip=0.2)
    torch.testing.assert_close(gains, torch.tensor([1.2, 0.5, -1.5, -0.8]))


def test_divergence_and_entropy_of_a_coin():
    coin = torch.tensor([0.5, 0.5]).log().reshape(1, 2, 1, 1)
    biased = torch.tensor([0.25, 0.75]).log().reshape(1, 2, 1, 1)
    assert float(entropy(coin)) == pytest.approx(0.693147, abs=1e-5)
    # 0.5 ln 2 + 0.5 ln (2 / 3)
    assert float(divergence(coin, biased)) == pytest.approx(0.143841, abs=1e-5)
    assert float(divergence(coin, coin)) == 0


def test_without_advantages_at_the_reference_nothing_moves():
    logits, _ = _toy()
    log_policy = logits.log_softmax(dim=1)
    actions = draw_actions(log_policy.detach(), 2, torch.Generator().manual_seed(1))
    old, none = log_probabilities(log_policy.detach(), actions), torch.zeros(actions.shape)
    config = RewardConfig(entropy_weight=0)
    loss = policy_loss(log_policy, actions, none, old, log_policy.detach(), config)
    torch.testing.assert_close(_gradient(logits, loss), torch.zeros_like(logits))


def test_the_reference_holds_and_entropy_spreads():
    logits, _ = _toy()
    log_policy = logits.log_softmax(dim=1)
    actions = draw_actions(log_policy.detach(), 2, torch.Generator().manual_seed(1))
    old, none = log_probabilities(log_policy.detach(), actions), torch.zeros(actions.shape)
    uniform = torch.full_like(log_policy, 1 / 3).log()
    held = RewardConfig(entropy_weight=0, kl_weight=1)
    to_uniform = _gradient(logits, policy_loss(log_policy, actions, none, old, uniform, held))
    spread = RewardConfig(entropy_weight=1, kl_weight=0)
    spreading = _gradient(logits, policy_loss(log_policy, actions, none, old, None, spread))
    # KL to the uniform distribution is ln 3 less the entropy
    torch.testing.assert_close(to_uniform, spreading)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_maps": 1}, "expected 2 or more"),
        ({"strides": ()}, "must fall"),
        ({"strides": (8, 16)}, "must fall"),
        ({"strides": (8, 8)}, "must fall"),
        ({"strides": (8, 0)}, "must fall"),
        ({"patience": 0}, "at least 1"),
        ({"updates_per_draw": 0}, "at least 1"),
        ({"sampler": "dice"}, "expected one of pooled, shared-noise"),
        ({"clip": -0.1}, "not be negative"),
        ({"pixel_credit": "karma"}, "expected one of plain, relative"),
        ({"credit": "karma"}, "unknown credit 'karma'; expected one of psd, score"),
        ({"normalisation": "none"}, "expected one of synchronised, per-image"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        RewardConfig(**change).check()
