"""Segmenter + partly labelled images -> the same segmenter, fitted, and its score.

Used by the worker and by the offline environment alike: both learn in the same way.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ralis_backend.core.features import predicted_mask
from ralis_backend.core.metrics import confusion_matrix
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import Segmenter

if TYPE_CHECKING:
    import segmentation_models_pytorch as smp


@dataclass(frozen=True)
class FinetuneConfig:
    """How to train. The defaults suit a CPU and a few dozen to a few hundred labelled regions.

    One step of the defaults takes about 0.3 s on one core with mobilenet_v2: 36 regions half a
    minute, 240 regions under two.

    steps: number of updates; None: `min_steps` plus `steps_per_region` for each labelled region,
        at most `max_steps`.
    batch_size: crops per update.
    crop_size: (height, width) of a crop in pixels; its context beyond the region has no labels.
    learning_rate: peak rate of the encoder; decoder and head learn `head_multiplier` times faster.
    optimizer, momentum: `adamw`, or `sgd` with this momentum.
    weight_decay, clip_norm: of the optimizer, and the largest norm of a gradient.
    schedule, warmup: cosine or poly (power 0.9) decay to zero after this share of the steps, or
        constant.
    scale_range: crops are enlarged by a factor drawn from this range.
    brightness, contrast, saturation: each changed by a factor of up to 1 +- this.
    rarity_share: share of crops drawn by the rarity of their classes, the others uniformly.
    class_weight_power: the loss of a class is weighted by its frequency to minus this; 0: equally.
    cache_bytes: decoded images are kept in memory up to this.
    """

    steps: int | None = None
    min_steps: int = 60
    steps_per_region: float = 1.2
    max_steps: int = 400
    batch_size: int = 4
    crop_size: tuple[int, int] = (192, 192)
    learning_rate: float = 3e-4
    head_multiplier: float = 4.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.95
    weight_decay: float = 1e-2
    clip_norm: float = 4.0
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup: float = 0.05
    scale_range: tuple[float, float] = (0.75, 1.5)
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    rarity_share: float = 0.5
    class_weight_power: float = 0.25
    cache_bytes: int = 512_000_000

    def num_steps(self, num_regions: int) -> int:
        """Updates for this many labelled regions."""
        if self.steps is not None:
            return self.steps
        return min(self.max_steps, self.min_steps + round(self.steps_per_region * num_regions))


@dataclass(frozen=True)
class LabelledImage:
    """An image with labels in some regions.

    `load` gives the image, (H, W, 3) uint8 RGB; `mask` is (H, W) uint8, VOID outside labels.
    """

    load: Callable[[], np.ndarray]
    mask: np.ndarray
    regions: tuple[Region, ...]


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


def finetune(
    segmenter: Segmenter,
    images: Sequence[LabelledImage],
    config: FinetuneConfig | None = None,
    *,
    seed: int,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingSummary:
    """Train `segmenter` in place on the labelled regions of `images`.

    The same seed gives the same weights on a CPU. `should_stop` is asked before each step; when
    it says yes, the segmenter stays as trained so far.

    Raises:
        ValueError: if no region holds a label, or a mask an unknown class.
        FloatingPointError: if the loss is not finite; the segmenter is then of no use.
    """
    config = config or FinetuneConfig()
    _check_config(config)
    samples = _Samples(images, config, segmenter.num_classes, np.random.default_rng(seed))
    steps = config.num_steps(len(samples))
    class_weights = torch.from_numpy(samples.class_weights()).to(segmenter.device)
    optimizer = _optimizer(segmenter.model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _learning_rate_factor(config, steps))
    losses: list[float] = []
    start = time.monotonic()
    is_stopped = False
    with _training(segmenter, config, seed):
        for step in range(1, steps + 1):
            if should_stop is not None and should_stop():
                is_stopped = True
                break
            pixels, masks = samples.batch()  # (B, h, w, 3) uint8, (B, h, w) uint8
            loss = _loss(segmenter, pixels, masks, class_weights)
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss became {losses[-1]} in step {step} of {steps}; lower learning_rate "
                    f"({config.learning_rate}) or start from an earlier version"
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(segmenter.model.parameters(), config.clip_norm)
            optimizer.step()
            schedule.step()
            if on_progress is not None:
                elapsed = time.monotonic() - start
                on_progress(
                    TrainingProgress(
                        step=step,
                        steps=steps,
                        epoch=step * config.batch_size / len(samples),
                        loss=losses[-1],
                        percent=100 * step / steps,
                        seconds_left=elapsed / step * (steps - step),
                    )
                )
    if losses:
        segmenter.is_pretrained = True
    return TrainingSummary(
        steps=len(losses),
        seconds=time.monotonic() - start,
        final_loss=float(np.mean(losses[-max(1, len(losses) // 10) :])) if losses else 0.0,
        epochs=len(losses) * config.batch_size / len(samples),
        is_stopped=is_stopped,
    )


def evaluate(segmenter: Segmenter, images: Iterable[LabelledImage]) -> np.ndarray:
    """(C, C) int64 confusion matrix over all labelled pixels of `images`."""
    matrix = np.zeros((segmenter.num_classes, segmenter.num_classes), np.int64)
    for image in images:
        prediction = predicted_mask(segmenter.forward_pass(image.load()))  # (H, W)
        matrix += confusion_matrix(prediction, image.mask, segmenter.num_classes)
    return matrix


def _check_config(config: FinetuneConfig) -> None:
    if config.batch_size < 1 or min(config.crop_size) < 1 or config.num_steps(0) < 1:
        raise ValueError(
            f"batch_size {config.batch_size}, crop_size {config.crop_size} and steps "
            f"{config.num_steps(0)} must be at least 1"
        )
    if any(side % 32 for side in config.crop_size):
        raise ValueError(f"crop_size {config.crop_size} must be multiples of 32, the stride")


class _Samples:
    """Batches of crops around labelled regions, augmented."""

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        num_classes: int,
        rng: np.random.Generator,
    ) -> None:
        self.config = config
        self.rng = rng
        self.cache = _ImageCache(config.cache_bytes)
        self.regions: list[tuple[LabelledImage, Region]] = []
        counts = []
        for image in images:
            for region in image.regions:
                pixels = np.bincount(image.mask[region.slices].ravel(), minlength=VOID + 1)[:VOID]
                if pixels[num_classes:].any():
                    raise ValueError(
                        f"class index {int(np.flatnonzero(pixels)[-1])} in {region} of a mask, "
                        f"expected indices below {num_classes}, the segmenter's classes, or VOID"
                    )
                if pixels.any():
                    self.regions.append((image, region))
                    counts.append(pixels[:num_classes])
        if not self.regions:
            raise ValueError(
                "no region holds a labelled pixel; label at least one region before training"
            )
        self.counts = np.array(counts, np.float64)  # (R, C)
        self.chances = self._chances()

    def __len__(self) -> int:
        return len(self.regions)

    def class_weights(self) -> np.ndarray:
        """(C,) float32 weights of classes in the loss, 1 on average over labelled pixels."""
        frequencies = self.counts.sum(axis=0) / self.counts.sum()
        weights = np.maximum(frequencies, 1e-3) ** -self.config.class_weight_power
        return np.asarray(weights / (weights * frequencies).sum(), np.float32)

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, h, w, 3) uint8 crops and (B, h, w) uint8 masks."""
        drawn = self.rng.choice(len(self), size=self.config.batch_size, p=self.chances)
        crops, masks = zip(*(self._sample(*self.regions[index]) for index in drawn), strict=True)
        return np.stack(crops), np.stack(masks)

    def _chances(self) -> np.ndarray:
        """(R,) chance of each region: partly equal, partly by the rarity of its classes."""
        frequencies = self.counts.sum(axis=0) / self.counts.sum()
        shares = self.counts / self.counts.sum(axis=1, keepdims=True)
        rarity = (shares / (frequencies + 0.005)).sum(axis=1)
        mixed: np.ndarray = (1 - self.config.rarity_share) / len(self.regions) + (
            self.config.rarity_share * rarity / rarity.sum()
        )
        return np.asarray(mixed / mixed.sum())

    def _sample(self, image: LabelledImage, region: Region) -> tuple[np.ndarray, np.ndarray]:
        pixels = self.cache.get(image)
        if pixels.shape[:2] != image.mask.shape:
            raise ValueError(
                f"the image has {pixels.shape[:2]} pixels, its mask {image.mask.shape} (height, "
                "width); the image file changed after it was labelled"
            )
        height, width = self.config.crop_size
        scale = self.rng.uniform(*self.config.scale_range)
        rows = self._window(region.row, region.height, round(height / scale), len(pixels))
        cols = self._window(region.col, region.width, round(width / scale), pixels.shape[1])
        crop = cv2.resize(_cut(pixels, rows, cols, None), (width, height))
        mask = cv2.resize(
            _cut(image.mask, rows, cols, VOID), (width, height), interpolation=cv2.INTER_NEAREST
        )
        if self.rng.random() < 0.5:
            crop, mask = crop[:, ::-1], mask[:, ::-1]
        return self._jittered(crop), np.ascontiguousarray(mask)

    def _window(self, start: int, length: int, size: int, limit: int) -> tuple[int, int]:
        """(start, stop) of `size` around or within a region, inside the image where it fits."""
        ends = sorted((start, start + length - size))
        drawn = int(self.rng.integers(ends[0], ends[1] + 1))
        drawn = min(max(drawn, 0), limit - size) if size <= limit else (limit - size) // 2
        return drawn, drawn + size

    def _jittered(self, crop: np.ndarray) -> np.ndarray:
        config = self.config
        brightness, contrast, saturation = (
            1 + strength * self.rng.uniform(-1, 1)
            for strength in (config.brightness, config.contrast, config.saturation)
        )
        values = crop.astype(np.float32) * np.float32(brightness)
        grey = values.mean(axis=2, keepdims=True)
        values = grey + (values - grey) * np.float32(saturation)
        mean = grey.mean()
        values = mean + (values - mean) * np.float32(contrast)
        return np.asarray(np.clip(values, 0, 255), np.uint8)


