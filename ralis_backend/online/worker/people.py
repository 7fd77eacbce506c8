"""What annotators left, counted when it may have changed, so that nobody who asks has to wait."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ralis_backend.core.learning.crops import Unreadable
from ralis_backend.online import agreement
from ralis_backend.online.advice import advice_on
from ralis_backend.online.hits import counted, end_fulfilled
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project

logger = logging.getLogger(__name__)

MOST_SHARED = 500
"""Regions that are compared, the newest: each costs two small files."""
_MOST_TOLD = 5


class People:
    """Keeps the figures of one project at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def count(self, project: Project) -> None:
        """Count labelled regions, bulk annotations, doubles and agreement; write what changed.

        A wish ends when as much as was wanted is labelled.
        """
        end_fulfilled(self._store, project)
        before = self._store.projects.by_id(project.id)
        found = {
            "bulk_annotations": self._store.annotations.count_machine(project.id),
            "double_images": self._store.images.count_doubles(project.id),
            "advice": self._advice(before),
            **self._agreement(before),
            **counted(self._store, before),
        }
        num_regions = self._store.labels.count_regions(project.id)
        self._tell(before, found)
        if (found, num_regions) != (before.people, before.num_labelled_regions):
            self._store.projects.change(project.id, people=found, num_labelled_regions=num_regions)

    def _advice(self, project: Project) -> str:
        versions = self._store.versions.all(project.id)
        return advice_on(versions, project.current_version)

    def _agreement(self, project: Project) -> dict[str, Any]:
        """As it was where the same regions are shared; the masks are read only otherwise."""
        shared = self._store.labels.shared_regions(project.id)
        if shared == project.people.get("shared"):
            return {name: project.people[name] for name in ("shared", "agreement")}
        labels = self._store.labels.shared(project.id, MOST_SHARED)
        masks = LabelMasks(self._store, project)

        def mask(label: RegionLabel) -> np.ndarray | None:
            try:
                return masks.patch(label)
            except Unreadable:
                return None

        compared = agreement.compare(agreement.by_region(labels), mask, len(project.classes))
        return {"shared": shared, "agreement": agreement.summary(compared, project.class_names)}

    def _tell(self, project: Project, found: dict[str, Any]) -> None:
        """Say in the log what nobody would expect, once."""
        known = project.people
        if found["bulk_annotations"] > known.get("bulk_annotations", 0):
            logger.warning(
                "project %s: %d annotations were made from predictions in bulk; they count as "
                "nobody's labels until somebody updates or stars them",
                project.tool_id,
                found["bulk_annotations"],
            )
        if found["double_images"] > known.get("double_images", 0):
            doubles = self._store.images.doubles(project.id)
            logger.warning(
                "project %s: %d tasks show a picture that another task shows as well (%s); its "
                "regions are asked once, and all of them are trained on or held out",
                project.tool_id,
                len(doubles),
                ", ".join(
                    f"task {self._store.images.get(image).task_id} that of "
                    f"{self._store.images.get(earlier).task_id}"
                    for image, earlier in list(doubles.items())[:_MOST_TOLD]
                ),
            )
