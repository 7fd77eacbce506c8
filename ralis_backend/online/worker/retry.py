"""Images that could not be read -> another try; what became readable takes part again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from ralis_backend.core.images import content_of
from ralis_backend.online.pictures import NOT_ITS_FAULT, Pictures
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.tool import Tool, ToolUnavailable

logger = logging.getLogger(__name__)

TRIES_PER_STEP = 100
MOST_S = 10.0
"""After so long no other image is begun: what else is due comes between."""
_PUT_OFF = timedelta(minutes=1)
_WORTH_A_RANKING = 0.05
"""Share of the ranked images: where fewer are readable besides, they wait for the next version."""


class Retry:
    """Tries one project's images again, when their pauses are over."""

    def __init__(self, store: Store, tool: Tool) -> None:
        self._store, self._tool = store, tool

    def retry(
        self, project: Project, version: Version | None, should_stop: Callable[[], bool]
    ) -> None:
        """Read some of the images that are due.

        Many that became readable ask for a ranking; for a training, see `Images.seen`.

        Raises:
            ToolUnavailable: if the tool does not answer; the image it was asked for then is tried
                again after the others.
        """
        pictures = Pictures(self._store, project, self._tool.image)
        begun = time.monotonic()
        for image in self._store.images.to_try_again(project.id, now(), TRIES_PER_STEP):
            if should_stop() or time.monotonic() - begun > MOST_S:
                return
            if self._is_readable(image, pictures):
                logger.info(
                    "project %s, task %s: can be read again", project.tool_id, image.task_id
                )
                if version is not None:  # at once: an error, or a kill, may end the step
                    self._rank_again(project, version)

    def _is_readable(self, image: Image, pictures: Pictures) -> bool:
        try:
            size = image.size if self._store.labels.of_image(image.id) else None
            pixels = pictures.read(image, size)
        except ToolUnavailable:
            self._store.images.change(image.id, retry_at=now() + _PUT_OFF)
            raise
        except NOT_ITS_FAULT:
            raise
        except Exception as error:
            logger.debug("task %s still cannot be read: %s", image.task_id, error)
            return False
        height, width = pixels.shape[:2]
        self._store.images.seen(image.id, (height, width), content_of(pixels))
        return True

    def _rank_again(self, project: Project, version: Version) -> None:
        num_ranked = len(self._store.rankings.num_regions(version.id))
        if self._store.images.num_missed(project.id, version.id) >= _WORTH_A_RANKING * num_ranked:
            self._store.projects.change(project.id, is_publishing_requested=True)
            self._store.versions.change(version.id, ranked_at=None)
