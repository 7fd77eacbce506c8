"""The promotion gate: whether a version is good enough to be used instead of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ralis_backend.core.metrics import ious, mean_iou_of_present
from ralis_backend.online.advice import FEW_IMAGES

MIN_VALIDATION_REGIONS = 5
"""Below this the promotion gate would judge by noise, and every version passes."""
LEAST_GAIN = 0.01
"""Of mIoU on what is held out, for a version of the same labels."""
WORTH = 3.0
"""Times as long as what it disturbs."""


def can_judge(num_regions: int) -> bool:
    """Whether so many held-out regions tell a worse version from a better one.

    Where they do not, every version passes: nothing must be learned then that only the gate keeps
    from doing harm, as people's ratings are.
    """
    return num_regions >= MIN_VALIDATION_REGIONS


def awaits_images(num_readable: int, num_out_of_reach: int) -> bool:
    """Whether so many held-out regions do not judge a version, and would if hosts came back."""
    return not can_judge(num_readable) and can_judge(num_readable + num_out_of_reach)


def is_promoted(
    before: np.ndarray | None,
    after: np.ndarray | None,
    num_regions: int,
    tolerance: float,
    background: int | None = None,
) -> bool:
    """Whether the new version is not worse on the held-out labelled regions.

    Both are judged by the classes that those regions show, so that a few wrong pixels of a class
    that is not there do not weigh as much as the class; without the background, unless there is
    nothing else.

    Args:
        before: (C, C) int64 confusion matrix of the version in use; None if it has learned nothing.
        after: the new version's; None if nothing is held out yet.
        num_regions: held-out regions that both were evaluated on.
        tolerance: it may be this much worse in mean IoU.
        background: index of the class that unpainted pixels get; None: there is none.
    """
    if before is None or after is None or not can_judge(num_regions):
        return True
    shows_more = background is not None and _shows_more(after, background)
    left_out = background if shows_more else None
    old, new = (_rounded(mean_iou_of_present(it, left_out)) for it in (before, after))
    return old is None or new is None or new >= old - tolerance


def is_worth_publishing(gain: float, error: float, seconds: float, disturbance_s: float) -> bool:
    """Whether a version of the same labels should take the place of the one in use.

    It must be better by `LEAST_GAIN` and by more than noise, one standard error; and it must have
    been trained for `WORTH` times as long as it takes to rank the pool and fill the queue anew, so
    that annotators' tasks change seldom. Besides `is_promoted`.

    Args:
        gain: of mean IoU on what is held out.
        error: the standard error of that over the held-out images; NaN where that is not known.
        seconds: for which it was trained since the version in use came.
        disturbance_s: that ranking and publishing took last time.
    """
    is_better = gain >= LEAST_GAIN and gain > error
    return is_better and seconds >= WORTH * disturbance_s


def can_be_judged(num_regions: int, num_images: int) -> bool:
    """Whether so much is held out that one version can be told from another by more than luck."""
    return can_judge(num_regions) and num_images >= FEW_IMAGES


def validation_metrics(
    before: np.ndarray | None,
    after: np.ndarray | None,
    class_names: Sequence[str],
    background: int | None = None,
) -> dict[str, Any]:
    """JSON values that tell of the gate: mean IoU and each class's, None where not defined.

    With a background also the mean IoU of all other classes, `validation_foreground_miou`: the
    background is nearly always right, and hides what the model does with what people look for.

    Args:
        before: as in `is_promoted`.
        after: likewise.
        class_names: by class index.
        background: as in `is_promoted`.
    """
    if after is None:
        return {}
    values = zip(class_names, ious(after), after.sum(axis=1), strict=False)
    metrics: dict[str, Any] = {
        "validation_miou": _rounded(mean_iou_of_present(after)),
        "validation_iou": {name: _rounded(iou) if shown else None for name, iou, shown in values},
    }
    if before is not None:
        metrics["validation_miou_before"] = _rounded(mean_iou_of_present(before))
    if background is not None:
        metrics["background"] = class_names[background]
        metrics["validation_foreground_miou"] = _rounded(mean_iou_of_present(after, background))
        if before is not None:
            foreground = mean_iou_of_present(before, background)
            metrics["validation_foreground_miou_before"] = _rounded(foreground)
    return metrics


def _shows_more(matrix: np.ndarray, background: int) -> bool:
    return bool(np.delete(matrix.sum(axis=1), background).any())


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
