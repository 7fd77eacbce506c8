"""Fully labelled datasets -> a policy for any label set, by evolution strategies on whole games.

A generation plays one game with several copies of the policy, in pairs whose weights differ by plus
and minus the same noise. All share the first labels, the pools and the random numbers of training,
so the difference of a pair is the doing of its weights. Every game is of another dataset, other
images, another subset or merge of the classes, and another loss.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ralis_backend.core import weights
from ralis_backend.core.acquisition import PoolState, Strategy
from ralis_backend.core.files import write_json
from ralis_backend.core.metrics import mean_iou
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec
from ralis_backend.core.policy.agnostic import flat_inputs, linear_inputs
from ralis_backend.core.policy.agnostic_inputs import (
    CLASS_INPUTS,
    REGION_INPUTS,
    AgnosticInputs,
    agnostic_inputs,
)
from ralis_backend.core.regions import VOID
from ralis_backend.offline.training.config import EvolutionConfig
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.heads import HeadConfig, Heads, Points
from ralis_backend.simulation.picking import pick
from ralis_backend.simulation.points import RegionPoints

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Game:
    """One drawn task: regions to choose from, regions to measure on, how the segmenter learns."""

    pool: RegionPoints
    held_out: RegionPoints
    head: HeadConfig
    initial: np.ndarray
    seed: int


@dataclass(frozen=True)
class Progress:
    """After a game: its mean score, and the spread that weights or batches made."""

    game: int
    games: int
    score: float
    spread: float
    seconds_left: float


def draw_game(
    sources: Sequence[RegionPoints], config: EvolutionConfig, rng: np.random.Generator
) -> Game:
    """A task of one of the sources, with its images split and its classes merged or left out."""
    source = sources[int(rng.integers(len(sources)))]
    images = rng.permutation(np.unique(source.image_index))
    num_held_out = max(1, round(config.held_out * len(images)))
    is_held_out = np.isin(source.image_index, images[:num_held_out])
    num_classes = source.class_pixels.shape[1] - 1
    for _ in range(100):
        game_source = relabelled(source, draw_mapping(num_classes, rng))
        is_annotated = game_source.class_pixels[:, :-1].sum(axis=1) > 0
        pool = game_source.take(np.flatnonzero(~is_held_out & is_annotated))
        low, high = config.initial_regions
        count = min(int(rng.integers(low, high + 1)), max(1, len(pool) // 4))
        shown = pool.class_pixels[:, :-1].sum(axis=0) > 0
        if shown.sum() >= 2 and len(pool) > count + config.steps * config.regions_per_step:
            break
    else:
        raise ValueError(
            f"no game of {config.steps} steps of {config.regions_per_step} regions fits a pool of "
            f"{int((~is_held_out).sum())} regions; lower steps or regions per step"
        )
    power = float(rng.choice(config.class_weight_powers))
    return Game(
        pool,
        game_source.take(rng.permutation(np.flatnonzero(is_held_out))[: config.max_held_out]),
        HeadConfig(class_weight_power=power),
        rng.choice(len(pool), count, replace=False),
        int(rng.integers(2**31)),
    )


def draw_mapping(num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """(C,) new class of each class, VOID where it is left out: as it is, merged, or a subset."""
    kind = rng.choice(["as-is", "merge", "subset"]) if num_classes > 2 else "as-is"
    if kind == "as-is":
        return np.arange(num_classes)
    count = int(rng.integers(2, num_classes))
    order = rng.permutation(num_classes)
    if kind == "merge":
        groups = np.append(np.arange(count), rng.integers(count, size=num_classes - count))
        return np.asarray(groups[np.argsort(order)])
    mapping = np.full(num_classes, VOID)
    mapping[np.sort(order[:count])] = np.arange(count)
    return mapping


def relabelled(points: RegionPoints, mapping: np.ndarray) -> RegionPoints:
    """The same regions with other classes: (C,) new class of each, VOID to leave it out."""
    num_classes = int(mapping[mapping != VOID].max()) + 1
    table = torch.full((256,), VOID, dtype=torch.uint8)
    table[: len(mapping)] = torch.from_numpy(mapping.astype(np.uint8))
    pixels = np.zeros((len(points), num_classes + 1), np.int64)
    pixels[:, -1] = points.class_pixels[:, -1]
    for old, new in enumerate(mapping):
        pixels[:, num_classes if new == VOID else new] += points.class_pixels[:, old]
    labels = table[points.points.labels.long()]
    return replace(points, points=Points(points.points.features, labels), class_pixels=pixels)


def play_together(
    game: Game,
    strategies: Sequence[Strategy],
    config: EvolutionConfig,
    device: str = "cpu",
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Several strategies play one game, their segmenters side by side.

    Returns:
        (M, steps) mIoU on the held-out regions after each step, and the (L,) labelled regions of
        each strategy.
    """
    first = game.held_out.take(np.arange(1))
    simulations = [FastSimulation(game.pool, first, first, game.head, device) for _ in strategies]
    simulations[0].begin(game.initial, config.initial_updates, game.seed)
    for other in simulations[1:]:
        other.heads = simulations[0].heads
    labelled = [game.initial] * len(strategies)
    held_out = game.held_out.to(torch.device(device)).points
    budget = len(game.initial) + config.steps * config.regions_per_step
    scores = np.zeros((len(strategies), config.steps))
    for step in range(config.steps):
        order = np.random.default_rng([game.seed, step]).permutation(len(game.pool))
        for index, (strategy, simulation) in enumerate(zip(strategies, simulations, strict=True)):
            pools = _pools(order, labelled[index], config)
            rng = np.random.default_rng([game.seed, step, 1])
            spent = len(labelled[index]) / budget
            picked = pick(simulation, strategy, labelled[index], pools, rng, spent)
            labelled[index] = np.concatenate([labelled[index], picked])
        heads = Heads.joined([each.heads for each in simulations])
        heads = heads.trained(
            simulations[0].points, labelled, config.updates_per_step, game.seed + step
        )
        for index, simulation in enumerate(simulations):
            simulation.heads = heads.only(index)
        scores[:, step] = [mean_iou(each) for each in heads.confusion_matrices(held_out)]
    return scores, labelled


