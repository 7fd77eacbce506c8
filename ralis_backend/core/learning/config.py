"""How a segmenter is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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

    def check(self) -> None:
        """Raise `ValueError` if the settings cannot work."""
        if self.batch_size < 1 or min(self.crop_size) < 1 or self.num_steps(0) < 1:
            raise ValueError(
                f"batch_size {self.batch_size}, crop_size {self.crop_size} and steps "
                f"{self.num_steps(0)} must be at least 1"
            )
        if any(side % 32 for side in self.crop_size):
            raise ValueError(f"crop_size {self.crop_size} must be multiples of 32, the stride")

    def num_steps(self, num_regions: int) -> int:
        """Updates for this many labelled regions."""
        if self.steps is not None:
            return self.steps
        return min(self.max_steps, self.min_steps + round(self.steps_per_region * num_regions))
