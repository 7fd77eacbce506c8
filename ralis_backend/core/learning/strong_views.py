"""Crops -> the same crops in other colours, blurred, and mixed, with their labels."""

from __future__ import annotations

import numpy as np
import torch

from ralis_backend.core.learning.config import UnlabelledConfig

_BLUR_SIGMA = (0.1, 2.0)
_BLUR_SIZE = 9
_BOX_AREA = (0.02, 0.4)
_BOX_RATIO = (0.3, 1 / 0.3)


class StrongViews:
    """How the segmenter sees what the teacher labels. As in UniMatch, arXiv:2208.09910.

    Args:
        settings: how strong.
        rng: of the boxes; colours draw from torch's global generator.
    """

    def __init__(self, settings: UnlabelledConfig, rng: np.random.Generator) -> None:
        from torchvision.transforms import v2  # longer to import than torch itself

        blur = v2.GaussianBlur(_BLUR_SIZE, _BLUR_SIGMA)
        self._colours = v2.Compose(
            [
                v2.ColorJitter(*[settings.colour] * 3),
                v2.RandomGrayscale(settings.grey),
                v2.RandomApply([blur], settings.blur),
            ]
        )
        self._cutmix = settings.cutmix
        self._rng = rng

    def of(self, pixels: np.ndarray, targets: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
        """Other crops and targets of the same shapes.

        Args:
            pixels: (B, H, W, 3) uint8.
            targets: (B, H, W), of any kind.
        """
        strong = np.stack([self._coloured(crop) for crop in pixels])
        mixed = targets.clone()
        sources, sources_of_targets = strong.copy(), targets
        for index in range(len(pixels)):
            if len(pixels) == 1 or self._rng.random() >= self._cutmix:
                continue
            other = (index + int(self._rng.integers(1, len(pixels)))) % len(pixels)
            rows, cols = self._box(*pixels.shape[1:3])
            strong[index, rows, cols] = sources[other, rows, cols]
            mixed[index, rows, cols] = sources_of_targets[other, rows, cols]
        return strong, mixed

    def _coloured(self, crop: np.ndarray) -> np.ndarray:
        channels_first = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return np.asarray(self._colours(channels_first).numpy().transpose(1, 2, 0))

    def _box(self, height: int, width: int) -> tuple[slice, slice]:
        """Anywhere within, of a drawn share of the area and a drawn ratio of its sides."""
        area = self._rng.uniform(*_BOX_AREA) * height * width
        ratio = np.exp(self._rng.uniform(*np.log(_BOX_RATIO)))
        rows = min(height, max(1, round(float(np.sqrt(area * ratio)))))
        cols = min(width, max(1, round(float(np.sqrt(area / ratio)))))
        row = int(self._rng.integers(0, height - rows + 1))
        col = int(self._rng.integers(0, width - cols + 1))
        return slice(row, row + rows), slice(col, col + cols)
