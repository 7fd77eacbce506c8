"""Masks -> how many clicks it would take to outline what each region shows.

As in region-based work that counts clicks, a region costs the vertices of the polygons inside it,
where they meet the region's border included, and one click to name each segment: CEREALS
(Mackowiak et al., arXiv:1810.09726), Cai et al., "Revisiting Superpixels for Active Learning in
Semantic Segmentation with Realistic Annotation Costs" (CVPR 2021). They had the annotators'
polygons; here polygons are fitted to the masks, so numbers compare strategies, not papers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from ralis_backend.core import weights
from ralis_backend.core.regions import VOID, grid
from ralis_backend.offline.datasets import Sample

TOLERANCE = 2.0
"""A polygon may miss the true boundary by so many pixels."""
MIN_SEGMENT_PIXELS = 10
"""Smaller segments are noise of the mask, which nobody outlines."""


def polygon_clicks(mask: np.ndarray) -> int:
    """Clicks to label one region.

    The region is filled with the class of its largest segment by one click; every other segment
    is outlined by a polygon and named by one click. Void is left as it is.

    Args:
        mask: (h, w) uint8 class indices of the region, VOID where not annotated.
    """
    segments = [
        (int(segment.sum()), segment)
        for value in np.unique(mask)
        if value != VOID
        for segment in _segments(mask == value)
    ]
    segments = [each for each in segments if each[0] >= MIN_SEGMENT_PIXELS]
    segments.sort(key=lambda each: -each[0])
    return bool(segments) + sum(1 + _vertices(segment) for _, segment in segments[1:])


def region_clicks(
    samples: Sequence[Sample],
    region_size: tuple[int, int],
    cache: Path,
    report: Callable[[str], None] = lambda _: None,
) -> np.ndarray:
    """(R,) int64 clicks of every region of these images, in their order; kept in `cache`."""
    path = cache / f"clicks-{_digest(samples, region_size)}.safetensors"
    if path.is_file():
        try:
            return np.asarray(weights.load(path)[0]["clicks"].numpy())
        except (weights.WeightsError, KeyError):
            path.unlink()  # damaged: counted anew
    counted = []
    for number, sample in enumerate(samples, start=1):
        report(f"clicks: image {number} of {len(samples)}")
        mask = sample.mask()
        regions = grid((mask.shape[0], mask.shape[1]), region_size)
        counted += [polygon_clicks(mask[region.slices]) for region in regions]
    clicks = np.array(counted, np.int64)
    weights.save(path, {"clicks": torch.from_numpy(clicks)}, {})
    return clicks


def _segments(is_class: np.ndarray) -> list[np.ndarray]:
    """(h, w) bool -> its connected parts; neighbours across a corner belong together."""
    count, labels = cv2.connectedComponents(is_class.astype(np.uint8), connectivity=8)
    return [labels == label for label in range(1, count)]


def _vertices(segment: np.ndarray) -> int:
    """Vertices of a polygon around one connected segment, at least three."""
    contours, _ = cv2.findContours(
        segment.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return sum(max(3, len(cv2.approxPolyDP(each, TOLERANCE, closed=True))) for each in contours)


def _digest(samples: Sequence[Sample], region_size: tuple[int, int]) -> str:
    facts = [
        TOLERANCE,
        MIN_SEGMENT_PIXELS,
        region_size,
        [weights.digest(it.mask_path) for it in samples if it.mask_path is not None],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
