"""Labelled images -> crops to learn from, and somebody who judges what is said about them.

The masks stay in here: who learns gets pixels and a judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import Crops, LabelledImage
from ralis_backend.core.learning.rewards.scores import (
    Judge,
    JudgedPixels,
    Noise,
    PixelJudge,
    correct_pixels,
    mean_ious,
)

J = TypeVar("J", covariant=True)


class JudgedCrops(Protocol[J]):
    """Crops, and a judge of class maps of them."""

    def batch(self) -> tuple[np.ndarray, J]:
        """(B, h, w, 3) uint8 crops, and who judges maps of these."""


class MapRater:
    """Gives each map one score: its mean IoU, as well as such a person can tell.

    Args:
        images: fully labelled; regions are where crops are drawn.
        config: how crops are drawn. `rarity_share` above 0 draws by the hidden classes.
        num_classes: C.
        seed: of the draws.
        noise: what the scores lack.

    Raises:
        ValueError: if no region holds a label, or a mask an unknown class.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        num_classes: int,
        *,
        seed: int,
        noise: Noise | None = None,
    ) -> None:
        self._crops = Crops(images, config, num_classes, np.random.default_rng(seed))
        self._num_classes = num_classes
        self._noise = noise or Noise()
        self._generator = torch.Generator().manual_seed(seed)

    def batch(self) -> tuple[np.ndarray, Judge]:
        """See `JudgedCrops.batch`."""
        pixels, hidden = self._crops.batch()
        masks = torch.from_numpy(hidden).long()

        def judge(maps: torch.Tensor) -> torch.Tensor:
            scores = mean_ious(maps, masks.to(maps.device), self._num_classes)
            return self._noise.disturbed(scores, self._generator)

        return pixels, judge


class PixelRater:
    """Tells of each pixel whether it is right; arguments and errors as of `MapRater`."""

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        num_classes: int,
        *,
        seed: int,
    ) -> None:
        self._crops = Crops(images, config, num_classes, np.random.default_rng(seed))

    def batch(self) -> tuple[np.ndarray, PixelJudge]:
        """See `JudgedCrops.batch`."""
        pixels, hidden = self._crops.batch()
        masks = torch.from_numpy(hidden).long()

        def judge(maps: torch.Tensor) -> JudgedPixels:
            return correct_pixels(maps, masks.to(maps.device))

        return pixels, judge
