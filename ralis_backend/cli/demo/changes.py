"""What a round changed, in words: scores before and after, regions, and what comes next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ralis_backend.online.further import CONTINUED


def change(before: float | None, after: float | None) -> str:
    """`mIoU 39.3 → 41.5 (+2.2)`, or what is known of it; empty without a value.

    Args:
        before: in [0, 1]; None or NaN if unknown.
        after: likewise.
    """
    if after is None or math.isnan(after):
        return ""
    if before is None or math.isnan(before):
        return f"mIoU {100 * after:.1f}"
    return f"mIoU {100 * before:.1f} → {100 * after:.1f} ({100 * (after - before):+.1f})"


def trained(
    name: str, num_labels: int, num_before: int, metrics: Mapping[str, Any], *, is_accepted: bool
) -> str:
    """What a new version is worth on the project's held-out regions, against the one before.

    Args:
        name: of the version.
        num_labels: labelled regions when it was trained.
        num_before: likewise of the version before it.
        metrics: of the version.
        is_accepted: whether it is used.
    """
    kind = "" if metrics.get("validation_foreground_miou") is None else "foreground_"
    before, after = (metrics.get(f"validation_{kind}miou{when}") for when in ("_before", ""))
    told = change(before, after)
    without = f" without {metrics['background']}" if kind else ""
    held_out = int(metrics.get("validation_regions", 0))
    judged = f"{told}{without} on {held_out} held-out regions" if told else "not judged yet"
    regions = f"{num_labels} labelled regions (+{num_labels - num_before})"
    if CONTINUED in metrics:
        regions += f", trained on for {metrics['steps']} updates"
    use = "it is in use" if is_accepted else "it is worse and not used"
    return f"{name}: {regions} · {judged} · {use}"
