"""Regions that are drawn at random, and what they tell of a version without bias.

What strategies choose is harder, or rarer, than the pool; a score on it says little of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ralis_backend.core.intervals import bootstrap_draws, bootstrap_interval
from ralis_backend.core.metrics import mean_iou_of_present
from ralis_backend.online.labels import RegionLabel

SLICE = "random"
"""The strategy of regions in the slice."""
SLICE_REASON = "picked at random, to measure the model without bias"
_NUM_BOOTSTRAPS = 500

T = TypeVar("T")


def num_draws(share: float, num_handed_out: int, num_in_slice: int, room: int) -> int:
    """How many of the next `room` regions are drawn, so that the slice keeps its share.

    Args:
        share: of all regions that are handed out, in [0, 1].
        num_handed_out: regions so far.
        num_in_slice: how many of them were drawn.
        room: regions that are handed out next.
    """
    behind = math.floor(share * (num_handed_out + room) + 1e-9) - num_in_slice
    return max(0, min(behind, math.ceil(share * room)))  # a raised share is not caught up at once


def draw(regions: Sequence[T], count: int, seed: Sequence[int]) -> list[T]:
    """`count` of the regions, all if there are fewer, each as likely as any other."""
    picked = np.random.default_rng(seed).permutation(len(regions))[:count]
    return [regions[index] for index in picked]


def spread(best: Sequence[T], drawn: Sequence[T]) -> list[T]:
    """`best` in their order, with `drawn` among them at equal distances."""
    total = len(best) + len(drawn)
    positions = {math.floor((turn + 0.5) * total / len(drawn)) for turn in range(len(drawn))}
    others, draws = iter(best), iter(drawn)
    return [next(draws if position in positions else others) for position in range(total)]


def new_in_slice(labels: Iterable[RegionLabel], newest_learned: int | None) -> list[RegionLabel]:
    """The slice's labels that a version has not learned, in no earlier state; none before any.

    Args:
        labels: of the project.
        newest_learned: the newest label's id at the version's training; None: it had none.
    """
    if newest_learned is None:
        return []
    in_slice = (label for label in labels if label.strategy == SLICE)
    return [label for label in in_slice if label.oldest_id > newest_learned]


def measured(matrices: np.ndarray, seed: int = 0, background: int | None = None) -> dict[str, Any]:
    """Scores on R regions that a version had not trained on, with 95 % intervals over regions.

    Of few regions the mean IoU comes out low, as it is a mean of ratios over classes that hardly
    occur; the share of right pixels does not.

    Args:
        matrices: (R, C, C) int64 confusion matrix of each region, R at least 1.
        seed: of the bootstrap.
        background: index of the class that unpainted pixels get; None: there is none.

    Returns:
        JSON values: `miou` and `pixel_accuracy`, each [value, low, high] in [0, 1]; `regions`;
        `right` and `pixels` of each region; with a background `foreground_miou`, the mean IoU of
        the other classes that the regions show, None if they show none.
    """
    right = np.trace(matrices, axis1=1, axis2=2)
    pixels = matrices.sum(axis=(1, 2))
    drawn = bootstrap_draws(len(matrices), np.random.default_rng(seed), _NUM_BOOTSTRAPS)
    mious = [mean_iou_of_present(matrices[each].sum(axis=0)) for each in drawn]
    total = matrices.sum(axis=0)
    foreground = mean_iou_of_present(total, background)
    without = {"foreground_miou": None if np.isnan(foreground) else round(foreground, 4)}
    return {
        **({} if background is None else without),
        "regions": len(matrices),
        "miou": _with_interval(mean_iou_of_present(total), np.array(mious), len(matrices)),
        "pixel_accuracy": _accuracy(right, pixels, drawn),
        "right": right.tolist(),
        "pixels": pixels.tolist(),
    }


def pooled(measurements: Iterable[Mapping[str, Any]], seed: int = 0) -> dict[str, Any] | None:
    """Pixel accuracy over several versions, each on regions that were new to it; None without."""
    found = list(measurements)
    right = np.array([value for each in found for value in each["right"]])
    pixels = np.array([value for each in found for value in each["pixels"]])
    if not len(pixels):
        return None
    drawn = bootstrap_draws(len(pixels), np.random.default_rng(seed), _NUM_BOOTSTRAPS)
    return {"regions": len(pixels), "pixel_accuracy": _accuracy(right, pixels, drawn)}


def _accuracy(right: np.ndarray, pixels: np.ndarray, drawn: np.ndarray) -> list[float]:
    shares = right[drawn].sum(axis=1) / pixels[drawn].sum(axis=1)
    return _with_interval(float(right.sum() / pixels.sum()), shares, len(right))


def _with_interval(value: float, drawn: np.ndarray, num_regions: int) -> list[float]:
    low, high = bootstrap_interval(drawn, num_regions)
    return [round(float(each), 4) for each in (value, low, high)]
