"""What a version has learned from: regions, painted pixels of each class, as its metrics keep them.

Labels of images that are held out teach no class, however many show it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ralis_backend.online.advice import LABELLED_REGIONS, NEW_REGIONS, NEWEST_REGION
from ralis_backend.online.labels import RegionLabel, labelled_pixels
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Version

LEARNED_PIXELS = "learned_pixels"
"""Of a version's metrics: painted pixels by class that it, or one before it, has learned from."""


def learned_metrics(
    parent: Version | None, pixels: Mapping[str, int], kept: Collection[str] = ()
) -> dict[str, Any]:
    """What a version's metrics say of what it has learned from.

    Each version learns all labels again, so that the most that one of them saw counts, not the sum.

    Args:
        parent: the version that it was trained from: what that has learned is not forgotten where
            the class is among those that it was trained on, or `kept`. One that was painted by
            mistake alone, and corrected, is neither.
        pixels: painted ones that it was trained on, by name of class.
        kept: classes that labels may show besides: in what is held out, or hidden for now.
    """
    before = {} if parent is None else parent.metrics.get(LEARNED_PIXELS) or {}
    now = {
        name: max(count, before.get(name, 0)) if count or name in kept else 0
        for name, count in pixels.items()
    }
    return {LEARNED_PIXELS: {**before, **now}}


def region_metrics(
    store: Store,
    project: Project,
    parent: Version | None,
    newest_label_id: int,
    num_regions: int,
) -> dict[str, Any]:
    """What a version's metrics say of the regions that it has learned from, and which are new.

    Args:
        store: knows the labels.
        project: whose version it is.
        parent: the version that it was trained from.
        newest_label_id: of the labels that it was trained on.
        num_regions: painted ones of the project.
    """
    first = [each for each in store.labels.first_ids(project.id) if each <= newest_label_id]
    has_learned = parent is not None and parent.weights_key is not None
    before = parent.metrics.get("newest_label_id") if parent and has_learned else 0
    return {
        "newest_label_id": newest_label_id,
        LABELLED_REGIONS: num_regions,
        NEWEST_REGION: max(first, default=0),
        **({} if before is None else {NEW_REGIONS: sum(each > before for each in first)}),
    }


def learned_pixels(
    store: Store, project: Project, version: Version, labels: Sequence[RegionLabel]
) -> np.ndarray:
    """(C,) int64 painted pixels of each class that a version has learned from.

    Of one whose metrics do not say it those labels that were there and are not held out.

    Args:
        store: knows what is held out.
        project: whose version it is.
        version: zeros where it has no weights.
        labels: of the project.
    """
    if version.weights_key is None:
        return np.zeros(len(project.classes), np.int64)
    known = version.metrics.get(LEARNED_PIXELS)
    if known is not None:
        return np.array([known.get(name, 0) for name in project.class_names], np.int64)
    newest = version.metrics.get("newest_label_id", project.trained_label_id)
    held_out = {image.id for image in store.images.of(project.id) if image.is_validation}
    learned = [it for it in labels if it.id <= newest and it.image_id not in held_out]
    pixels: np.ndarray = labelled_pixels(learned, len(project.classes)).sum(axis=0)[:-1]
    return pixels
