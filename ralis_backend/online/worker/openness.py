"""What decides which regions are open -> a few numbers: while they stay, no region has opened.

Labels, skips, readable images and waiting tasks; a ranking asks for a publishing by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import CropTask

Openness = list[list[int]]
"""Of each kind that decides it, how many there are and the sum of their ids: JSON values."""


def openness(store: Store, project_id: int) -> Openness:
    """As labels and images decide it."""
    return [store.labels.mark(project_id), store.images.mark(project_id)]


def of_queue(waiting: Sequence[CropTask], gone: Sequence[int]) -> Openness:
    """As the tasks that wait decide it, and the row ids of those whose image is gone."""
    return [[len(waiting), sum(row.id for row in waiting)], [len(gone), sum(gone)]]
