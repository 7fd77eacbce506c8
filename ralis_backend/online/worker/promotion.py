"""The promotion gate: whether a version is good enough to be used instead of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ralis_backend.core.metrics import ious, mean_iou

MIN_VALIDATION_REGIONS = 5
"""Below this the promotion gate would judge by noise, and every version passes."""


def is_promoted(
    before: np.ndarray | None, after: np.ndarray | None, num_regions: int, tolerance: float
) -> bool:
    """Whether the new version is not worse on the held-out labelled regions.

    Args:
        before: (C, C) int64 confusion matrix of the version in use; None if it has learned nothing.
        after: the new version's; None if nothing is held out yet.
        num_regions: held-out regions that both were evaluated on.
        tolerance: it may be this much worse in mean IoU.
    """
    if before is None or after is None or num_regions < MIN_VALIDATION_REGIONS:
        return True
    old, new = _rounded(mean_iou(before)), _rounded(mean_iou(after))
    return old is None or new is None or new >= old - tolerance


def validation_metrics(
    before: np.ndarray | None, after: np.ndarray | None, class_names: Sequence[str]
) -> dict[str, Any]:
    """JSON values that tell of the gate: mean IoU and each class's, None where not defined.

    Args:
        before: as in `is_promoted`.
        after: likewise.
        class_names: by class index.
    """
    if after is None:
        return {}
    values = zip(class_names, ious(after), strict=False)
    metrics: dict[str, Any] = {
        "validation_miou": _rounded(mean_iou(after)),
        "validation_iou": {name: _rounded(value) for name, value in values},
    }
    if before is not None:
        metrics["validation_miou_before"] = _rounded(mean_iou(before))
    return metrics


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
