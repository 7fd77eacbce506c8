"""The segmenter that a project's steps work with, also where weights are missing or damaged."""

from __future__ import annotations

import logging

from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.segmenters import UsableSegmenter, load_segmenter
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Version

logger = logging.getLogger(__name__)


def usable_segmenter(
    store: Store,
    project: Project,
    version: Version | None,
    config: RankingConfig,
    *,
    is_training: bool = False,
) -> UsableSegmenter:
    """The segmenter of the version in use.

    Where its weights are missing or damaged, that of the nearest version before it is in use from
    now on, and a new one is trained as soon as possible; the damage is noted with the versions.

    is_training: whether it is for the training of a new one, so that none is asked for.
    """
    usable = load_segmenter(
        store, project, version, config.spec, seed=config.seed, device=config.device
    )
    if not usable.damage:
        return usable
    for number, why in usable.damage.items():
        damaged = store.versions.find(project.id, number)
        if damaged is not None:
            store.versions.change(damaged.id, metrics={"weights_error": why})
    instead = usable.version.number if usable.version else 0
    asked = {} if is_training else {"is_training_requested": True}
    if not store.versions.use_instead(project.id, project.current_version, instead, **asked):
        return usable
    logger.warning(
        "project %s: v%d is in use again, and a new version is trained soon",
        project.tool_id,
        instead,
    )
    return usable
