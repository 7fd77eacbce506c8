from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.offline.training.buffer import ReplayBuffer
from ralis_backend.offline.training.sampling import UniformSampler


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
