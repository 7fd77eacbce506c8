"""A pinhole camera above a street: metres -> pixels, and pixels -> the planes they see.

World: x to the right, y up from the ground, z forward, in metres; the camera stands at x = z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEAREST_M = 0.4
FARTHEST_M = 1e4


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and looks; `horizon` and `center` are the vanishing point's pixel."""

    height: int
    width: int
    horizon: float
    center: float
    focal: float
    eye_m: float

    @staticmethod
    def random(size: tuple[int, int], rng: np.random.Generator) -> Camera:
        """A driver's or a pedestrian's view, looking down the street."""
        height, width = size
        return Camera(
            height=height,
            width=width,
            horizon=height * rng.uniform(0.40, 0.52),
            center=width * rng.uniform(0.36, 0.64),
            focal=(height * 4 / 3 + width) / 2 * rng.uniform(0.85, 1.05),
            eye_m=rng.uniform(1.35, 2.1),
        )

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (N, 3) as pixels (N, 2): column, row; points behind are pulled in front."""
        depth = np.maximum(points[:, 2], NEAREST_M)
        columns = self.center + self.focal * points[:, 0] / depth
        rows = self.horizon + self.focal * (self.eye_m - points[:, 1]) / depth
        return np.stack([columns, rows], axis=1)

    def scale(self, depth_m: float) -> float:
        """Pixels per metre at a depth."""
        return self.focal / max(depth_m, NEAREST_M)

    @cached_property
    def right(self) -> np.ndarray:
        """(1, W) sideways slope of each pixel's ray."""
        columns = np.arange(self.width, dtype=np.float32)[None]
        return (columns + 0.5 - self.center) / np.float32(self.focal)

    @cached_property
    def down(self) -> np.ndarray:
        """(H, 1) downward slope of each pixel's ray."""
        rows = np.arange(self.height, dtype=np.float32)[:, None]
        return (rows + 0.5 - self.horizon) / np.float32(self.focal)

    def ground(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the rays meet the ground: x (H, W) and depth (H, 1), `FARTHEST_M` if never."""
        depth = _distance(self.eye_m, self.down)
        return (self.right * depth).astype(np.float32), depth

    def wall(self, x_m: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the rays meet the plane x = `x_m`: depth (1, W) as for `ground`, and y (H, W)."""
        depth = _distance(abs(x_m), self.right * np.sign(x_m))
        return depth, (self.eye_m - self.down * depth).astype(np.float32)


def _distance(offset_m: float, slope: np.ndarray) -> np.ndarray:
    """Depth at which a ray of this slope is `offset_m` off its start."""
    depth = np.where(slope > offset_m / FARTHEST_M, offset_m / np.maximum(slope, 1e-9), FARTHEST_M)
    return depth.astype(np.float32)
