"""Segmenter + objectives -> the same segmenter, fitted. Knows nothing of labels."""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.objective import Objective
from ralis_backend.core.segmenter import Segmenter


@dataclass(frozen=True)
class TrainingProgress:
    """Where the training stands after a step; `epoch` counts looks at each region, from 0."""

    step: int
    steps: int
    epoch: float
    loss: float
    percent: float
    seconds_left: float


@dataclass(frozen=True)
class TrainingSummary:
    """What was done; `final_loss` is the mean of the last tenth of the steps.

    `facts` are those of the objectives.
    """

    steps: int
    seconds: float
    final_loss: float
    epochs: float
    is_stopped: bool
    facts: Mapping[str, Any] = field(default_factory=dict)


def train(
    segmenter: Segmenter,
    objectives: Sequence[Objective],
    config: FinetuneConfig,
    *,
    steps: int,
    steps_per_epoch: float,
    seed: int,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingSummary:
    """Train `segmenter` in place on the weighted sum of the objectives' losses.

    Args:
        segmenter: of any kind.
        objectives: what it learns from; their draws are their own.
        config: the optimizer and its schedule.
        steps: number of updates.
        steps_per_epoch: after how many of them everything was seen once, for the progress.
        seed: of dropout and what else draws from torch's global generators.
        on_progress: told after each step.
        should_stop: asked before each step; the segmenter then stays as trained so far.

    Raises:
        FloatingPointError: if the loss is not finite; the segmenter is then of no use.
    """
    training = Training(segmenter, objectives, config, _learning_rate_factor(config, steps))
    losses: list[float] = []
    start = time.monotonic()
    with training.begun(seed):
        for step in range(1, steps + 1):
            if should_stop is not None and should_stop():
                break
            losses.append(training.update())
            if on_progress is not None:
                seconds = time.monotonic() - start
                on_progress(_progress(step, steps, step / steps_per_epoch, losses[-1], seconds))
    return TrainingSummary(
        steps=len(losses),
        seconds=time.monotonic() - start,
        final_loss=float(np.mean(losses[-max(1, len(losses) // 10) :])) if losses else 0.0,
        epochs=len(losses) / steps_per_epoch,
        is_stopped=len(losses) < steps,
        facts=training.facts(),
    )


class Training:
    """A segmenter in training: what must outlast a pause between two updates.

    Args:
        segmenter: trained in place.
        objectives: what it learns from, a weighted sum of losses; they may be changed between
            two updates.
        config: the optimizer.
        learning_rate: of each update, counted from 0, as a factor of those in `config`.

    Attributes:
        num_updates: so far.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        objectives: Sequence[Objective],
        config: FinetuneConfig,
        learning_rate: Callable[[int], float],
    ) -> None:
        self.objectives = objectives
        self.num_updates = 0
        self._segmenter, self._config = segmenter, config
        self._optimizer = _optimizer(segmenter, config)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, learning_rate)
        self._begun: Sequence[Objective] = ()

    @contextmanager
    def begun(self, seed: int) -> Iterator[None]:
        """Updates are made within; afterwards the segmenter can be looked at.

        seed: of dropout and what else draws from torch's global generators.
        """
        with _training(self._segmenter, self._config, seed):
            if self._begun is not self.objectives:
                for objective in self.objectives:
                    objective.begin(self._segmenter)
                self._begun = self.objectives
            yield

    def update(self) -> float:
        """One update; the loss before it.

        Raises:
            FloatingPointError: if the loss is not finite; nothing was changed by it.
        """
        step = self.num_updates + 1
        losses = [each.weight * each.loss(self._segmenter, step) for each in self.objectives]
        loss = torch.stack(losses).sum()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise FloatingPointError(
                f"the loss became {value} in step {step}; lower learning_rate "
                f"({self._config.learning_rate}) or start from an earlier version"
            )
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._segmenter.model.parameters(), self._config.clip_norm)
        self._optimizer.step()
        self._schedule.step()
        for objective in self.objectives:
            objective.after_step(self._segmenter, step)
        self._segmenter.is_pretrained = True
        self.num_updates = step
        return value

    def facts(self) -> dict[str, Any]:
        """What the objectives want kept with what was trained, JSON."""
        return dict(ChainMap(*(dict(each.facts()) for each in self.objectives)))


def _progress(step: int, steps: int, epoch: float, loss: float, seconds: float) -> TrainingProgress:
    return TrainingProgress(
        step=step,
        steps=steps,
        epoch=epoch,
        loss=loss,
        percent=100 * step / steps,
        seconds_left=seconds / step * (steps - step),
    )


def _optimizer(segmenter: Segmenter, config: FinetuneConfig) -> torch.optim.Optimizer:
    encoder = [each for module in segmenter.encoder_modules() for each in module.parameters()]
    in_encoder = {id(parameter) for parameter in encoder}
    others = [each for each in segmenter.model.parameters() if id(each) not in in_encoder]
    groups = [
        {"params": encoder, "lr": config.learning_rate},
        {"params": others, "lr": config.learning_rate * config.head_multiplier},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def _learning_rate_factor(config: FinetuneConfig, steps: int) -> Callable[[int], float]:
    if config.schedule == "constant":
        return lambda step: 1.0
    warmup = max(1, round(config.warmup * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, steps - warmup)
        if config.schedule == "poly":
            return float(max(0.0, 1 - done) ** 0.9)
        return float(0.5 * (1 + np.cos(np.pi * min(1.0, done))))

    return factor


@contextmanager
def _training(segmenter: Segmenter, config: FinetuneConfig, seed: int) -> Iterator[None]:
    """Training mode within, with randomness of its own; evaluation mode afterwards."""
    model, device = segmenter.model, segmenter.device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # dropout knows the global generators only
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):  # the seed is that of the current device alone
                torch.cuda.manual_seed(seed)
        model.train()
        _freeze_statistics(segmenter, config)
        try:
            yield
        finally:
            model.eval()
            model.zero_grad(set_to_none=True)


def _freeze_statistics(segmenter: Segmenter, config: FinetuneConfig) -> None:
    """Statistics of a few crops are worse than ImageNet's, and one crop may have none at all."""
    parts: Sequence[nn.Module] = segmenter.encoder_modules() if segmenter.is_pretrained else ()
    if config.batch_size == 1:
        parts = (segmenter.model,)
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
