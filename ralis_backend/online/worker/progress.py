"""What a step says of its progress -> `/job_status` and the log, both at a bearable rate."""

from __future__ import annotations

import logging
import time
from typing import Any

from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
LOG_EVERY_S = 10.0


class Progress:
    """Takes the progress of one step of one project."""

    def __init__(self, store: Store, project: Project) -> None:
        self._store = store
        self._project = project
        self._written = float("-inf")
        self._logged = time.monotonic()

    def __call__(self, values: dict[str, Any]) -> None:
        """Note where the step is: JSON values, `state` among them."""
        moment = time.monotonic()
        if moment - self._written >= WRITE_EVERY_S:
            self._written = moment
            self._store.projects.change(self._project.id, progress=values)
        if moment - self._logged >= LOG_EVERY_S:
            self._logged = moment
            text = ", ".join(f"{name} {value}" for name, value in values.items())
            logger.info("project %s: %s", self._project.tool_id, text)

    def end(self) -> None:
        """The step is done, and nothing else has begun."""
        self._store.projects.change(self._project.id, progress={"state": "idle"})
