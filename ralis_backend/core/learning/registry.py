"""What a segmenter can learn from, by name."""

from __future__ import annotations

from ralis_backend.core.learning.objective import ObjectiveFactory
from ralis_backend.core.learning.painted import PaintedRegions
from ralis_backend.core.registry import Registry

OBJECTIVES: Registry[ObjectiveFactory] = Registry("objective", "ralis_backend.objectives")
"""What makes an objective, by the name that `finetune` is told."""
OBJECTIVES.register("painted", PaintedRegions)
