"""How a segmenter learns from rewards."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ralis_backend.core.learning.rewards.actions import SAMPLERS
from ralis_backend.core.learning.rewards.advantages import (
    CREDITS,
    NORMALISATIONS,
    PIXEL_CREDITS,
)


@dataclass(frozen=True)
class RewardConfig:
    """The hyper-parameters. None is the paper's, which were not to be had: all are [D].

    num_maps: action maps drawn of each crop, G, at least 2.
    strides: sides of the cells in which an image's actions are drawn, in pixels, falling: PSR. One
        alone is no progress: PSR is off. Rewards of pixels are drawn for each pixel.
    patience: updates after which mean scores are compared.
    min_gain: the next stride follows when the mean score gained less than this.
    sampler: how a cell is one action: `pooled`, by its mean logits; `shared-noise`: parts of 4
        pixels are drawn each by its own logits, and the noise of the draw is the cell's.
    credit: how an image's scores become advantages of actions: `psd`, or `score`, the same for all
        of a map.
    pixel_credit: the same of a pixel's rewards: `plain`, or `relative` to the pixel's mean.
    normalisation: `synchronised` is SyncAN; `per-image` takes each image by itself.
    updates_per_draw: updates with the same maps and scores; from the second on the loss is clipped.
    clip: how far the ratio of new and old probability counts.
    kl_weight: of the divergence from the reference; 0: there is none.
    entropy_weight: of the policy's entropy.
    """

    num_maps: int = 8
    strides: tuple[int, ...] = (64, 32, 16, 8, 4)
    patience: int = 500
    min_gain: float = 0.005
    sampler: str = "pooled"
    credit: str = "psd"
    pixel_credit: str = "relative"
    normalisation: str = "synchronised"
    updates_per_draw: int = 1
    clip: float = 0.2
    kl_weight: float = 0.05
    entropy_weight: float = 0.001

    def check(self) -> None:
        """Raise `ValueError` if the settings cannot work."""
        if self.num_maps < 2:
            raise ValueError(f"num_maps is {self.num_maps}, expected 2 or more: maps are compared")
        if not self.strides or any(
            stride < 1 or stride <= finer
            for stride, finer in zip(self.strides, (*self.strides[1:], 0), strict=True)
        ):
            raise ValueError(f"strides {self.strides} must fall and be at least 1, as (32, 16, 8)")
        if self.patience < 1 or self.updates_per_draw < 1:
            raise ValueError(
                f"patience {self.patience} and updates_per_draw {self.updates_per_draw} must be at "
                "least 1"
            )
        if min(self.clip, self.kl_weight, self.entropy_weight) < 0:
            raise ValueError(
                f"clip {self.clip}, kl_weight {self.kl_weight} and entropy_weight "
                f"{self.entropy_weight} must not be negative"
            )
        _known("sampler", self.sampler, SAMPLERS)
        _known("credit", self.credit, CREDITS)
        _known("pixel_credit", self.pixel_credit, PIXEL_CREDITS)
        _known("normalisation", self.normalisation, NORMALISATIONS)


def _known(what: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise ValueError(f"unknown {what} '{name}'; expected one of {', '.join(names)}")
