"""Learning from what annotators painted: cross-entropy on crops around labelled regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import Crops, ImageCache, LabelledImage
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import Segmenter


class PaintedRegions:
    """See `Objective`.

    Args:
        images: whose regions are learned.
        config: how crops are drawn and classes weighted.
        num_classes: C; no mask may hold another class.
        seed: of the draws.
        cache: of decoded images, see `Cutter`.

    Raises:
        ValueError: if no region holds a label, or a mask an unknown class.
    """

    weight = 1.0

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        num_classes: int,
        *,
        seed: int,
        cache: ImageCache | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        self._crops = Crops(images, config, num_classes, rng, cache=cache)
        self._class_weights = torch.from_numpy(self._crops.class_weights())

    def __len__(self) -> int:
        return len(self._crops)

    def begin(self, segmenter: Segmenter) -> None:
        """See `Objective.begin`."""
        self._class_weights = self._class_weights.to(segmenter.device)

    def loss(self, segmenter: Segmenter, step: int) -> torch.Tensor:
        """See `Objective.loss`."""
        pixels, masks = self._crops.batch()  # (B, h, w, 3) uint8, (B, h, w) uint8
        return cross_entropy(segmenter, pixels, masks, self._class_weights)

    def after_step(self, segmenter: Segmenter, step: int) -> None:
        """See `Objective.after_step`; nothing to follow."""

    def facts(self) -> Mapping[str, Any]:
        """See `Objective.facts`; none."""
        return {}


def cross_entropy(
    segmenter: Segmenter, pixels: np.ndarray, masks: np.ndarray, class_weights: torch.Tensor
) -> torch.Tensor:
    """Weighted cross-entropy, mean over the labelled pixels; 0 where there are none.

    Args:
        segmenter: whose logits are judged.
        pixels: (B, H, W, 3) uint8 RGB, sides multiples of the stride.
        masks: (B, H, W) uint8, VOID where there is no label.
        class_weights: (C,) float32 on the segmenter's device.
    """
    targets = torch.from_numpy(masks).to(segmenter.device, torch.int64)
    logits = segmenter.logits(segmenter.normalised(pixels))
    total = functional.cross_entropy(
        logits, targets, class_weights, ignore_index=VOID, reduction="sum"
    )
    return total / (targets != VOID).sum().clamp(min=1)  # "mean" is 0 / 0 on a crop all VOID
