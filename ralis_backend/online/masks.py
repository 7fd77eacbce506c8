"""Stored labels of an image -> its mask, composed where it is looked at and never kept.

A label whose file is missing or damaged is left out and said so; the annotation that it came from
is read again, which makes the file anew.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ralis_backend.core.learning.crops import Unreadable
from ralis_backend.core.regions import VOID
from ralis_backend.core.text import reason_of
from ralis_backend.online.labels import RegionLabel, without_classes
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project

logger = logging.getLogger(__name__)

_MAX_BYTES = 64_000_000


class LabelMasks:
    """The masks of one project's labels, the last used ones in memory.

    Args:
        store: where they lie.
        project: whose labels they are.
        max_bytes: of masks in memory.
        has_removed_classes: whether classes that the project has no more are shown; else VOID.

    Attributes:
        lost: why a label's mask cannot be read, by the label's id.
    """

    def __init__(
        self,
        store: Store,
        project: Project,
        max_bytes: int = _MAX_BYTES,
        *,
        has_removed_classes: bool = False,
    ) -> None:
        self._store, self._project, self._max_bytes = store, project, max_bytes
        self._removed = () if has_removed_classes else project.removed_classes
        self._patches: OrderedDict[str, np.ndarray] = OrderedDict()
        self._num_bytes = 0
        self.lost: dict[int, str] = {}

    def of(self, size: tuple[int, int], labels: Sequence[RegionLabel]) -> StoredMask:
        """The mask of an image of (height, width) pixels with these labels, as `newest` orders."""
        return StoredMask(self, size, labels)

    def whole(self, size: tuple[int, int], labels: Sequence[RegionLabel]) -> np.ndarray:
        """(H, W) uint8: all of it, without the labels that cannot be read."""
        mask = self.of(size, labels)
        for _ in labels:  # each is found unreadable once at most
            try:
                return np.asarray(mask)
            except Unreadable:
                continue
        return np.asarray(mask)

    def readable(self, labels: Sequence[RegionLabel]) -> list[RegionLabel]:
        """Those of the labels that were not found unreadable so far."""
        return [label for label in labels if label.id not in self.lost]

    def pixels(self, label: RegionLabel) -> tuple[int, ...]:
        """Labelled pixels of each class, as they were counted when the label was stored."""
        return tuple(0 if c in self._removed else count for c, count in enumerate(label.pixels))

    def patch(self, label: RegionLabel) -> np.ndarray | None:
        """The (height, width) uint8 mask of a label; None if it is known to be unreadable.

        Raises:
            Unreadable: if it is found to be so now.
        """
        if label.id in self.lost:
            return None
        key = label.mask_key
        if key is None or key not in self._patches:
            patch = self._read(label)
            if key is None:
                return patch
            self._remember(key, patch)
        self._patches.move_to_end(key)
        return self._patches[key]

    def _read(self, label: RegionLabel) -> np.ndarray:
        try:
            return without_classes(self._store.labels.mask(label), self._removed)
        except (OSError, ValueError) as error:
            self._lose(label, reason_of(error))
            raise Unreadable(reason_of(error), label.region) from error

    def _lose(self, label: RegionLabel, why: str) -> None:
        self.lost[label.id] = why
        logger.warning(
            "project %s: the label of %s in image %d cannot be used and is read again from its "
            "annotation: %s",
            self._project.tool_id,
            label.region,
            label.image_id,
            why,
        )
        self._store.annotations.reread([label.annotation_row_id])
        self._store.labels.drop_damaged_mask(label)
        self._store.projects.change(self._project.id, is_sync_requested=True)

    def _remember(self, key: str, patch: np.ndarray) -> None:
        self._patches[key] = patch
        self._num_bytes += patch.nbytes
        while self._num_bytes > self._max_bytes and len(self._patches) > 1:
            self._num_bytes -= self._patches.popitem(last=False)[1].nbytes


class StoredMask:
    """See `core.learning.crops.Mask`; a region that reaches beyond the image is cut off.

    Looking at it raises `Unreadable` once for each label that cannot be read, and leaves it out
    from then on.
    """

    def __init__(
        self, masks: LabelMasks, size: tuple[int, int], labels: Sequence[RegionLabel]
    ) -> None:
        self._masks, self.shape, self._labels = masks, size, labels

    def __getitem__(self, part: tuple[slice, slice], /) -> np.ndarray:
        """(h, w) uint8; where regions overlap the later label wins."""
        (top, bottom, _), (left, right, _) = (
            each.indices(side) for each, side in zip(part, self.shape, strict=True)
        )
        mask = np.full((max(0, bottom - top), max(0, right - left)), VOID, np.uint8)
        for label in self._labels:
            row, col = label.region.row, label.region.col
            rows = max(top, row), min(bottom, row + label.region.height)
            cols = max(left, col), min(right, col + label.region.width)
            if rows[0] >= rows[1] or cols[0] >= cols[1]:
                continue
            patch = self._masks.patch(label)
            if patch is None:
                continue
            seen = patch[rows[0] - row : rows[1] - row, cols[0] - col : cols[1] - col]
            target = mask[rows[0] - top : rows[1] - top, cols[0] - left : cols[1] - left]
            np.copyto(target, seen, where=seen != VOID)
        return mask

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole of it."""
        whole = self[0 : self.shape[0], 0 : self.shape[1]]
        return whole if dtype is None else whole.astype(dtype)
