from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import nn

from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.core.segmenter.dropout import bald_of
from ralis_backend.core.segmenter.network import NetworkSegmenter


class TinySegmenter(NetworkSegmenter):
    """Three convolutions, as another package might bring them: no smp network, no encoder."""

    kind = "tiny"
    stride = 4
    offers = frozenset(("bald", "embeddings", "mirrored"))
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def build(self, spec: SegmenterSpec) -> tuple[nn.Module, bool]:
        layers = (
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, spec.num_classes, 1),
            nn.Upsample(scale_factor=4),
        )
        return nn.Sequential(*layers), False

    def look(self, pixels: torch.Tensor, maps: Collection[str]) -> dict[str, torch.Tensor]:
        decoded = self.model[:4](pixels)
        seen = {"probabilities": self.model[4:](decoded)[0].softmax(dim=0)}
        if "embeddings" in maps:
            seen["embeddings"] = decoded[0]
        if "bald" in maps:
            seen["bald"] = bald_of(self.model[4], decoded)
        return seen

    def stages(self, image: np.ndarray) -> Sequence[tuple[torch.Tensor, int]]:
        down, right = -image.shape[0] % self.stride, -image.shape[1] % self.stride
        with torch.inference_mode():
            pixels = nn.functional.pad(self.normalised(image)[None], (0, right, 0, down))
            fine = self.model[:2](pixels)
            return [(fine[0], 2), (self.model[2:4](fine)[0], 4)]
