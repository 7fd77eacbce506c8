"""What a segmenter can learn from, by name."""

from __future__ import annotations

from ralis_backend.core.learning.objective import ObjectiveFactory
from ralis_backend.core.learning.painted import PaintedRegions

OBJECTIVES: dict[str, ObjectiveFactory] = {"painted": PaintedRegions}
"""Another package adds its own, for `finetune` to name."""
