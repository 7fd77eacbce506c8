"""The picture and its index mask, painted together so that they always agree."""

from __future__ import annotations

import cv2
import numpy as np

Color = tuple[float, float, float] | np.ndarray
Point = tuple[float, float] | np.ndarray
"""Column and row, in pixels."""

_FRACTION_BITS = 4


class Canvas:
    """An (H, W, 3) uint8 picture, RGB, and its (H, W) uint8 mask of class indices."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.picture = np.zeros((*size, 3), np.uint8)
        self.mask = np.zeros(size, np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.mask.shape[0], self.mask.shape[1]

    def fill(self, where: np.ndarray, color: np.ndarray, class_index: int) -> None:
        """Paint the pixels of `where` (H, W) bool with `color` (H, W, 3) in [0, 255]."""
        self.picture[where] = np.clip(color[where], 0, 255).astype(np.uint8)
        self.mask[where] = class_index

    def polygon(self, points: np.ndarray, color: Color, class_index: int | None) -> None:
        """Paint a polygon of (N, 2) points (column, row); without a class only the picture."""
        if not np.isfinite(points).all() or np.abs(points).max() > 2e4:
            return
        fixed = [np.round(points * (1 << _FRACTION_BITS)).astype(np.int32)]
        cv2.fillPoly(self.picture, fixed, _scalar(color), cv2.LINE_AA, _FRACTION_BITS)
        if class_index is not None:
            cv2.fillPoly(self.mask, fixed, (class_index,), cv2.LINE_8, _FRACTION_BITS)

    def ellipse(
        self,
        center: Point,
        radii: Point,
        color: Color,
        class_index: int | None,
        num_points: int = 24,
    ) -> None:
        """Paint an upright ellipse; `center` and `radii` as (column, row) pixels."""
        angle = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
        points = np.stack([np.cos(angle), np.sin(angle)], 1) * radii + center
        self.polygon(points, color, class_index)

    def line(
        self,
        start: Point,
        end: Point,
        width: float,
        color: Color,
        class_index: int | None,
    ) -> None:
        """Paint a line of `width` pixels, at least one, as a polygon."""
        first, last = np.asarray(start, float), np.asarray(end, float)
        along = last - first
        length = float(np.hypot(*along))
        if length < 1e-6:
            return
        across = np.array([-along[1], along[0]]) / length * max(width, 1.0) / 2
        self.polygon(
            np.stack([first + across, last + across, last - across, first - across]),
            color,
            class_index,
        )

    def darken(self, points: np.ndarray, strength: float, softness: float) -> None:
        """Multiply the picture inside a polygon by `1 - strength`, with a soft edge in pixels."""
        if not np.isfinite(points).all() or np.abs(points).max() > 2e4:
            return
        margin = int(3 * softness) + 2
        left, top = np.maximum(np.floor(points.min(0)).astype(int) - margin, 0)
        right, bottom = np.ceil(points.max(0)).astype(int) + margin
        right, bottom = min(right, self.size[1]), min(bottom, self.size[0])
        if right <= left or bottom <= top:
            return
        shade = np.zeros((bottom - top, right - left), np.float32)
        cv2.fillPoly(shade, [np.round(points - (left, top)).astype(np.int32)], (strength,))
        shade = cv2.GaussianBlur(shade, (0, 0), max(softness, 0.5))
        window = self.picture[top:bottom, left:right]
        window[:] = (window * (1 - shade[..., None])).astype(np.uint8)


class Noise:
    """Tileable cloud-like noise in [0, 1], looked up at any coordinates."""

    def __init__(self, rng: np.random.Generator, side: int = 256) -> None:
        total = np.zeros((side, side), np.float32)
        weight = 1.0
        for cells in (4, 8, 16, 32, 64, 128):
            coarse = rng.random((cells, cells), dtype=np.float32)
            tiled = np.pad(coarse, 2, mode="wrap")
            step = side // cells
            fine = cv2.resize(tiled, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)[
                2 * step : 2 * step + side, 2 * step : 2 * step + side
            ]
            total += weight * fine
            weight *= 0.62
        low, high = np.percentile(total, [1, 99])
        self._texture = np.clip((total - low) / (high - low), 0, 1)
        self._fine = rng.random((side, side), dtype=np.float32)

    def smooth(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Fractal noise; coordinates in texture cells, broadcast together."""
        return _lookup(self._texture, rows, columns)

    def grain(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """White noise with a grain of one texture cell."""
        return _lookup(self._fine, rows, columns)

    def cell(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """One random number per whole-numbered cell."""
        side = self._fine.shape[0]
        picked: np.ndarray = self._fine[
            np.mod(np.floor(rows), side).astype(np.intp),
            np.mod(np.floor(columns), side).astype(np.intp),
        ]
        return picked


def _lookup(texture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    side = texture.shape[0]
    rows, columns = np.broadcast_arrays(rows, columns)
    row_map = np.mod(rows, side).astype(np.float32)
    column_map = np.mod(columns, side).astype(np.float32)
    found: np.ndarray = cv2.remap(
        texture, column_map, row_map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    return found


def _scalar(color: Color) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in color)
    return red, green, blue
