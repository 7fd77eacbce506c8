"""Generated pictures of several kinds with exact masks: label sets that nobody has tuned on.

`grey`: noisy grey textures, four balanced classes. `cells`: bright discs on a dark ground, two
frequent classes and a rare one. `streets`: the demo's scenes, twelve strongly imbalanced classes.

    python -m benchmarks.kinds --out .cache/kinds
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ralis_backend.cli.demo.scenes import CLASSES, generate
from ralis_backend.core.palette import distinct_color, rgb
from ralis_backend.offline.datasets import DatasetClass, write_dataset

Picture = tuple[np.ndarray, np.ndarray]
"""(H, W, 3) uint8 RGB, and (H, W) uint8 class indices."""

CLASS_NAMES = {
    "grey": ("stripes", "dots", "clouds", "plain"),
    "cells": ("ground", "small", "large", "rare"),
    "streets": tuple(name for name, _ in CLASSES),
}
"""Kinds -> their classes."""
SIZE = (270, 240)
SPLITS = {"d_s": 12, "d_t": 120, "d_v": 240, "d_r": 40, "test": 120}
_RARE = 0.04
"""Share of discs that are of the rare class."""


def main() -> None:
    """Write each kind that is not there yet as a dataset below `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".cache/kinds"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for kind, names in CLASS_NAMES.items():
        if not (out / kind).is_dir():
            write_dataset(out / kind, _classes(names), _images(kind))
        print(out / kind)


def _images(kind: str) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    for seed, (split, count) in enumerate(SPLITS.items()):
        for index, picture in enumerate(pictures(kind, count, seed)):
            yield split, f"{split}/{index:03d}", *picture


def _classes(names: tuple[str, ...]) -> list[DatasetClass]:
    colors = dict(CLASSES)
    return [
        DatasetClass(name, rgb(colors[name]) if name in colors else distinct_color(index))
        for index, name in enumerate(names)
    ]


def pictures(kind: str, count: int, seed: int) -> Iterator[Picture]:
    """`count` pictures of `SIZE`; each is the same whatever the count."""
    if kind == "streets":
        yield from ((scene.image, scene.mask) for scene in generate(count, SIZE, seed))
        return
    draw: Callable[[np.random.Generator], Picture] = _grey if kind == "grey" else _cells
    for index in range(count):
        yield draw(np.random.default_rng([seed, index]))


def _grey(rng: np.random.Generator) -> Picture:
    """Patches of stripes, dots, clouds and plain grey around random points, all as bright."""
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    count = int(rng.integers(5, 10))
    centers = rng.uniform((0, 0), SIZE, (count, 2))
    distance = np.hypot(rows[..., None] - centers[:, 0], cols[..., None] - centers[:, 1])
    mask = rng.integers(4, size=count)[distance.argmin(axis=2)].astype(np.uint8)
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 14)
    across = rows * np.sin(angle) + cols * np.cos(angle)
    textures = np.stack(
        [
            np.sin(2 * np.pi * across / period),
            np.sin(2 * np.pi * rows / period) * np.sin(2 * np.pi * cols / period) * 1.4,
            _clouds(rng, period),
            np.zeros(SIZE, np.float32),
        ]
    )
    chosen = np.take_along_axis(textures, mask[None].astype(np.int64), axis=0)[0]
    grey = 120 + 30 * chosen + rng.normal(0, 25, SIZE)
    return _rgb(np.repeat(grey[..., None], 3, axis=2)), mask


def _cells(rng: np.random.Generator) -> Picture:
    """Discs of two sizes; a rare one has a dark core."""
    image = 40 + 10 * _clouds(rng, 30)[..., None] + np.zeros(3)
    mask = np.zeros(SIZE, np.uint8)
    for _ in range(int(rng.integers(25, 60))):
        kind = 3 if rng.random() < _RARE else int(rng.integers(1, 3))
        radius = int(rng.integers(5, 9)) if kind == 1 else int(rng.integers(9, 14))
        center = int(rng.integers(SIZE[1])), int(rng.integers(SIZE[0]))
        light = float(rng.uniform(120, 200))
        cv2.circle(image, center, radius, (light, light * 0.8, light * 0.9), -1)
        cv2.circle(mask, center, radius, kind, -1)
        if kind == 3:
            cv2.circle(image, center, radius // 2, (60.0, 50.0, 60.0), -1)
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0))
    return _rgb(blurred + rng.normal(0, 15, (*SIZE, 1))), mask


def _clouds(rng: np.random.Generator, scale: float) -> np.ndarray:
    small = rng.normal(size=(int(SIZE[0] / scale) + 2, int(SIZE[1] / scale) + 2))
    clouds: np.ndarray = cv2.resize(
        small.astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_CUBIC
    )
    return clouds


def _rgb(image: np.ndarray) -> np.ndarray:
    rgb: np.ndarray = np.clip(image, 0, 255).astype(np.uint8)
    return rgb


if __name__ == "__main__":
    main()
