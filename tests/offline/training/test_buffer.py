from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.offline.training.buffer import ReplayBuffer, Transitions
from ralis_backend.offline.training.sampling import UniformSampler


def _observation(number: int) -> dict[str, np.ndarray]:
    return {
        "state": np.full((2, 3), number, np.float32),
        "actions": np.full((2, 4, 5), number, np.float32) + np.arange(4)[None, :, None] / 10,
    }


def _sample(buffer: ReplayBuffer, count: int, seed: int = 0) -> Transitions:
    draw = UniformSampler(buffer).draw(count, np.random.default_rng(seed))
    return buffer.take(draw.slots, draw.pools)


def _filled(num_steps: int, discount: float = 0.5, capacity: int = 100) -> ReplayBuffer:
    """Two episodes of four steps; step t has the rewards t + 1 and 10 (t + 1)."""
    buffer = ReplayBuffer(capacity, (2, 3), (2, 4, 5), num_steps=num_steps, discount=discount)
    for episode in range(2):
        buffer.begin(_observation(10 * episode))
        for step in range(4):
            buffer.add(
                np.array([step % 4, 0]),
                np.array([step + 1, 10 * (step + 1)]),
                _observation(10 * episode + step + 1),
                step == 3,
            )
    return buffer


def test_one_step_transitions_hold_what_happened():
    batch = _sample(_filled(1), 500)
    for index in range(500):
        number = int(batch.states[index, 0, 0])
        step = number % 10
        is_second = float(batch.returns[index]) >= 10
        assert float(batch.returns[index]) == (step + 1) * (10 if is_second else 1)
        picked = 0 if is_second else step % 4
        assert float(batch.actions[index, 0]) == pytest.approx(number + picked / 10)
        if step == 3:
            assert float(batch.discounts[index]) == 0
        else:
            assert float(batch.discounts[index]) == 0.5
            assert int(batch.next_states[index, 0, 0]) == number + 1
            assert batch.next_actions[index, :, 0].tolist() == pytest.approx(
                [number + 1 + each / 10 for each in range(4)]
            )


def test_n_step_returns_end_with_the_episode():
    batch = _sample(_filled(3), 500)
    mean = {step: 5.5 * (step + 1) for step in range(4)}
    seen = set()
    for index in range(500):
        number = int(batch.states[index, 0, 0])
        step = number % 10
        value = float(batch.returns[index])
        own = {float(step + 1), float(10 * (step + 1))}
        later = sum(0.5**ahead * mean[step + ahead] for ahead in (1, 2) if step + ahead <= 3)
        assert min(abs(value - later - each) for each in own) < 1e-5
        is_over = step + 2 >= 3
        assert float(batch.discounts[index]) == (0 if is_over else 0.125)
        if not is_over:
            assert int(batch.next_states[index, 0, 0]) == number + 3
        seen.add(step)
    assert seen == {0, 1, 2, 3}


def test_a_step_counts_once_its_return_is_known():
    buffer = ReplayBuffer(20, (2, 3), (2, 4, 5), num_steps=2)
    buffer.begin(_observation(0))
    assert len(buffer) == 0
    buffer.add(np.zeros(2), np.zeros(2), _observation(1), False)
    assert len(buffer) == 0
    buffer.add(np.zeros(2), np.zeros(2), _observation(2), False)
    assert len(buffer) == 2
    buffer.add(np.zeros(2), np.zeros(2), _observation(3), True)
    assert len(buffer) == 6


def test_the_oldest_steps_are_overwritten():
    buffer = ReplayBuffer(6, (2, 3), (2, 4, 5))
    buffer.begin(_observation(0))
    for step in range(9):
        buffer.add(np.zeros(2), np.zeros(2), _observation(step + 1), False)
    assert len(buffer) == 6
    batch = _sample(buffer, 200)
    assert set(batch.states[:, 0, 0].tolist()) == {6.0, 7.0, 8.0}
    assert torch.equal(batch.next_states[:, 0, 0], batch.states[:, 0, 0] + 1)


def test_a_step_is_told_by_its_slot():
    buffer = ReplayBuffer(4, (2, 3), (2, 4, 5))
    assert (buffer.num_slots, buffer.num_pools) == (3, 2)
    buffer.begin(_observation(0))
    slots = [
        buffer.add(np.zeros(2), np.full(2, step), _observation(step + 1), False)
        for step in range(5)
    ]
    assert slots == [0, 1, 2, 0, 1]
    newest = buffer.take(torch.tensor([slots[-1]]), torch.tensor([1]))
    assert newest.returns.tolist() == [4]
    assert sorted(buffer.complete()) == [0, 1]


def test_an_action_without_an_observation_is_refused():
    buffer = ReplayBuffer(6, (2, 3), (2, 4, 5))
    with pytest.raises(ValueError, match="begin"):
        buffer.add(np.zeros(2), np.zeros(2), _observation(0), False)
    with pytest.raises(ValueError, match="at least 1"):
        ReplayBuffer(0, (2, 3), (2, 4, 5))


def test_a_checkpoint_gives_the_same_samples():
    buffer = _filled(2)
    other = ReplayBuffer(100, (2, 3), (2, 4, 5), num_steps=2, discount=0.5)
    other.load_state_dict({name: value.clone() for name, value in buffer.state_dict().items()})
    first, second = (_sample(each, 50, seed=1) for each in (buffer, other))
    for name in vars(first):
        assert torch.equal(getattr(first, name), getattr(second, name))
