"""A fully labelled dataset and hyper-parameters -> a trained query policy.

The loop reads as the paper's: play the labelling game, store what happened, improve the network.
Every few episodes everything is written down, so that a killed run goes on as if nothing happened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ralis_backend.core import weights
from ralis_backend.core.files import write_json
from ralis_backend.core.policy import PolicySpec, QueryNetwork, RalisPolicy
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.training.buffer import ReplayBuffer
from ralis_backend.offline.training.config import TrainingConfig
from ralis_backend.offline.training.dqn import DoubleDqn
from ralis_backend.offline.training.environment import LabellingEnv
from ralis_backend.simulation import Simulation

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
EVALUATION_SEED = 1_000_000


@dataclass(frozen=True)
class Progress:
    """Where a training stands after an AL step; `episode` counts from 1."""

    episode: int
    episodes: int
    step: int
    steps: int
    reward: float
    loss: float | None
    epsilon: float
    score: float
    seconds_left: float


class Log(Protocol):
    """What TensorBoard's writer offers and this module needs."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """One point of a curve."""


def train(
    dataset: Dataset,
    simulation: Simulation,
    config: TrainingConfig,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    log: Log | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> RalisPolicy:
    """Train a policy, and write `OUT.safetensors` and `OUT.json` (settings, curves, versions).

    A run that was interrupted goes on from its last checkpoint in `OUT.training/`, to the bit.

    Args:
        dataset: gives the classes and the counts for the record.
        simulation: the pool and the segmenter, made of the dataset's `d_t`, `d_s` and `d_r`.
        config: hyper-parameters.
        out: path of the policy without a suffix.
        seed: of everything random.
        device: where the query network learns.
        log: told of every step and episode.
        on_progress: likewise, for people.

    Raises:
        ValueError: if the environment's rules do not fit the pool, or the checkpoint another run.
        FloatingPointError: if the loss is not finite.
    """
    run = _Run(dataset, simulation, config, out, seed, device)
    started, done_before = time.monotonic(), run.episode
    while run.episode < config.episodes:
        for step in run.play_episode():
            _report(run, step, started, done_before, log, on_progress)
        if config.evaluate_every and run.episode % config.evaluate_every == 0:
            run.evaluate()
        if run.episode % config.checkpoint_every == 0 or run.episode == config.episodes:
            run.seconds += time.monotonic() - started - run.seconds_of_this_call
            run.seconds_of_this_call = time.monotonic() - started
            run.save_checkpoint()
    policy = run.policy()
    policy.save(out.with_suffix(".safetensors"))
    write_json(out.with_suffix(".json"), run.results())
    return policy


@dataclass(frozen=True)
class _Step:
    number: int
    reward: float
    loss: float | None
    score: float


class _Run:
    """One training while it runs."""

    def __init__(
        self,
        dataset: Dataset,
        simulation: Simulation,
        config: TrainingConfig,
        out: Path,
        seed: int,
        device: str,
    ) -> None:
        self.config, self.seed, self.device = config, seed, device
        self._folder = out.with_name(f"{out.name}.training")
        self.environment = LabellingEnv(simulation, config.environment, device)
        plain = replace(config.environment, credit="shared", baseline="none", smoothing=1)
        self._evaluation = LabellingEnv(simulation, plain, device)
        self.spec = _spec(dataset, simulation, config)
        with torch.random.fork_rng(devices=[]):  # the initialisers know the global generator only
            torch.default_generator.manual_seed(seed)
            network = QueryNetwork(simulation.num_classes, simulation.num_state_regions)
        self.dqn = DoubleDqn(network.to(device), config.dqn)
        self.replay = ReplayBuffer(
            config.dqn.replay_capacity,
            self.environment.shapes["state"],
            self.environment.shapes["actions"],
            num_steps=config.dqn.num_steps,
            discount=config.dqn.discount,
            device=device,
        )
        self._rng = np.random.default_rng([seed, 1])
        self._facts = _facts(dataset, simulation, config, seed)
        self.episode = 0
        self.curve: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.past_rewards: list[float] = []
        self.seconds = self.seconds_of_this_call = 0.0
        self._best: dict[str, torch.Tensor] | None = None
        self._resume()

    def play_episode(self) -> Iterator[_Step]:
        """One episode, yielding after each AL step."""
        started = time.monotonic()
        seed = int(np.random.default_rng([self.seed, 2, self.episode]).integers(2**31))
        observation, _ = self.environment.reset(seed=seed)
        self.replay.begin(observation)
        self.dqn.begin_episode()
        total, losses, is_over, number = 0.0, list[float](), False, 0
        while not is_over:
            picked = self.dqn.act(observation, self._rng)
            observation, reward, is_over, _, info = self.environment.step(picked)
            self.replay.add(picked, self._credits(info["rewards"]), observation, is_over)
            loss = self._improve()
            self.dqn.end_step()
            total, number = total + reward, number + 1
            losses += [] if loss is None else [loss]
            yield _Step(number, reward, loss, info["score"])
        self.episode += 1
        self.curve.append(
            {
                "episode": self.episode,
                "reward": round(total, 4),
                "score": round(info["score"], 5),
                "loss": round(float(np.mean(losses)), 6) if losses else None,
                "epsilon": round(self.dqn.epsilon, 4),
                "seconds": round(time.monotonic() - started, 2),
            }
        )

    def evaluate(self) -> None:
        """Play greedily, always the same games; remember the best network."""
        scores = []
        for game in range(self.config.evaluation_episodes):
            observation, _ = self._evaluation.reset(seed=EVALUATION_SEED + game)
            is_over, played = False, []
            while not is_over:
                picked = self.dqn.values(observation).argmax(axis=1)
                observation, _, is_over, _, info = self._evaluation.step(picked)
                played.append(info["score"])
            scores.append(float(np.mean(played)))
        mean = float(np.mean(scores))
        if self._best is None or mean > max(it["mean_score"] for it in self.evaluations):
            state = self.dqn.network.state_dict()
            self._best = {name: value.detach().clone() for name, value in state.items()}
        self.evaluations.append(
            {"episode": self.episode, "mean_score": round(mean, 6), "scores": scores}
        )

    def policy(self) -> RalisPolicy:
        """The policy that the configuration keeps."""
        network = QueryNetwork(len(self.spec.classes), self.spec.num_state_regions)
        kept = self._best if self.config.keep == "best" else None
        network.load_state_dict(self.dqn.network.state_dict() if kept is None else kept)
        return RalisPolicy(self.spec, network)

    def results(self) -> dict[str, Any]:
        """Everything needed to repeat the training, and what came of it."""
        kept = None
        if self.config.keep == "best" and self.evaluations:
            kept = max(self.evaluations, key=lambda it: it["mean_score"])["episode"]
        return self._facts | {
            "kept_episode": kept or self.episode,
            "seconds": round(self.seconds, 1),
            "torch": torch.__version__,
            "device": self.device,
            "episodes": self.curve,
            "evaluations": self.evaluations,
        }

    def save_checkpoint(self) -> None:
        """Everything that the next episode depends on."""
        tensors, numbers = self.dqn.state_dict()
        tensors |= {f"replay/{name}": value for name, value in self.replay.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in (self._best or {}).items()}
        metadata = {
            "kind": "policy-training",
            "facts": self._facts,
            "episode": self.episode,
            "dqn": numbers,
            "rng": self._rng.bit_generator.state,
            "curve": self.curve,
            "evaluations": self.evaluations,
            "past_rewards": self.past_rewards,
            "seconds": self.seconds,
        }
        weights.save(self._folder / CHECKPOINT, tensors, metadata)

    def _resume(self) -> None:
        path = self._folder / CHECKPOINT
        if not path.is_file():
            return
        tensors, metadata = weights.load(path)
        if metadata.get("facts") != json.loads(json.dumps(self._facts)):
            raise ValueError(
                f"{path} belongs to a training with other settings; delete its folder to begin "
                "anew, or choose another --out"
            )
        self.dqn.load_state_dict(tensors, metadata["dqn"])
        self.replay.load_state_dict(weights.below("replay/", tensors))
        self._best = weights.below("best/", tensors) or None
        self._rng.bit_generator.state = metadata["rng"]
        self.episode = metadata["episode"]
        self.curve, self.evaluations = metadata["curve"], metadata["evaluations"]
        self.past_rewards, self.seconds = metadata["past_rewards"], metadata["seconds"]

    def _credits(self, credits: np.ndarray) -> np.ndarray:
        if not self.config.does_shuffle_rewards:
            return credits
        self.past_rewards += [float(it) for it in credits]
        shuffled: np.ndarray = self._rng.choice(self.past_rewards, len(credits))
        return shuffled

    def _improve(self) -> float | None:
        """The updates after one AL step; their mean loss, None before there is enough to learn."""
        config = self.config.dqn
        if len(self.replay) < max(1, config.learning_starts):
            return None
        losses = [
            self.dqn.update(self.replay.sample(config.batch_size, self._rng))
            for _ in range(config.updates_per_step)
        ]
        return float(np.mean(losses))


def _report(
    run: _Run,
    step: _Step,
    started: float,
    done_before: int,
    log: Log | None,
    on_progress: Callable[[Progress], None],
) -> None:
    config = run.config.environment
    steps = (config.budget - config.initial_regions) // config.regions_per_step
    done = run.episode - done_before + step.number / steps
    seconds_left = (time.monotonic() - started) / done * (run.config.episodes - done_before - done)
    on_progress(
        Progress(
            episode=run.episode + 1,
            episodes=run.config.episodes,
            step=step.number,
            steps=steps,
            reward=step.reward,
            loss=step.loss,
            epsilon=run.dqn.epsilon,
            score=step.score,
            seconds_left=seconds_left,
        )
    )
    if log is not None:
        total = run.dqn.num_steps_done
        log.add_scalar("step/reward", step.reward, total)
        log.add_scalar("step/score", step.score, total)
        log.add_scalar("step/epsilon", run.dqn.epsilon, total)
        if step.loss is not None:
            log.add_scalar("step/loss", step.loss, total)
        if step.number == steps:
            log.add_scalar("episode/last_score", step.score, run.episode + 1)


def _spec(dataset: Dataset, simulation: Simulation, config: TrainingConfig) -> PolicySpec:
    rules = config.environment
    return PolicySpec(
        classes=dataset.class_names,
        region_size=config.region_size,
        num_state_regions=simulation.num_state_regions,
        variant=rules.variant,
        unlabelled=rules.unlabelled,
        regions_per_step=rules.regions_per_step,
        pool_size=rules.pool_size,
        training={"dataset": dataset.name, "config": _plain(config)},
    )


def _facts(
    dataset: Dataset, simulation: Simulation, config: TrainingConfig, seed: int
) -> dict[str, Any]:
    """What a training depends on; two runs with the same facts give the same policy."""
    keys = json.dumps({name: list(keys) for name, keys in dataset.splits.items()})
    return {
        "dataset": dataset.name,
        "classes": list(dataset.class_names),
        "splits_sha256": hashlib.sha256(keys.encode()).hexdigest(),
        "num_regions": {
            "pool": len(simulation.class_pixels),
            "state_set": simulation.num_state_regions,
        },
        "num_images": {name: len(keys) for name, keys in dataset.splits.items()},
        "seed": seed,
        "config": _plain(config),
    }


def _plain(config: TrainingConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return content
