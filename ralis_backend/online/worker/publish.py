"""The ranking -> what annotators meet next in the labelling tool."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ralis_backend.core.regions import grid_size
from ralis_backend.online.hits import sought
from ralis_backend.online.labels import labels_by_image
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Ranking, Version
from ralis_backend.online.suggesting import suggest_image
from ralis_backend.online.tool import ImageSuggestion, Tool
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.crop_queue import CropQueue
from ralis_backend.online.worker.openness import of_queue, openness
from ralis_backend.online.worker.predicted_masks import PredictedMasks
from ralis_backend.online.worker.publication import Publication
from ralis_backend.online.worker.rank import USED_UP
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
        """Fill the queue and store the predictions; safe to repeat after a kill.

        Raises:
            ValueError: if nothing new can be shown, as while a host is down: what was published
                stays.
        """
        started = time.monotonic()
        if self._has_misfits(project, version):
            return
        queue = self._store.queue
        newest = self._store.labels.newest_id(project.id)
        newest_painted = self._store.labels.newest_painted_id(project.id)
        # Before an image fails: then it is due again.
        decided_by = openness(self._store, project.id)
        if self._is_open_again(project, version, newest_painted):
            self._store.projects.change(project.id, is_publishing_requested=True)
            self._store.versions.change(version.id, ranked_at=None)
            return
        is_in_crops = project.regions_tool_id is not None
        rankings = self._store.rankings
        ranked = rankings.scored(version.id) if is_in_crops else rankings.of(version.id)
        publication = self._read(project, version, ranked, newest_painted)
        if publication.shows_nothing and self._would_replace(publication):
            self._rank_others(publication)
            return
        number = project.round
        if project.regions_tool_id is not None:
            masks = self._masks(publication)
            number = self._crop_queue.publish(publication, project.regions_tool_id, masks)
        elif publication.is_new:
            queue.take_back(project.id, version.number, publication.wish_id)
            self._publish_images(publication)
        self._store.projects.change(
            project.id,
            is_publishing_requested=False,
            published_version=version.number,
            published_label_id=newest,
            published_wish=publication.wish_id,
            filled_with=[*decided_by, *of_queue(queue.open(project.id), queue.gone(project.id))],
            round=number,
            round_label_id=newest_painted if number > project.round else project.round_label_id,
        )
        seconds = round(time.monotonic() - started, 2)
        self._store.versions.change(
            version.id,
            metrics={"seconds": {**self._seconds(project, version), "publish": seconds}},
        )
        self._drop_old_rankings(project, version)

    def _is_open_again(self, project: Project, version: Version, newest_painted: int) -> bool:
        """Whether there are open regions where the ranking found none: it says nothing of them."""
        if version.number != project.current_version:  # it does not rank any more
            return False
        if project.is_publishing_requested or not version.metrics.get(USED_UP):
            return False
        rankings = self._store.rankings.scored(version.id)
        places, _ = self._read(project, version, rankings, newest_painted).places()
        return bool(places)

    def _read(
        self,
        project: Project,
        version: Version,
        rankings: Mapping[int, Ranking],
        newest_painted: int,
    ) -> Publication:
        labels = self._store.labels.of(project.id)
        return Publication(
            pool=self._sync.project(project),
            project=project,
            version=version,
            images={image.id: image for image in self._store.images.of(project.id)},
            rankings=rankings,
            labels=labels_by_image(labels),
            region_size=self._config.ranking.region_size,
            newest_painted=newest_painted,
            learned_label_id=self._learned_label_id(project, version),
            sought=sought(self._store, project, version, labels),
        )

    def _learned_label_id(self, project: Project, version: Version) -> int:
        """Of the newest label in the training that a version comes of; 0 where nothing says so."""
        trained = self._store.versions.find(project.id, version.round_version)
        return 0 if trained is None else int(trained.metrics.get("newest_label_id") or 0)

    def _publish_images(self, publication: Publication) -> None:
        version, project = publication.version, publication.project
        self._tool.publish_image_predictions(
            publication.pool, version.name, project.class_names, self._suggestions(publication)
        )
        logger.info(
            "project %s: published %s for %d images",
            project.tool_id,
            version.name,
            len(publication.image_sizes),
        )

    def _suggestions(self, publication: Publication) -> Iterator[ImageSuggestion]:
        """Of each image that can be shown, made when it is its turn."""
        masks = self._masks(publication)
        for image_id in publication.image_sizes:
            image, ranking = publication.images[image_id], publication.rankings[image_id]
            suggestion = suggest_image(
                self._store,
                publication.version,
                image,
                ranking,
                publication.pictures.labels(image_id),
                publication.region_size,
                self._config.suggestions_per_image,
                masks.of(image, ranking),
                lambda: publication.sought,
            )
            is_double = publication.pictures.is_double(image_id)  # it is asked in another task
            yield replace(suggestion, usefulness=0.0) if is_double else suggestion

    def _masks(self, publication: Publication) -> PredictedMasks:
        return PredictedMasks(
            self._store,
            self._tool,
            publication.pool,
            publication.project,
            publication.version,
            self._config.ranking,
        )

    def _would_replace(self, publication: Publication) -> bool:
        """Whether what was published before would go."""
        return publication.is_new and publication.project.published_version is not None

    def _rank_others(self, publication: Publication) -> None:
        """Have the version in use rank again, as it can show nothing and there are other images.

        Raises:
            ValueError: if there are none, or it is not in use: none but that one ranks.
        """
        project, version = publication.project, publication.version
        is_in_use = version.number == project.current_version and version.ranked_at is not None
        if not is_in_use or not self._store.images.has_unranked(project.id, version.id):
            raise ValueError(
                f"none of the images that {version.name} has ranked can be read now; "
                f"`ralis doctor --project {project.tool_id}` says why"
            )
        self._store.versions.change(version.id, ranked_at=None)

    def _has_misfits(self, project: Project, version: Version) -> bool:
        """Whether images were ranked that have other regions now; then the version ranks again."""
        scored = self._store.rankings.num_regions(version.id)
        size = self._config.ranking.region_size
        misfits = [
            image.id
            for image in self._store.images.of(project.id)
            if image.id in scored
            and image.size is not None
            and scored[image.id] != grid_size(image.size, size)
        ]
        if misfits:
            logger.warning(
                "project %s: %d images have other regions than %s ranked; it ranks again",
                project.tool_id,
                len(misfits),
                version.name,
            )
            self._store.rankings.forget(version.id, misfits)
        return bool(misfits)

    def _seconds(self, project: Project, version: Version) -> Mapping[str, float]:
        stored = self._store.versions.find(project.id, version.number)
        seconds: Mapping[str, float] = (stored or version).metrics.get("seconds", {})
        return seconds

    def _drop_old_rankings(self, project: Project, published: Version) -> None:
        kept = {project.current_version, published.number}
        ranked = self._store.rankings.version_ids(project.id)
        for version in self._store.versions.all(project.id):
            if version.number not in kept and version.id in ranked:
                self._store.rankings.drop(version.id)
