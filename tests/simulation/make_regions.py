"""Labelled regions of three easily told classes, without images."""

from __future__ import annotations

import numpy as np
import torch

from ralis_backend.simulation.heads import Points
from ralis_backend.simulation.points import RegionPoints


def labelled(num_images: int = 16, per_image: int = 10) -> RegionPoints:
    """Regions of 2 x 2 points of one class each; one region in ten shows the third class."""
    generator = torch.Generator().manual_seed(0)
    count = num_images * per_image
    classes = torch.arange(count) % 2
    classes[::10] = 2
    corners = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    features = corners[classes][:, None] + torch.randn((count, 4, 3), generator=generator)
    pixels = np.zeros((count, 4), np.int64)
    pixels[np.arange(count), classes.numpy()] = 64
    means = features.mean(dim=1).numpy()
    return RegionPoints(
        Points(features.bfloat16(), classes[:, None].expand(-1, 4).to(torch.uint8)),
        (2, 2),
        (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32),
        pixels,
        np.repeat(np.arange(num_images), per_image),
        (8, 8),
        np.zeros((count, 2), np.float32),
    )
