"""Progressive scale: cells in which actions are drawn shrink as the scores stop rising.

PSR draws action maps at scales S_1 to S_N to shrink the action space [P]; when the next scale
follows is ours [D].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ProgressiveScale:
    """The stride to draw with, told the mean score of each update.

    Args:
        strides: in pixels, falling.
        patience: updates whose mean score is compared with that of as many before.
        min_gain: the next stride follows when the mean gained less.
    """

    def __init__(self, strides: Sequence[int], patience: int, min_gain: float) -> None:
        self._strides, self._patience, self._min_gain = tuple(strides), patience, min_gain
        self._stage = 0
        self._total, self._count = 0.0, 0
        self._before: float | None = None

    @property
    def stride(self) -> int:
        """Of the next draw."""
        return self._strides[self._stage]

    def observe(self, score: float) -> None:
        """Take the mean score of an update's maps into account."""
        self._total += score
        self._count += 1
        if self._count < self._patience:
            return
        mean, self._total, self._count = self._total / self._count, 0.0, 0
        is_over = self._before is not None and mean - self._before < self._min_gain
        self._before = mean
        if is_over and self._stage + 1 < len(self._strides):
            self._stage += 1
            self._before = None  # scores of another stride do not compare

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON."""
        return {
            "stage": self._stage,
            "total": self._total,
            "count": self._count,
            "before": self._before,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._stage, self._total = int(state["stage"]), float(state["total"])
        self._count, self._before = int(state["count"]), state["before"]
