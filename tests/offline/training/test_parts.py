"""Another sampler and target rule, defined here, in a training that is otherwise RALIS's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ralis_backend.core.policy import QueryNetwork
from ralis_backend.offline.training.buffer import ReplayBuffer
from ralis_backend.offline.training.parts import Parts, put_together
from ralis_backend.offline.training.q_training import QTraining
from ralis_backend.offline.training.sampling import Draw
from ralis_backend.offline.training.targets import TargetRule
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


class Prioritised:
    """Transitions whose error was large are drawn more often, and weigh less (arXiv:1511.05952)."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer = buffer
        self.priorities = torch.zeros(buffer.num_slots, buffer.num_pools)
        self.largest = 1.0
        self.weights: list[torch.Tensor] = []

    def added(self, slot):
        self.priorities[slot] = self.largest

    def draw(self, batch_size, rng):
        complete, num_pools = self.buffer.complete(), self.buffer.num_pools
        chances = self.priorities[torch.from_numpy(complete)].double().flatten() ** 0.6
        chances /= chances.sum()
        drawn = rng.choice(len(chances), batch_size, p=chances.numpy())
        weights = (len(chances) * chances[torch.from_numpy(drawn)]) ** -0.4
        self.weights.append((weights / weights.max()).float())
        slots, pools = complete[drawn // num_pools], drawn % num_pools
        return Draw(torch.from_numpy(slots), torch.from_numpy(pools), self.weights[-1])

    def learned(self, draw, errors):
        self.priorities[draw.slots, draw.pools] = errors.abs() + 1e-3
        self.largest = max(self.largest, float(errors.abs().max()))

    def state_dict(self):
        return {"priorities": self.priorities, "largest": torch.tensor(self.largest)}

    def load_state_dict(self, tensors):
        self.priorities.copy_(tensors["priorities"])
        self.largest = float(tensors["largest"])


class Soft(TargetRule):
    """The target network moves a little after each update."""

    def after_update(self, target, network):
        theirs = network.state_dict()
        for name, value in target.state_dict().items():
            if value.is_floating_point():
                value.lerp_(theirs[name], 0.05)
            else:
                value.copy_(theirs[name])


def _parts() -> Parts:
    torch.manual_seed(0)
    network = QueryNetwork(4, 4)
    return put_together(ToySimulation(), CONFIG, network, sampler=Prioritised, target_rule=Soft())


def test_other_parts_solve_a_game_with_a_known_best_action(tmp_path):
    parts = _parts()
    QTraining(parts, CONFIG, 0, tmp_path / "checkpoint.safetensors", FACTS).run()
    assert picks_useful(parts.dqn.network) > 0.9
    assert parts.sampler.weights[-1].min() < 0.9  # some were drawn for their errors
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
    assert torch.equal(whole.sampler.priorities, resumed.sampler.priorities)
