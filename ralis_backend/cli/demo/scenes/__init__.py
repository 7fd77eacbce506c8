"""Street scenes drawn by ourselves: textured pictures with exact masks, for demos and tests.

Strongly imbalanced on purpose, as streets are: road, sky and buildings fill most of a picture,
signs, pedestrians and bicycles are small and rare. Deterministic by seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ralis_backend.cli.demo.scenes import objects, street
from ralis_backend.cli.demo.scenes.camera import Camera
from ralis_backend.cli.demo.scenes.canvas import Canvas, Noise

CLASSES: tuple[tuple[str, str], ...] = (
    ("sky", "#4682B4"),
    ("building", "#A0522D"),
    ("road", "#804080"),
    ("pavement", "#F423E8"),
    ("grass", "#98FB98"),
    ("tree", "#2E8B2E"),
    ("fence", "#BE9999"),
    ("pole", "#FF8C00"),
    ("sign", "#DCDC00"),
    ("car", "#1E50DC"),
    ("pedestrian", "#DC143C"),
    ("bicycle", "#00CED1"),
)
"""Name and colour of each class; a mask's values are positions in it."""

_INDEX = {name: index for index, (name, _) in enumerate(CLASSES)}


@dataclass(frozen=True)
class Scene:
    """A picture (H, W, 3) uint8, RGB, and its mask (H, W) uint8 of positions in `CLASSES`."""

    image: np.ndarray
    mask: np.ndarray


def generate(count: int, size: tuple[int, int] = (360, 480), seed: int = 0) -> Iterator[Scene]:
    """`count` scenes of `size` (height, width); scene i is the same whatever the count.

    Raises:
        ValueError: if the size is too small to draw a street in.
    """
    if min(size) < 32:
        raise ValueError(f"scene size {size} is too small to draw a street, need at least 32 x 32")
    for index in range(count):
        yield _scene(size, np.random.default_rng([seed, index]))


def _scene(size: tuple[int, int], rng: np.random.Generator) -> Scene:
    canvas, noise = Canvas(size), Noise(rng)
    camera = Camera.random(size, rng)
    light, view = street.Light.random(rng), street.Street.random(rng)
    surroundings = (canvas, camera, view, light, noise)
    street.paint_sky(canvas, camera, light, noise, _INDEX["sky"])
    street.paint_skyline(*surroundings, _INDEX["building"], _INDEX["tree"])
    street.paint_ground(*surroundings, _INDEX["road"], _INDEX["pavement"], _INDEX["grass"])
    street.paint_facades(*surroundings, _INDEX["building"])
    street.paint_fences(*surroundings, _INDEX["fence"])
    scenery = objects.Scenery(canvas, camera, light, noise, _INDEX)
    for _, draw in objects.populate(view, rng):
        draw(scenery)
    return Scene(objects.soften(canvas.picture, light, rng), canvas.mask)
