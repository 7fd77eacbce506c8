"""Segmenter + objectives -> the same segmenter, fitted. Knows nothing of labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
    """What was done; `final_loss` is the mean of the last tenth of the steps."""

    steps: int
    seconds: float
    final_loss: float
    epochs: float
    is_stopped: bool


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
    optimizer = _optimizer(segmenter, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _learning_rate_factor(config, steps))
    losses: list[float] = []
    start = time.monotonic()
    with _training(segmenter, config, seed):
        for objective in objectives:
            objective.begin(segmenter)
        for step in range(1, steps + 1):
            if should_stop is not None and should_stop():
                break
            loss = _total(objectives, segmenter, step)
            losses.append(_finite(loss, step, steps, config))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(segmenter.model.parameters(), config.clip_norm)
            optimizer.step()
            schedule.step()
            for objective in objectives:
                objective.after_step(segmenter, step)
            if on_progress is not None:
                seconds = time.monotonic() - start
                on_progress(_progress(step, steps, step / steps_per_epoch, losses[-1], seconds))
    if losses:
        segmenter.is_pretrained = True
    return TrainingSummary(
        steps=len(losses),
        seconds=time.monotonic() - start,
        final_loss=float(np.mean(losses[-max(1, len(losses) // 10) :])) if losses else 0.0,
        epochs=len(losses) / steps_per_epoch,
        is_stopped=len(losses) < steps,
    )


def _total(objectives: Sequence[Objective], segmenter: Segmenter, step: int) -> torch.Tensor:
    return torch.stack([each.weight * each.loss(segmenter, step) for each in objectives]).sum()


def _progress(step: int, steps: int, epoch: float, loss: float, seconds: float) -> TrainingProgress:
    return TrainingProgress(
        step=step,
        steps=steps,
        epoch=epoch,
        loss=loss,
        percent=100 * step / steps,
        seconds_left=seconds / step * (steps - step),
    )


def _finite(loss: torch.Tensor, step: int, steps: int, config: FinetuneConfig) -> float:
    value = float(loss.detach())
    if not np.isfinite(value):
        raise FloatingPointError(
            f"the loss became {value} in step {step} of {steps}; lower learning_rate "
            f"({config.learning_rate}) or start from an earlier version"
        )
    return value


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
