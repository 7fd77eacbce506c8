from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.offline.training.buffer import ReplayBuffer
from ralis_backend.offline.training.sampling import (
    Draw,
    PrioritisedSampler,
    UniformSampler,
)


def _observation() -> dict[str, np.ndarray]:
    return {"state": np.zeros((2, 3), np.float32), "actions": np.zeros((2, 4, 5), np.float32)}


def test_every_complete_transition_is_equally_likely():
    buffer = ReplayBuffer(20, (2, 3), (2, 4, 5), num_steps=2)
    buffer.begin(_observation())
    for _ in range(4):
        buffer.add(np.zeros(2), np.zeros(2), _observation(), False)
    draw = UniformSampler(buffer).draw(6000, np.random.default_rng(0))
    assert draw.weights is None
    places, counts = np.unique(
        np.stack([draw.slots.numpy(), draw.pools.numpy()]), axis=1, return_counts=True
    )
    assert places.T.tolist() == [[slot, pool] for slot in range(3) for pool in range(2)]
    np.testing.assert_allclose(counts, 1000, atol=120)


def test_an_empty_buffer_is_refused():
    buffer = ReplayBuffer(20, (2, 3), (2, 4, 5), num_steps=2)
    buffer.begin(_observation())
    with pytest.raises(ValueError, match="no complete transition"):
        UniformSampler(buffer).draw(1, np.random.default_rng(0))
    buffer.add(np.zeros(2), np.zeros(2), _observation(), False)  # its second reward is to come
    with pytest.raises(ValueError, match="no complete transition"):
        UniformSampler(buffer).draw(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no complete transition"):
        PrioritisedSampler(buffer).draw(1, np.random.default_rng(0))


def _prioritised(**settings) -> PrioritisedSampler:
    """Of a buffer with four complete one-step transitions of one pool."""
    buffer = ReplayBuffer(20, (1,), (1, 2, 1))
    observation = {"state": np.zeros(1), "actions": np.zeros((1, 2, 1))}
    sampler = PrioritisedSampler(buffer, **settings)
    buffer.begin(observation)
    for _ in range(4):
        sampler.added(buffer.add(np.zeros(1), np.zeros(1), observation, False))
    return sampler


def _learn(sampler: PrioritisedSampler, errors: list[float]) -> None:
    slots = torch.arange(len(errors))
    sampler.learned(Draw(slots, torch.zeros_like(slots)), torch.tensor(errors))


def test_chances_are_errors_to_a_power_and_importance_weights_undo_them():
    sampler = _prioritised(alpha=0.5, beta=(1.0, 1.0))
    _learn(sampler, [-0.999, 3.999, 8.999, 0.0])  # priorities 1, 4, 9 and 0.001
    draw = sampler.draw(20_000, np.random.default_rng(0))
    counts = np.bincount(draw.slots.numpy(), minlength=4)
    roots = np.array([1, 2, 3, np.sqrt(0.001)])
    np.testing.assert_allclose(counts / 20_000, roots / roots.sum(), atol=0.012)
    by_slot = {int(slot): float(each) for slot, each in zip(draw.slots, draw.weights, strict=True)}
    assert by_slot[3] == 1  # the rarest counts most
    assert by_slot[0] == pytest.approx(np.sqrt(0.001), rel=1e-5)
    assert by_slot[2] == pytest.approx(np.sqrt(0.001) / 3, rel=1e-5)


def test_beta_rises_from_draw_to_draw_and_stays():
    sampler = _prioritised(alpha=1.0, beta=(0.4, 1.0), num_draws=4)
    _learn(sampler, [0.999, 3.999, 0.999, 0.999])
    rng, weights = np.random.default_rng(0), []
    for expected in (0.4, 0.55, 0.7, 0.85, 1.0, 1.0):
        assert sampler.beta == pytest.approx(expected)
        weights.append(float(sampler.draw(200, rng).weights.min()))
    np.testing.assert_allclose(weights[0], 4**-0.4, rtol=1e-6)
    np.testing.assert_allclose(weights[-1], 0.25, rtol=1e-6)


def test_what_is_new_is_as_likely_as_the_likeliest():
    sampler = _prioritised()
    _learn(sampler, [6.999, 0.499, 0.499])
    sampler.added(3)
    remembered = sampler.state_dict()
    assert remembered["priorities"][:4, 0].tolist() == pytest.approx([7, 0.5, 0.5, 7])
    assert sampler.draw(50, np.random.default_rng(0)).weights.max() == 1


def test_a_prioritised_sampler_goes_on_from_what_it_remembers():
    sampler, other = _prioritised(), _prioritised()
    _learn(sampler, [0.1, 5.0, 0.2, 0.0])
    sampler.draw(1, np.random.default_rng(0))
    other.load_state_dict({name: it.clone() for name, it in sampler.state_dict().items()})
    draws = [each.draw(9, np.random.default_rng(1)) for each in (sampler, other)]
    assert torch.equal(draws[0].slots, draws[1].slots)
    assert torch.equal(draws[0].weights, draws[1].weights)
    assert sampler.beta == other.beta > 0.4
