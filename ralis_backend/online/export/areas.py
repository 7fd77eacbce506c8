"""Index masks -> connected areas and the polygons around them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise

import cv2
import numpy as np


def connected_areas(mask: np.ndarray, classes: Collection[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Class index and (H, W) bool of each connected area of these classes, corners included."""
    for class_index in np.unique(mask).tolist():
        if class_index not in classes:
            continue
        count, labels = cv2.connectedComponents((mask == class_index).astype(np.uint8))
        for area in range(1, count):
            yield class_index, labels == area


def outline(area: np.ndarray) -> np.ndarray:
    """One polygon, (N, 2) as (x, y) pixels, around a connected (H, W) bool area.

    It runs a quarter of a pixel inside, so that an area one pixel wide has a surface and readers
    that count the border in draw the area itself. Holes are joined to it by a seam.
    """
    outer, holes = _contours(area)
    for hole in holes:
        outer = _joined(outer, hole)
    return (outer + 0.5) / 2


def polygons(area: np.ndarray) -> list[np.ndarray]:
    """Polygons without holes that together are exactly a connected (H, W) bool area.

    Each (N, 2) int, as (x, y), runs along the pixels' edges: from 0 to the width and the height.
    An area with holes is cut into pieces at a column of each hole, since the union of polygons, as
    which COCO readers take a list, has no other way to leave a hole out.
    """
    _, holes = _contours(area)
    cuts = sorted({int(hole[:, 0].min() // 2) + 1 for hole in holes})
    edges = [0, *cuts, area.shape[1]]
    found = []
    for left, right in pairwise(edges):
        strip = np.ascontiguousarray(area[:, left:right], np.uint8)
        count, labels, boxes, _ = cv2.connectedComponentsWithStats(strip, connectivity=4)
        for piece in range(1, count):
            x, y, width, height = boxes[piece, :4].tolist()
            inside = labels[y : y + height, x : x + width] == piece
            found.append(_edge(inside) + np.array([left + x, y]))
    return found


def _contours(area: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The outer contour of an area and those of its holes, on a copy of twice the size."""
    doubled = np.repeat(np.repeat(area.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = [c[:, 0] for c, h in zip(contours, hierarchy[0], strict=True) if h[3] < 0]
    holes = [c[:, 0] for c, h in zip(contours, hierarchy[0], strict=True) if h[3] >= 0]
    return max(outer, key=len), holes


def _edge(area: np.ndarray) -> np.ndarray:
    """The corners of the pixels' edges around an area without holes, (N, 2) as (x, y)."""
    outer, _ = _contours(area)
    corners = (outer + 1) // 2  # the doubled copy's outermost pixels, even or odd -> their edges
    before = np.roll(corners, 1, axis=0)
    corners = corners[(corners != before).any(axis=1)]
    before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
    is_straight = ((before == corners) & (corners == after)).any(axis=1)
    return np.asarray(corners[~is_straight])


def _joined(polygon: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The polygon with a detour around the hole, from the corner nearest to it and back."""
    distance = np.abs(polygon[:, None] - hole[None]).sum(axis=2)
    corner, start = np.unravel_index(distance.argmin(), distance.shape)
    detour = np.roll(hole, -start, axis=0)
    return np.concatenate([polygon[: corner + 1], detour, detour[:1], polygon[corner:]])