class _ImageCache:
    """Decoded images, the least recently used dropped beyond a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.images: OrderedDict[int, np.ndarray] = OrderedDict()

    def get(self, image: LabelledImage) -> np.ndarray:
        key = id(image)
        if key in self.images:
            self.images.move_to_end(key)
            return self.images[key]
        pixels = image.load()
        self.images[key] = pixels
        self.num_bytes += pixels.nbytes
        while self.num_bytes > self.max_bytes and len(self.images) > 1:
            self.num_bytes -= self.images.popitem(last=False)[1].nbytes
        return pixels


def _cut(
    values: np.ndarray, rows: tuple[int, int], cols: tuple[int, int], fill: int | None
) -> np.ndarray:
    """A window that may reach beyond the array: filled with `fill`, or with the nearest pixel."""
    height, width = values.shape[:2]
    before = (max(0, -rows[0]), max(0, -cols[0]))
    after = (max(0, rows[1] - height), max(0, cols[1] - width))
    window = values[max(0, rows[0]) : rows[1], max(0, cols[0]) : cols[1]]
    if not any(before + after):
        return window
    sides = ((before[0], after[0]), (before[1], after[1]), (0, 0))[: values.ndim]
    if fill is None:
        return np.pad(window, sides, mode="edge")
    return np.pad(window, sides, constant_values=fill)


def _loss(
    segmenter: Segmenter, pixels: np.ndarray, masks: np.ndarray, class_weights: torch.Tensor
) -> torch.Tensor:
    """Weighted cross-entropy, mean over the labelled pixels; 0 where there are none."""
    inputs = segmenter.normalised(pixels).to(memory_format=torch.channels_last)
    targets = torch.from_numpy(masks).to(segmenter.device, torch.int64)
    is_cuda = segmenter.device.type == "cuda"
    with torch.autocast(segmenter.device.type, torch.bfloat16, enabled=is_cuda):
        logits = segmenter.model(inputs)
    total = functional.cross_entropy(
        logits.float(), targets, class_weights, ignore_index=VOID, reduction="sum"
    )
    return total / (targets != VOID).sum().clamp(min=1)  # "mean" is 0 / 0 on a crop all VOID


def _optimizer(model: smp.base.SegmentationModel, config: FinetuneConfig) -> torch.optim.Optimizer:
    encoder = list(model.encoder.parameters())
    in_encoder = {id(parameter) for parameter in encoder}
    others = [each for each in model.parameters() if id(each) not in in_encoder]
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
            torch.cuda.manual_seed(seed)
        model.train()
        # Statistics of a few crops are worse than ImageNet's, and one crop may have none at all.
        frozen = model if config.batch_size == 1 else model.encoder
        if segmenter.is_pretrained or config.batch_size == 1:
            for module in frozen.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        try:
            yield
        finally:
            model.eval()
            model.zero_grad(set_to_none=True)
