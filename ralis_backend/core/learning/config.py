"""How a segmenter is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class UnlabelledConfig:
    """How pixels that nobody labelled are learned from, beside painted ones.

    Sources: "FixMatch", arXiv:2001.07685; "UniMatch", arXiv:2208.09910; the constants are ours.

    weight: of this loss beside that of painted pixels.
    decay: of the teacher, see `MovingAverage`.
    threshold: a pixel counts where the teacher gives its class at least this probability; less
        for classes that it is less sure of on average, so that rare ones do not vanish.
    warm_up, ramp: updates without this loss, and those in which its weight grows to the whole; see
        `within`.
    own_crops: crops per update around labelled regions: most of a crop lies outside its region.
    pool_crops: crops per update from anywhere in any image.
    colour, grey, blur, cutmix: how what the network sees differs from what the teacher sees:
        brightness, contrast and saturation by up to 1 +- this, and with these chances grey,
        blurred, with a box of another crop.
    feature_dropout: share of the encoder's channels that a second look at the teacher's own view
        lacks; 0: no second look.
    """

    weight: float = 1.0
    decay: float = 0.99
    threshold: float = 0.8
    warm_up: int = 100
    ramp: int = 200
    own_crops: int = 2
    pool_crops: int = 2
    colour: float = 0.5
    grey: float = 0.2
    blur: float = 0.5
    cutmix: float = 0.5
    feature_dropout: float = 0.0

    def check(self) -> None:
        """Raise `ValueError` if the settings cannot work."""
        if min(self.own_crops, self.pool_crops) < 0 or not self.own_crops + self.pool_crops:
            raise ValueError(
                f"own_crops {self.own_crops} and pool_crops {self.pool_crops} must not be "
                "negative, and one of them at least 1"
            )
        chances = {name: getattr(self, name) for name in ("grey", "blur", "cutmix")}
        if wrong := {name: it for name, it in chances.items() if not 0 <= it <= 1}:
            raise ValueError(f"{wrong}: expected chances in [0, 1]")
        if not 0 < self.threshold <= 1 or not 0 <= self.feature_dropout < 1:
            raise ValueError(
                f"threshold {self.threshold} must be in (0, 1], feature_dropout "
                f"{self.feature_dropout} in [0, 1)"
            )

    def within(self, steps: int) -> UnlabelledConfig:
        """The same for so many updates: warm-up and ramp take a third of them each at most."""
        third = steps // 3
        return replace(self, warm_up=min(third, self.warm_up), ramp=min(third, self.ramp))

    def ramp_at(self, step: int) -> float:
        """Share of the weight after so many updates, in [0, 1]."""
        return min(1.0, max(0.0, (step - self.warm_up) / max(1, self.ramp)))


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
    unlabelled: how pixels without a label are learned from, where that is asked for.
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
    unlabelled: UnlabelledConfig = UnlabelledConfig()

    def check(self) -> None:
        """Raise `ValueError` if the settings cannot work."""
        if self.batch_size < 1 or min(self.crop_size) < 1 or self.num_steps(0) < 1:
            raise ValueError(
                f"batch_size {self.batch_size}, crop_size {self.crop_size} and steps "
                f"{self.num_steps(0)} must be at least 1"
            )
        if any(side % 32 for side in self.crop_size):
            raise ValueError(f"crop_size {self.crop_size} must be multiples of 32, the stride")

    def within(self, steps: int) -> FinetuneConfig:
        """The same for so many updates: what takes its time takes a share of them."""
        return replace(self, unlabelled=self.unlabelled.within(steps))

    def num_steps(self, num_regions: int) -> int:
        """Updates for this many labelled regions."""
        if self.steps is not None:
            return self.steps
        return min(self.max_steps, self.min_steps + round(self.steps_per_region * num_regions))
