"""Scores -> the pick of the best under a spread over images."""

from __future__ import annotations

import numpy as np


def select(
    scores: np.ndarray,
    image_ids: np.ndarray,
    count: int,
    max_per_image: int | None = None,
) -> np.ndarray:
    """The `count` best regions, spread over images.

    Args:
        scores: (R,) float, higher first.
        image_ids: (R,) the image of each region.
        count: how many; fewer come back where there are fewer.
        max_per_image: at most so many of one image, by default twice the fair share. Exceeded
            only where `count` cannot be reached otherwise.

    Returns:
        Indices into `scores`, best first.

    Raises:
        ValueError: if a score is not finite.
    """
    scores = np.asarray(scores)
    if not np.isfinite(scores).all():
        raise ValueError(
            f"score of region {int(np.argmin(np.isfinite(scores)))} is not finite; the segmenter "
            "that it came from is broken: use an earlier version"
        )
    order = np.argsort(-scores, kind="stable")
    turn = occurrence(np.asarray(image_ids)[order])  # 0 for an image's best region, then 1, ...
    if max_per_image is None:
        num_images = max(1, int((turn == 0).sum()))
        max_per_image = max(1, -(-2 * count // num_images))
    is_kept = turn < max_per_image
    ranked = np.concatenate([np.flatnonzero(is_kept), np.flatnonzero(~is_kept)])
    chosen: np.ndarray = order[np.sort(ranked[: max(0, count)])]
    return chosen


def occurrence(values: np.ndarray) -> np.ndarray:
    """How many equal values stand before each one."""
    by_value = np.argsort(values, kind="stable")
    grouped = values[by_value]
    is_first = np.r_[True, grouped[1:] != grouped[:-1]][: len(values)]
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(values)), 0))
    before = np.empty(len(values), np.int64)
    before[by_value] = np.arange(len(values)) - starts
    return before
