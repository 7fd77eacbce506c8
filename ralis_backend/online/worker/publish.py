"""The ranking -> what annotators meet next in the labelling tool."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from ralis_backend.online.labels import labels_by_image
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Ranking, Version
from ralis_backend.online.suggesting import suggest_image
from ralis_backend.online.tool import Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.crop_queue import CropQueue
from ralis_backend.online.worker.publication import Publication
from ralis_backend.online.worker.sync import Sync

logger = logging.getLogger(__name__)


class Publisher:
    """Brings what one project's annotators meet in line with the version in use."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig, sync: Sync) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._sync = sync
        self._crop_queue = CropQueue(store, tool, config)

    def publish(self, project: Project, version: Version) -> None:
        """Fill the queue and store the predictions; safe to repeat after a kill."""
        started = time.monotonic()
        newest = self._store.labels.newest_id(project.id)
        if project.regions_tool_id is None:
            rankings = self._store.rankings.of(version.id)
            self._publish_images(self._read(project, version, rankings))
            number = project.round
        else:
            rankings = self._store.rankings.scored(version.id)
            publication = self._read(project, version, rankings)
            number = self._crop_queue.publish(publication, project.regions_tool_id)
        self._store.projects.change(
            project.id,
            published_version=version.number,
            published_label_id=newest,
            round=number,
        )
        seconds = round(time.monotonic() - started, 2)
        self._store.versions.change(
            version.id,
            metrics={"seconds": {**self._seconds(project, version), "publish": seconds}},
        )
        self._drop_old_rankings(project)

    def _read(
        self, project: Project, version: Version, rankings: Mapping[int, Ranking]
    ) -> Publication:
        return Publication(
            pool=self._sync.project(project),
            project=project,
            version=version,
            images={image.id: image for image in self._store.images.of(project.id)},
            rankings=rankings,
            labels=labels_by_image(self._store.labels.of(project.id)),
            region_size=self._config.ranking.region_size,
        )

    def _publish_images(self, publication: Publication) -> None:
        version, project = publication.version, publication.project
        suggestions = [
            suggest_image(
                self._store,
                version,
                image,
                publication.rankings[image.id],
                publication.labels.get(image.id, []),
                publication.region_size,
                self._config.suggestions_per_image,
            )
            for image in publication.images.values()
            if image.id in publication.image_sizes
        ]
        self._tool.publish_image_predictions(
            publication.pool, version.name, project.class_names, suggestions
        )
        logger.info(
            "project %s: published %s for %d images", project.uid, version.name, len(suggestions)
        )

    def _seconds(self, project: Project, version: Version) -> Mapping[str, float]:
        stored = self._store.versions.find(project.id, version.number)
        seconds: Mapping[str, float] = (stored or version).metrics.get("seconds", {})
        return seconds

    def _drop_old_rankings(self, project: Project) -> None:
        for version in self._store.versions.all(project.id):
            if version.number != project.current_version and version.ranked_at is not None:
                self._store.rankings.drop(version.id)
