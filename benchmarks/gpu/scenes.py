"""Made-up images with masks: blocks of a colour for each class, under noise."""

from __future__ import annotations

import numpy as np

Scene = tuple[np.ndarray, np.ndarray]
"""(H, W, 3) uint8 RGB and (H, W) uint8 class indices."""

_BLOCK = 40


def scenes(count: int, size: tuple[int, int], num_classes: int, seed: int = 0) -> list[Scene]:
    """`count` images of `size` (height, width); a class has one colour in all of them."""
    rng = np.random.default_rng(seed)
    colors = np.random.default_rng(0).integers(40, 216, (num_classes, 3))
    return [_scene(rng, size, colors) for _ in range(count)]


def _scene(rng: np.random.Generator, size: tuple[int, int], colors: np.ndarray) -> Scene:
    height, width = size
    coarse = rng.integers(len(colors), size=(-(-height // _BLOCK), -(-width // _BLOCK)))
    blocks = coarse.astype(np.uint8).repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)
    mask = np.ascontiguousarray(blocks[:height, :width])
    noise = rng.integers(-40, 40, (height, width, 3))
    return (colors[mask] + noise).astype(np.uint8), mask
