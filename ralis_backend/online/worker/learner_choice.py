"""What the next version learns from besides paint, and when the backend leaves that off by itself.

Pixels that nobody labelled can mislead: with few images, one class, or a teacher that is wrong
where it is sure. Held-out labels tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ralis_backend.core.learning.registry import besides_paint

LEARNED_FROM = "learned_from"
"""Key of a version's metrics: what it learned from besides paint."""
PAINT_ALONE = "paint_alone"
"""Key of a version's metrics: since when and why its project learns from paint alone."""
TRY_AGAIN_AT = 2.0
"""With so many times the labels, what was left off is tried again."""


def besides(learner: str, in_use: Mapping[str, Any] | None, num_labels: int) -> Sequence[str]:
    """Names of the objectives besides paint for the next version.

    Args:
        learner: as in the settings, such as `paint+unlabelled`.
        in_use: metrics of the version in use; None before the first.
        num_labels: labelled regions of the project now.
    """
    left_off = (in_use or {}).get(PAINT_ALONE)
    if left_off and num_labels < TRY_AGAIN_AT * left_off["num_labels"]:
        return ()
    return besides_paint(learner)


def kept_off(in_use: Mapping[str, Any] | None, used: Sequence[str]) -> dict[str, Any]:
    """Metrics of a version that pass on why its project learns from paint alone."""
    left_off = (in_use or {}).get(PAINT_ALONE)
    return {PAINT_ALONE: left_off} if left_off and not used else {}


def left_off(
    used: Sequence[str], num_labels: int, with_it: float, without: float
) -> dict[str, Any]:
    """Metrics of a version that was trained again from paint alone, and is better for it.

    Args:
        used: what the first try learned from besides paint.
        num_labels: labelled regions of the project then.
        with_it: mean IoU on held-out regions of the first try, in [0, 1].
        without: that of the second, on the same.
    """
    names = " and ".join(used)
    why = (
        f"held-out mIoU was {with_it:.3f} with {names} pixels and {without:.3f} from paint alone; "
        f"they are tried again with {round(TRY_AGAIN_AT * num_labels)} labelled regions"
    )
    return {PAINT_ALONE: {"num_labels": num_labels, "why": why}}
