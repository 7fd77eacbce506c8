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
from ralis_backend.online.tool import ImageUnreachable, Tool, ToolUnavailable

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
        missed = None if version is None else _Missed(self._store, project, version)
        down: set[str | None] = set()  # hosts: what they have is put off
        begun = time.monotonic()
        for image in self._store.images.to_try_again(project.id, now(), TRIES_PER_STEP):
            if should_stop() or time.monotonic() - begun > MOST_S:
                return
            if image.unreachable_host in down:
                continue
            failure = self._read(image, pictures)
            if isinstance(failure, ImageUnreachable) and not failure.was_asked:
                down.add(failure.host)
            if failure is None:
                logger.info(
                    "project %s, task %s: can be read again", project.tool_id, image.task_id
                )
                if missed is not None:  # at once: an error, or a kill, may end the step
                    missed.note(image)

    def _read(self, image: Image, pictures: Pictures) -> Exception | None:
        """What still keeps an image from being read."""
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
            return error
        height, width = pixels.shape[:2]
        self._store.images.seen(image.id, (height, width), content_of(pixels))
        return None


class _Missed:
    """Readable images that a version has not ranked: once they are many, it is to rank again."""

    def __init__(self, store: Store, project: Project, version: Version) -> None:
        self._store, self._project, self._version = store, project, version
        self._ranked = store.rankings.num_regions(version.id)
        self._count = store.images.num_missed(project.id, version.id)
        self._is_asked = False

    def note(self, image: Image) -> None:
        """One more can be read."""
        self._count += image.id not in self._ranked
        if not self._is_asked and self._count >= _WORTH_A_RANKING * len(self._ranked):
            self._is_asked = True
            self._store.projects.change(self._project.id, is_publishing_requested=True)
            self._store.versions.change(self._version.id, ranked_at=None)
