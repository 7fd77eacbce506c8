"""What a project's versions leave behind: weights and files that nothing needs any more."""

from __future__ import annotations

import logging
import time

from ralis_backend.online.further import Further
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.worker.config import WorkerConfig

logger = logging.getLogger(__name__)

EVERY_S = 3600.0


class Tidying:
    """Tidies up each project once an hour, under its lease: what it finds unused is so."""

    def __init__(self, store: Store, config: WorkerConfig) -> None:
        self._store = store
        self._config = config
        self._done_at: dict[int, float] = {}

    def is_due(self, project: Project) -> bool:
        """Whether this worker has not done it within the hour."""
        return time.monotonic() - self._done_at.get(project.id, float("-inf")) >= EVERY_S

    def tidy(self, project: Project) -> None:
        """Drop weights that are not to be kept, and files that no row names."""
        self._drop_weights(project)
        used = self._store.versions.weights_keys(project.id)
        num_removed = self._store.blobs.keep_only(f"versions/{project.id}", used)
        for version in self._store.versions.all(project.id):
            used = self._store.rankings.mask_keys(version.id)
            num_removed += self._store.blobs.keep_only(f"rankings/{version.id}", used)
        num_removed += self._store.blobs.keep_only(f"further/{project.id}", self._further(project))
        num_removed += self._store.blobs.keep_only(f"spool/{project.id}", set())
        if num_removed:
            logger.info("project %s: %d unused files were removed", project.tool_id, num_removed)
        self._done_at[project.id] = time.monotonic()

    def _further(self, project: Project) -> set[str]:
        """What was kept of the continued training of the version in use."""
        version = self._store.versions.find(project.id, project.current_version)
        return set() if version is None else Further.of(version.metrics).files

    def _drop_weights(self, project: Project) -> None:
        dropped = self._store.versions.drop_weights(project.id, self._config.kept_versions)
        if dropped:
            names = ", ".join(version.name for version in dropped)
            logger.info("project %s: the weights of %s are no longer kept", project.tool_id, names)
