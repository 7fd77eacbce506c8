"""Another sampler and target rule in a training that is otherwise RALIS's own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ralis_backend.core.policy import QueryNetwork
from ralis_backend.offline.training.parts import Parts, put_together
from ralis_backend.offline.training.q_training import QTraining
from ralis_backend.offline.training.sampling import PrioritisedSampler
from ralis_backend.offline.training.targets import SoftUpdate
from ralis_backend.offline.training.trainer import Progress
from tests.offline import toy
from tests.offline.toy import ToySimulation, picks_useful

CONFIG = replace(
    toy.CONFIG,
    episodes=8,
    evaluate_every=0,
    dqn=replace(toy.CONFIG.dqn, updates_per_step=2, epsilon_decay=40.0),
)
FACTS = {"trainer": "prioritised, soft"}


def _parts() -> Parts:
    torch.manual_seed(0)
    network = QueryNetwork(4, 4)
    return put_together(
        ToySimulation(),
        CONFIG,
        network,
        sampler=partial(PrioritisedSampler, num_draws=50),
        target_rule=SoftUpdate(0.05),
    )


def test_other_parts_solve_a_game_with_a_known_best_action(tmp_path):
    parts = _parts()
    QTraining(parts, CONFIG, 0, tmp_path / "checkpoint.safetensors", FACTS).run()
    assert picks_useful(parts.dqn.network) > 0.9
    draw = parts.sampler.draw(64, np.random.default_rng(0))
    assert draw.weights.min() < 0.9  # some were drawn for their errors
    target, network = (it.value.linear.weight for it in (parts.dqn.target, parts.dqn.network))
    assert 0 < (target - network).abs().mean() < 0.5 * network.abs().mean()  # it follows, behind


def test_an_interrupted_training_with_other_parts_goes_on_to_the_bit(tmp_path):
    config = replace(CONFIG, episodes=4, checkpoint_every=2)

    def stop(progress: Progress) -> None:
        if progress.done > 2.5:
            raise KeyboardInterrupt

    whole, halved, resumed = _parts(), _parts(), _parts()
    QTraining(whole, config, 0, tmp_path / "whole", FACTS).run()
    with pytest.raises(KeyboardInterrupt):
        QTraining(halved, config, 0, tmp_path / "halved", FACTS).run(on_progress=stop)
    told: list[Progress] = []
    QTraining(resumed, config, 0, tmp_path / "halved", FACTS).run(on_progress=told.append)
    assert told[0].done == pytest.approx(2 + 1 / 6)
    assert told[-1].done == told[-1].total == 4
    expected = whole.dqn.network.state_dict()
    for name, value in resumed.dqn.network.state_dict().items():
        assert torch.equal(value, expected[name]), name
    remembered = whole.sampler.state_dict()
    for name, value in resumed.sampler.state_dict().items():
        assert torch.equal(value, remembered[name]), name
