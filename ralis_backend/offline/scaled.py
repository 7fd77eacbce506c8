"""Samples of a dataset, shown smaller than they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ralis_backend.offline.datasets import Sample


@dataclass(frozen=True)
class ScaledSample(Sample):
    """A sample shown smaller: `scale` times its height and width."""

    scale: float = 1.0

    def image(self) -> np.ndarray:
        """(h, w, 3) uint8, RGB."""
        image = super().image()
        return np.asarray(cv2.resize(image, self._size(image), interpolation=cv2.INTER_AREA))

    def mask(self) -> np.ndarray:
        """(h, w) uint8 class indices."""
        mask = super().mask()
        return np.asarray(cv2.resize(mask, self._size(mask), interpolation=cv2.INTER_NEAREST))

    def _size(self, pixels: np.ndarray) -> tuple[int, int]:
        height, width = (max(1, round(side * self.scale)) for side in pixels.shape[:2])
        return width, height


def scaled(samples: Sequence[Sample], scale: float) -> list[Sample]:
    """The samples, shown smaller."""
    if scale == 1:
        return list(samples)
    return [ScaledSample(it.key, it.image_path, it.mask_path, it.rule, scale) for it in samples]
