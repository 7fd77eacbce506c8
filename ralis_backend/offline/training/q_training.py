"""Games, a buffer and a double DQN -> a query network that picks well.

The loop reads as the RALIS paper's: play the game, store what happened, improve the network. Every
few episodes everything is written down, so that a killed run goes on as if nothing happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ralis_backend.core import checkpoints
from ralis_backend.core.weights import below
from ralis_backend.offline.training.parts import Parts
from ralis_backend.offline.training.play import Observation, Schedule
from ralis_backend.offline.training.trainer import OnProgress, Progress

EVALUATION_SEED = 1_000_000


class Log(Protocol):
    """What TensorBoard's writer offers and this module needs."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """One point of a curve."""


@dataclass(frozen=True)
class _Step:
    number: int
    reward: float
    loss: float | None
    score: float


class QTraining:
    """A training by Q-learning, to the end of which `run` plays.

    Args:
        parts: what it is put together from.
        config: how long, and what is kept.
        seed: of everything random.
        path: of the checkpoint; where one is, the training goes on from it, to the bit.
        facts: what its result depends on.

    Raises:
        ValueError: if the checkpoint is of another training.
    """

    def __init__(
        self,
        parts: Parts,
        config: Schedule,
        seed: int,
        path: Path,
        facts: Mapping[str, Any],
    ) -> None:
        self.parts, self.config, self.seed = parts, config, seed
        self._path, self._facts = path, facts
        self._rng = np.random.default_rng([seed, 1])
        self._episode = 0
        self._curve: list[dict[str, Any]] = []
        self._evaluations: list[dict[str, Any]] = []
        self._past_rewards: list[float] = []
        self._best: dict[str, torch.Tensor] | None = None
        self._seconds = 0.0
        self._resume()
        self._resumed_at = self._episode, self._seconds
        self._started = time.monotonic()

    def run(self, log: Log | None = None, on_progress: OnProgress = lambda _: None) -> None:
        """Play all episodes.

        Args:
            log: told of every step and episode.
            on_progress: likewise, for people.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        config = self.config
        while self._episode < config.episodes:
            for step in self._play_episode():
                on_progress(self._progress(step))
                if log is not None:
                    self._write(log, step)
            if config.evaluate_every and self._episode % config.evaluate_every == 0:
                self._evaluate()
            if self._episode % config.checkpoint_every == 0 or self._episode == config.episodes:
                self._save()

    def network_state(self) -> dict[str, torch.Tensor]:
        """The weights of the network that the configuration keeps."""
        kept = self._best if self.config.keep == "best" else None
        return self.parts.dqn.network.state_dict() if kept is None else kept

    def results(self) -> dict[str, Any]:
        """What came of it, for the record."""
        kept = None
        if self.config.keep == "best" and self._evaluations:
            kept = max(self._evaluations, key=lambda it: it["mean_score"])["episode"]
        return {
            "kept_episode": kept or self._episode,
            "seconds": round(self._seconds, 1),
            "torch": torch.__version__,
            "device": self.parts.device,
            "episodes": self._curve,
            "evaluations": self._evaluations,
        }

    def _play_episode(self) -> Iterator[_Step]:
        """One episode, yielding after each AL step."""
        environment, dqn, started = self.parts.environment, self.parts.dqn, time.monotonic()
        seed = int(np.random.default_rng([self.seed, 2, self._episode]).integers(2**31))
        observation, _ = environment.reset(seed=seed)
        self.parts.buffer.begin(observation)
        dqn.begin_episode()
        steps, is_over = list[_Step](), False
        while not is_over:
            picked = self._pick(observation)
            observation, reward, is_over, _, info = environment.step(picked)
            credits = self._credits(info["rewards"])
            slot = self.parts.buffer.add(picked, credits, observation, is_over)
            self.parts.sampler.added(slot)
            loss = self._improve()
            dqn.end_step()
            steps.append(_Step(len(steps) + 1, reward, loss, info["score"]))
            yield steps[-1]
        self._episode += 1
        self._curve.append(self._summary(steps, time.monotonic() - started))

    def _pick(self, observation: Observation) -> np.ndarray:
        """(K,) the learner's picks, or whose it is to begin."""
        warm_up = self.parts.warm_up
        if warm_up is not None and self._episode < warm_up.episodes:
            return warm_up.pick()
        return self.parts.dqn.act(observation, self._rng)

    def _credits(self, credits: np.ndarray) -> np.ndarray:
        if not self.config.does_shuffle_rewards:
            return credits
        self._past_rewards += [float(it) for it in credits]
        shuffled: np.ndarray = self._rng.choice(self._past_rewards, len(credits))
        return shuffled

    def _improve(self) -> float | None:
        """The updates after one AL step; their mean loss, None before there is enough to learn."""
        config, parts = self.config.dqn, self.parts
        is_due = parts.dqn.num_steps_done % config.update_every == 0
        if not is_due or len(parts.buffer) < max(1, config.learning_starts):
            return None
        losses = []
        for _ in range(config.updates_per_step):
            draw = parts.sampler.draw(config.batch_size, self._rng)
            weights = None if draw.weights is None else draw.weights.to(parts.device)
            update = parts.dqn.update(parts.buffer.take(draw.slots, draw.pools), weights)
            parts.sampler.learned(draw, update.errors)
            losses.append(update.loss)
        return float(np.mean(losses))

    def _evaluate(self) -> None:
        """Play greedily, always the same games; remember the best network."""
        scores = [self._played_greedily(game) for game in range(self.config.evaluation_episodes)]
        mean = float(np.mean(scores))
        if self._best is None or mean > max(it["mean_score"] for it in self._evaluations):
            state = self.parts.dqn.network.state_dict()
            self._best = {name: value.detach().clone() for name, value in state.items()}
        self._evaluations.append(
            {"episode": self._episode, "mean_score": round(mean, 6), "scores": scores}
        )

    def _played_greedily(self, game: int) -> float:
        """The mean score over a game."""
        environment = self.parts.evaluation
        observation, _ = environment.reset(seed=EVALUATION_SEED + game)
        is_over, scores = False, []
        while not is_over:
            picked = self.parts.dqn.values(observation).argmax(axis=1)
            observation, _, is_over, _, info = environment.step(picked)
            scores.append(info["score"])
        return float(np.mean(scores))

    def _summary(self, steps: list[_Step], seconds: float) -> dict[str, Any]:
        """A point of the curve."""
        losses = [step.loss for step in steps if step.loss is not None]
        return {
            "episode": self._episode,
            "reward": round(sum(step.reward for step in steps), 4),
            "score": round(steps[-1].score, 5),
            "loss": round(float(np.mean(losses)), 6) if losses else None,
            "epsilon": round(self.parts.dqn.epsilon, 4),
            "seconds": round(seconds, 2),
        }

    def _progress(self, step: _Step) -> Progress:
        steps, episodes = self.parts.environment.num_steps, self.config.episodes
        done = self._episode + step.number / steps
        per_episode = (time.monotonic() - self._started) / (done - self._resumed_at[0])
        loss = "–" if step.loss is None else f"{step.loss:.3f}"
        facts = (
            f"episode {self._episode + 1} of {episodes}, step {step.number} of {steps}, reward "
            f"{step.reward:+.2f}, loss {loss}, epsilon {self.parts.dqn.epsilon:.2f}"
        )
        return Progress(done, episodes, step.score, facts, per_episode * (episodes - done))

    def _write(self, log: Log, step: _Step) -> None:
        dqn = self.parts.dqn
        log.add_scalar("step/reward", step.reward, dqn.num_steps_done)
        log.add_scalar("step/score", step.score, dqn.num_steps_done)
        log.add_scalar("step/epsilon", dqn.epsilon, dqn.num_steps_done)
        if step.loss is not None:
            log.add_scalar("step/loss", step.loss, dqn.num_steps_done)
        if step.number == self.parts.environment.num_steps:
            log.add_scalar("episode/last_score", step.score, self._episode + 1)

    def _save(self) -> None:
        """Everything that the next episode depends on."""
        parts, seconds = self.parts, time.monotonic() - self._started
        self._seconds = self._resumed_at[1] + seconds
        tensors, numbers = parts.dqn.state_dict()
        tensors |= _under("replay/", parts.buffer.state_dict())
        tensors |= _under("sampler/", parts.sampler.state_dict())
        tensors |= _under("best/", self._best or {})
        state = {
            "episode": self._episode,
            "dqn": numbers,
            "rng": self._rng.bit_generator.state,
            "curve": self._curve,
            "evaluations": self._evaluations,
            "past_rewards": self._past_rewards,
            "seconds": self._seconds,
        }
        checkpoints.save(self._path, tensors, state, self._facts)

    def _resume(self) -> None:
        kept = checkpoints.load(self._path, self._facts)
        if kept is None:
            return
        tensors, state = kept
        self.parts.dqn.load_state_dict(tensors, state["dqn"])
        self.parts.buffer.load_state_dict(below("replay/", tensors))
        self.parts.sampler.load_state_dict(below("sampler/", tensors))
        self._best = below("best/", tensors) or None
        self._rng.bit_generator.state = state["rng"]
        self._episode = state["episode"]
        self._curve, self._evaluations = state["curve"], state["evaluations"]
        self._past_rewards, self._seconds = state["past_rewards"], state["seconds"]


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
