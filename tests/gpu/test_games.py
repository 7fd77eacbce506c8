"""The labelling game and policy training, with everything on a device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.acquisition import strategy
from ralis_backend.core.features import FEATURES
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.policy import QueryNetwork
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.training.buffer import ReplayBuffer
from ralis_backend.offline.training.config import FAITHFUL, REPAIRED, EvolutionConfig
from ralis_backend.offline.training.dqn import DoubleDqn
from ralis_backend.offline.training.environment import LabellingEnv
from ralis_backend.offline.training.observation import RalisInputs
from ralis_backend.offline.training.open_simulation import open_simulation
from ralis_backend.offline.training.ralis import train
from ralis_backend.offline.training.sampling import UniformSampler
from ralis_backend.offline.training.scenarios import draw_scenario, play_together
from ralis_backend.simulation.arena import FastArena
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.full import FullSimulation
from ralis_backend.simulation.game import GameRules, play
from ralis_backend.simulation.heads import HeadConfig
from ralis_backend.simulation.oracles import ORACLES
from ralis_backend.simulation.points import PointEncoder, RegionPoints
from tests.tiny_dataset import REGION_SIZE, SIZE

SPEC = SegmenterSpec(3, encoder_weights=None)
HEAD = HeadConfig(hidden=8, batch_size=16)
SHORT = {"budget": 8, "regions_per_step": 2, "pool_size": 3, "credit_groups": 2}
FEW = {"updates_per_step": 2, "initial_updates": 2}


def _rules(preset, initial_regions: int):
    rules = replace(preset.environment, initial_regions=initial_regions, **SHORT, **FEW)
    learning = replace(preset.dqn, learning_starts=4, batch_size=4)
    return replace(
        preset, episodes=2, region_size=REGION_SIZE, environment=rules, dqn=learning, head=HEAD,
        evaluate_every=2, evaluation_episodes=1, checkpoint_every=1,
    )  # fmt: skip


CONFIGS = {
    "faithful": _rules(FAITHFUL, 0),
    "repaired": _rules(REPAIRED, 4),
}


def _points(dataset, split: str, device: str) -> RegionPoints:
    encoder = PointEncoder(SPEC, device)
    samples = dataset.split(split)
    parts = [(it.image(), it.mask(), grid(SIZE, REGION_SIZE)) for it in samples]
    encoder.fit((image, regions) for image, _, regions in parts)
    return encoder.points(parts, look_twice=True)


@pytest.fixture(scope="module")
def pool(tiny_dataset) -> RegionPoints:
    return _points(tiny_dataset, "d_t", "cpu")


def test_points_seen_on_the_device_are_those_of_the_cpu(device, pool, tiny_dataset):
    found = _points(tiny_dataset, "d_t", device)
    np.testing.assert_allclose(found.embeddings, pool.embeddings, atol=2e-2)
    assert torch.equal(found.points.labels, pool.points.labels)


def test_a_simulation_on_the_device_tells_what_it_tells_on_the_cpu(device, pool):
    chosen = np.array([7, 0, 21])
    told = []
    for each in ("cpu", device):
        simulation = FastSimulation(pool, pool, pool, HEAD, each)
        simulation.begin(np.arange(6), 3, 0)
        simulation.learn([np.arange(8), np.arange(4)], 3, 1)
        offered, state_set = simulation.describe(chosen), simulation.describe_state()
        told.append(
            {name: offered[name] for name in offered}
            | {f"state {name}": state_set[name] for name in state_set}
            | vars(simulation.reveal(chosen))
            | {"counts": simulation.class_counts(chosen), "matrix": simulation.evaluate()}
        )
    here, there = told
    assert {"entropy", "state bald", "error", "matrix"} <= set(here)
    for name in FEATURES.keys() - {"class_counts", "boundary"}:
        np.testing.assert_allclose(there[name], here[name], atol=0.05, rtol=0.05, err_msg=name)
    for name, expected in here.items():
        assert there[name].shape == expected.shape, name
    assert there["matrix"].sum() == here["matrix"].sum()


@pytest.mark.parametrize("preset", CONFIGS)
def test_updates_from_a_buffer_on_the_device_are_those_of_the_cpu(device, preset):
    here, there = (_losses(preset, each) for each in ("cpu", device))
    np.testing.assert_allclose(there, here, rtol=1e-3)


def _losses(preset: str, device: str) -> list[float]:
    """Of updates from seven made-up steps, with a checkpoint among them."""
    config = CONFIGS[preset].dqn
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        dqn = DoubleDqn(QueryNetwork(3, 4).to(device), config)
    shapes = {"state": (4, 196), "actions": (2, 3, 260)}
    replay = ReplayBuffer(
        40, shapes["state"], shapes["actions"], num_steps=config.num_steps, device=device
    )
    rng = np.random.default_rng(0)
    observations = [
        {name: rng.random(shape, np.float32) for name, shape in shapes.items()} for _ in range(8)
    ]
    replay.begin(observations[0])
    for step, observation in enumerate(observations[1:]):
        picked = dqn.values(observation).argmax(axis=1)
        replay.add(picked, rng.random(2), observation, step == 6)
    losses = [_update(dqn, replay, rng) for _ in range(3)]
    tensors, numbers = dqn.state_dict()
    dqn.load_state_dict({name: value.cpu() for name, value in tensors.items()}, numbers)
    replay.load_state_dict({name: value.cpu() for name, value in replay.state_dict().items()})
    dqn.end_step()
    return [*losses, _update(dqn, replay, rng)]


def _update(dqn: DoubleDqn, replay: ReplayBuffer, rng: np.random.Generator) -> float:
    """The loss; each of the drawn transitions has a weight of its own."""
    draw = UniformSampler(replay).draw(8, rng)
    batch = replay.take(draw.slots, draw.pools)
    weights = torch.from_numpy(rng.random(8, np.float32)).to(batch.returns.device)
    update = dqn.update(batch, weights)
    assert update.errors.device == batch.returns.device
    return update.loss


class _Stopped(Exception):
    pass


@pytest.mark.e2e  # seconds on the stand-in
@pytest.mark.parametrize("preset", CONFIGS)
def test_a_stopped_training_goes_on_from_its_checkpoint(device, preset, tiny_dataset, tmp_path):
    def stop_in_the_second_episode(progress):
        if progress.done > 1:
            raise _Stopped

    config, out = CONFIGS[preset], tmp_path / "policy"
    simulation = open_simulation(tiny_dataset, config, tmp_path / "cache", spec=SPEC, device=device)
    with pytest.raises(_Stopped):
        train(
            tiny_dataset, simulation, config, out, device=device,
            on_progress=stop_in_the_second_episode,
        )  # fmt: skip
    games = []
    policy = train(
        tiny_dataset, simulation, config, out, device=device,
        on_progress=lambda progress: games.append(progress.done),
    )  # fmt: skip
    assert games == sorted(games)
    assert 1 < games[0] < games[-1] == 2
    assert policy.spec.classes == tiny_dataset.class_names


@pytest.mark.e2e  # seconds on the stand-in
def test_a_step_of_the_full_simulation_is_played(device, tiny_dataset):
    splits = [tiny_dataset.split(name) for name in ("d_t", "d_s", "d_r")]
    learning = FinetuneConfig(batch_size=2, crop_size=(32, 32))
    simulation = FullSimulation(
        *splits, SPEC, REGION_SIZE, first=learning, config=learning, device=device
    )
    rules = CONFIGS["repaired"].environment
    environment = LabellingEnv(simulation, rules, RalisInputs(rules.variant, device))
    environment.reset(seed=0)
    observation = environment.step(np.zeros(2, np.int64))[0]
    assert observation["actions"].any()
    assert np.isfinite(observation["actions"]).all()


def test_heads_side_by_side_play_a_game(device, pool):
    config = EvolutionConfig(
        initial_regions=(3, 5), steps=2, regions_per_step=3, pool_size=3, updates_per_step=2,
        initial_updates=2, max_held_out=6,
    )  # fmt: skip
    drawn = draw_scenario([pool], config, np.random.default_rng(0))
    players = [strategy("random"), strategy("bald-rarity")]
    scores, labelled = play_together(drawn, players, device)
    assert scores.shape == (2, 2)
    assert [len(each) for each in labelled] == [len(drawn.initial) + 6] * 2


@pytest.mark.parametrize("player", [strategy("equal"), ORACLES["oracle-coverage"]])
def test_a_comparison_is_played_and_its_head_put_back(device, pool, player):
    rules = GameRules(
        budgets=(6, 8), initial_regions=4, regions_per_step=2, pool_size=3, updates_per_step=2,
        initial_updates=2, final_updates=2,
    )  # fmt: skip
    arena = FastArena("tiny", pool, pool, pool, HEAD, device)
    played = play(arena, player, 0, rules)
    assert [point["regions"] for point in played["curve"]] == [6, 8]
    one, other = arena.simulation(), arena.simulation()
    one.begin(np.arange(4), 2, 0)
    arena.restore(other, {name: it.cpu() for name, it in arena.snapshot(one).items()})
    np.testing.assert_array_equal(other.evaluate(), one.evaluate())
