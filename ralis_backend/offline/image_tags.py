"""Weak supervision to compare rewards with: of an image it is known which classes it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.learning.crops import Crops
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.offline.lessons import Material

_PIXELS = 0.05
"""A class is there as much as this share of pixels, the most probable ones, says."""


class ImageTags:
    """See `Objective`: multiple-instance learning from the classes of each crop.

    A crop shows a class as probably as the mean over its most probable 5 % of pixels; binary
    cross-entropy with the tags. After "From image-level to pixel-level labeling with convolutional
    networks", arXiv:1411.6228, which pools with a soft maximum.

    Args:
        material: images whose masks give the tags.

    Raises:
        ValueError: if no region holds a label, or a mask an unknown class.
    """

    weight = 1.0

    def __init__(self, material: Material) -> None:
        rng = np.random.default_rng(material.seed)
        self._crops = Crops(material.images, material.finetune, material.num_classes, rng)

    def begin(self, segmenter: Segmenter) -> None:
        """See `Objective.begin`; nothing to prepare."""

    def loss(self, segmenter: Segmenter, step: int) -> torch.Tensor:
        """See `Objective.loss`."""
        pixels, masks = self._crops.batch()
        tags = _tags(masks, segmenter.num_classes).to(segmenter.device)  # (B, C)
        logits = segmenter.logits(segmenter.normalised(pixels))
        probabilities = logits.softmax(dim=1).flatten(2)  # (B, C, pixels)
        count = max(1, round(_PIXELS * probabilities.shape[2]))
        shown = probabilities.topk(count, dim=2).values.mean(dim=2)  # (B, C)
        return functional.binary_cross_entropy(shown.clamp(1e-6, 1 - 1e-6), tags)

    def after_step(self, segmenter: Segmenter, step: int) -> None:
        """See `Objective.after_step`; nothing to follow."""

    def facts(self) -> Mapping[str, Any]:
        """See `Objective.facts`; none."""
        return {}


def _tags(masks: np.ndarray, num_classes: int) -> torch.Tensor:
    """(B, C) float32: 1 where a crop's mask holds the class."""
    counts = [np.bincount(mask[mask != VOID], minlength=num_classes) for mask in masks]
    return torch.from_numpy(np.array(counts) > 0).float()
