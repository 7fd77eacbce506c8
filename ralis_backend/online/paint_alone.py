"""When a project learns from paint alone, though the settings say more.

Pixels that nobody labelled can mislead: with few images, one class, or a teacher that is wrong
where it is sure. Held-out labels tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEARNED_FROM = "learned_from"
"""Key of a version's metrics: what it learned from besides paint."""
PAINT_ALONE = "paint_alone"
"""Key of a version's metrics: since when and why its project learns from paint alone."""
NOT_YET = "paint_alone_so_far"
"""Key of a version's metrics: why it learned from paint alone before anything could be told."""
TRY_AGAIN_AT = 2.0
"""With so many times the labels, what was left off is tried again."""


def is_left_off(in_use: Mapping[str, Any] | None, num_labels: int) -> bool:
    """Whether the next version learns from paint alone, whatever the settings say.

    Args:
        in_use: metrics of the version in use; None before the first.
        num_labels: labelled regions of the project now.
    """
    note = (in_use or {}).get(PAINT_ALONE)
    return note is not None and num_labels < TRY_AGAIN_AT * note["num_labels"]


def kept_off(in_use: Mapping[str, Any] | None, used: Sequence[str]) -> dict[str, Any]:
    """Metrics of a version that pass on why its project learns from paint alone."""
    note = (in_use or {}).get(PAINT_ALONE)
    return {PAINT_ALONE: note} if note and not used else {}


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