def _pools(order: np.ndarray, labelled: np.ndarray, config: EvolutionConfig) -> np.ndarray:
    """(K, N) regions that are not labelled, the first ones in the order."""
    is_open = np.ones(len(order), bool)
    is_open[labelled] = False
    left = order[is_open[order]]
    count = min(config.regions_per_step, len(left))
    size = min(config.pool_size, len(left) // count)
    pools: np.ndarray = left[: count * size].reshape(count, size)
    return pools


def evolve(
    sources: Mapping[str, RegionPoints],
    config: EvolutionConfig,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> AgnosticPolicy:
    """Train a policy, and write it with a results file; a killed run goes on where it was.

    Args:
        sources: labelled regions of each dataset.
        config: how.
        out: the policy's path without a suffix.
        seed: of everything random.
        device: of the segmenters.
        on_progress: told after each generation.

    Raises:
        ValueError: if a checkpoint is of another training, or the datasets are too small.
    """
    facts = json.loads(
        json.dumps(
            {
                "datasets": {name: _digest(source) for name, source in sources.items()},
                "config": asdict(config),
                "seed": seed,
            }
        )
    )
    spec = AgnosticSpec("set", config.hidden)
    center = parameters_to_vector(
        AgnosticPolicy.untrained(spec, seed, out.name).network.parameters()
    ).detach()
    center[-(config.hidden + 1) :] = 0  # the last layer: begin as the heuristic
    moments = torch.zeros(2, len(center))
    curve: list[dict[str, float]] = []
    path = out.with_name(f"{out.name}.training") / CHECKPOINT
    if path.is_file():
        tensors, metadata = weights.load(path)
        if metadata["facts"] != facts:
            raise ValueError(f"{path} is of another training; choose another --out or delete it")
        center, moments, curve = tensors["center"], tensors["moments"], metadata["curve"]
    started, done_before = time.perf_counter(), len(curve)
    for generation in range(len(curve), config.generations):
        rng = np.random.default_rng([seed, generation])
        game = draw_game(list(sources.values()), config, rng)
        noise = torch.from_numpy(rng.normal(size=(config.pairs, len(center))).astype(np.float32))
        members = [
            _member(spec, center + sign * config.noise * each) for each in noise for sign in (1, -1)
        ]
        scores = play_together(game, members, config, device)[0].mean(axis=1)  # (2 pairs,)
        if config.does_shuffle_rewards:
            scores = rng.permutation(scores)
        differences = scores[::2] - scores[1::2]
        spread = float(np.sqrt((differences**2).mean())) + 1e-12
        gradient = (torch.from_numpy(differences / spread).float()[:, None] * noise).mean(dim=0)
        center, moments = _adam(center, gradient, moments, generation + 1, config.learning_rate)
        curve.append({"score": round(float(scores.mean()), 5), "spread": round(spread, 6)})
        if (generation + 1) % config.checkpoint_every == 0:
            weights.save(
                path, {"center": center, "moments": moments}, {"facts": facts, "curve": curve}
            )
        per_game = (time.perf_counter() - started) / (generation + 1 - done_before)
        left = per_game * (config.generations - generation - 1)
        on_progress(
            Progress(generation + 1, config.generations, float(scores.mean()), spread, left)
        )
    low, high = input_ranges(list(sources.values()), config, seed)
    cost = {name: len(source) for name, source in sources.items()}
    spec = replace(
        spec, low=low, high=high, training={**facts, "kind": "evolution", "labelled_regions": cost}
    )
    trained = _member(spec, center, out.name)
    trained.save(out.with_suffix(".safetensors"))
    write_json(out.with_suffix(".json"), {**facts, "labelled_regions": cost, "curve": curve})
    return trained


def fit_linear(
    sources: Mapping[str, RegionPoints],
    config: EvolutionConfig,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> AgnosticPolicy:
    """A linear ranker of the same inputs, fitted to one-step rewards by ridge regression.

    In each game several random batches are labelled from one state; what each adds to the mIoU,
    less the mean of the game, is explained by the mean inputs of the batch.
    """
    inputs, rewards, started = [], [], time.perf_counter()
    count = 2 * config.pairs
    for index in range(config.linear_games):
        rng = np.random.default_rng([seed, 7, index])
        game = draw_game(list(sources.values()), config, rng)
        simulation = FastSimulation(
            game.pool, game.held_out.take(np.arange(1)), game.held_out, game.head, device
        )
        simulation.begin(game.initial, config.initial_updates, game.seed)
        offered, shown = _offer(simulation, game, config, rng)
        features = linear_inputs(
            torch.from_numpy(shown.classes), torch.from_numpy(shown.regions)
        ).numpy()  # (R, 18)
        batches = np.stack(
            [rng.choice(len(offered), config.regions_per_step, replace=False) for _ in range(count)]
        )
        matrices = simulation.learn(
            [np.concatenate([game.initial, offered[batch]]) for batch in batches],
            config.updates_per_step,
            game.seed,
        )
        gained = np.array([mean_iou(each) for each in matrices])
        means = np.stack([features[batch].mean(axis=0) for batch in batches])  # (M, 18)
        inputs.append(means - means.mean(axis=0))
        rewards.append((gained - gained.mean()) / (gained.std() + 1e-9))
        per_game = (time.perf_counter() - started) / (index + 1)
        left = per_game * (config.linear_games - index - 1)
        spread = float(gained.std())
        on_progress(Progress(index + 1, config.linear_games, float(gained.mean()), spread, left))
    design, target = np.concatenate(inputs), np.concatenate(rewards)
    scale = design.std(axis=0) + 1e-6
    scaled = design / scale
    ridge = scaled.T @ scaled + 0.1 * len(scaled) * np.eye(scaled.shape[1])
    fitted = np.linalg.solve(ridge, scaled.T @ target) / scale
    cost = {name: len(source) for name, source in sources.items()}
    low, high = input_ranges(list(sources.values()), config, seed)
    training = {
        "kind": "one-step ridge regression",
        "config": asdict(config),
        "seed": seed,
        "labelled_regions": cost,
    }
    spec = AgnosticSpec("linear", low=low, high=high, training=training)
    policy = _member(spec, torch.from_numpy(fitted).float(), out.name)
    policy.save(out.with_suffix(".safetensors"))
    write_json(out.with_suffix(".json"), {**training, "weights": [round(it, 4) for it in fitted]})
    return policy


def input_ranges(
    sources: Sequence[RegionPoints], config: EvolutionConfig, seed: int, num_games: int = 12
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """0.5 and 99.5 % of each input over first states of some games; `progress` may be anything."""
    values = []
    for index in range(num_games):
        rng = np.random.default_rng([seed, 8, index])
        game = draw_game(sources, config, rng)
        first = game.held_out.take(np.arange(1))
        simulation = FastSimulation(game.pool, first, first, game.head)
        simulation.begin(game.initial, config.initial_updates, game.seed)
        values.append(flat_inputs(_offer(simulation, game, config, rng)[1]))
    low, high = np.quantile(np.concatenate(values), [0.005, 0.995], axis=0)
    at = (*CLASS_INPUTS, *REGION_INPUTS).index("progress")
    low[at], high[at] = 0, 1
    return tuple(round(float(it), 5) for it in low), tuple(round(float(it), 5) for it in high)


def _offer(
    simulation: FastSimulation, game: Game, config: EvolutionConfig, rng: np.random.Generator
) -> tuple[np.ndarray, AgnosticInputs]:
    """Candidates of a first step, and what a policy sees of them."""
    left = np.setdiff1d(np.arange(len(game.pool)), game.initial)
    offered = rng.permutation(left)[: config.regions_per_step * config.pool_size]
    state = PoolState(
        simulation.class_pixels[game.initial],
        simulation.embeddings(game.initial),
        config.regions_per_step,
        rng,
    )
    return offered, agnostic_inputs(state, simulation.describe(offered))


def _member(spec: AgnosticSpec, center: torch.Tensor, name: str = "member") -> AgnosticPolicy:
    policy = AgnosticPolicy.untrained(spec, 0, name)
    vector_to_parameters(center, policy.network.parameters())
    return policy


def _adam(
    center: torch.Tensor, gradient: torch.Tensor, moments: torch.Tensor, step: int, rate: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step uphill ("Adam", arXiv:1412.6980)."""
    first = 0.9 * moments[0] + 0.1 * gradient
    second = 0.99 * moments[1] + 0.01 * gradient**2
    corrected = (first / (1 - 0.9**step), second / (1 - 0.99**step))
    return center + rate * corrected[0] / (corrected[1].sqrt() + 1e-8), torch.stack([first, second])


def _digest(source: RegionPoints) -> str:
    content = source.class_pixels.tobytes() + source.embeddings.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
