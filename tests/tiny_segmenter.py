from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import nn

from ralis_backend.core.segmenter import ForwardPass, SegmenterSpec
from ralis_backend.core.segmenter.network import NetworkSegmenter


class TinySegmenter(NetworkSegmenter):
    """Three convolutions, as another package might bring them: no smp network, no encoder."""

    kind = "tiny"
    stride = 4
    offers = frozenset(("embeddings", "mirrored"))
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

    def forward_pass(self, image: np.ndarray, maps: Collection[str] = ()) -> ForwardPass:
        if missing := sorted(set(maps) - self.offers):
            raise ValueError(f"a tiny segmenter offers no {', '.join(missing)}")
        height, width = image.shape[:2]
        with torch.inference_mode():
            logits = self.model(self._padded(image))
        probabilities = logits[0].softmax(dim=0)[:, :height, :width]
        embeddings, stride = self.stages(image)[1] if "embeddings" in maps else (None, 4)
        mirrored = None
        if "mirrored" in maps:
            mirrored = self.forward_pass(image[:, ::-1]).probabilities.flip(2)
        return ForwardPass(probabilities, embeddings, stride, mirrored=mirrored)

    def stages(self, image: np.ndarray) -> Sequence[tuple[torch.Tensor, int]]:
        with torch.inference_mode():
            fine = self.model[:2](self._padded(image))
            return [(fine[0], 2), (self.model[2:4](fine)[0], 4)]

    def _padded(self, image: np.ndarray) -> torch.Tensor:
        down, right = -image.shape[0] % self.stride, -image.shape[1] % self.stride
        pixels = self.normalised(image)[None]
        return nn.functional.pad(pixels, (0, right, 0, down), mode="replicate")
