"""A project's version -> its segmenter, or that of the nearest usable version before it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ralis_backend.core import segmenter as segmenters
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec
from ralis_backend.core.text import reason_of
from ralis_backend.core.weights import WeightsError
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Version

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsableSegmenter:
    """A segmenter, and the version that it is of.

    version: None for the one that has learned nothing.
    damage: what is wrong with each version's weights that should have been used instead, by number.
    """

    segmenter: Segmenter
    version: Version | None
    damage: dict[int, str]


def load_segmenter(
    store: Store,
    project: Project,
    version: Version | None,
    spec: SegmenterSpec,
    *,
    seed: int,
    device: str,
) -> UsableSegmenter:
    """The segmenter of a version; before the first, one with a random head.

    Where its weights are missing or damaged it is that of the nearest ancestor whose weights are
    not, at last the one that has learned nothing. Its head is brought to the project's number of
    classes where labels were added since.

    Args:
        store: where the weights lie.
        project: gives the classes.
        version: None before the first.
        spec: the segmenter before the first version.
        seed: of its random head.
        device: as torch names it.

    Raises:
        OSError: if weights that are there cannot be read now.
    """
    num_classes = max(1, len(project.classes))
    damage: dict[int, str] = {}
    while version is not None and version.weights_key is not None:
        try:
            segmenter = segmenters.load(store.blobs.path(version.weights_key), device)
        except (WeightsError, FileNotFoundError) as error:
            logger.warning(
                "project %s: %s cannot be used: %s", project.tool_id, version.name, error
            )
            damage[version.number] = reason_of(error)
            version = _parent(store, version)
            continue
        if segmenter.num_classes != num_classes:
            segmenter = segmenter.resized(num_classes)
        return UsableSegmenter(segmenter, version, damage)
    untrained = segmenters.build(spec.for_classes(num_classes), seed=seed, device=device)
    return UsableSegmenter(untrained, version, damage)


def _parent(store: Store, version: Version) -> Version | None:
    """The version that this one was trained from; None at the first."""
    if version.parent is None or version.parent >= version.number:
        return None
    return store.versions.find(version.project_id, version.parent)
