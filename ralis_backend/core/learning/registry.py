"""What a segmenter can learn from, by name."""

from __future__ import annotations

from collections.abc import Sequence

from ralis_backend.core.learning.objective import ObjectiveFactory
from ralis_backend.core.learning.painted import PaintedRegions
from ralis_backend.core.learning.unlabelled import UnlabelledPixels
from ralis_backend.core.registry import Registry

OBJECTIVES: Registry[ObjectiveFactory] = Registry("objective", "ralis_backend.objectives")
"""What makes an objective, by the name that `finetune` is told."""
OBJECTIVES.register("painted", PaintedRegions)
OBJECTIVES.register("unlabelled", UnlabelledPixels)

PAINT = "paint"
"""The learner that learns from what people painted alone."""


def besides_paint(learner: str) -> Sequence[str]:
    """Names in `OBJECTIVES` of what a learner learns from besides paint.

    Args:
        learner: `paint`, or with other objectives, as in `paint+unlabelled`.

    Raises:
        ValueError: if it does not begin with paint, or names an objective that does not exist.
    """
    first, *others = learner.split("+")
    if first != PAINT:
        raise ValueError(
            f"learner {learner!r} must begin with {PAINT!r}, as in {PAINT}+unlabelled: labels of "
            "people always count"
        )
    for name in others:
        OBJECTIVES.find(name)
    return others
