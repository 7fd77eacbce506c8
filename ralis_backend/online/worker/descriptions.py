"""How a project stands -> one line each in the descriptions of its two projects in the tool."""

from __future__ import annotations

import logging
import time

from ralis_backend.online.advice import score_name, score_of
from ralis_backend.online.hits import shown_wish, wish_lines
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import Tool, ToolError

logger = logging.getLogger(__name__)

EVERY_S = 60.0
"""Between two looks at what annotators have done; a new version is told at once."""


class Descriptions:
    """Keeps the descriptions of projects current; nothing depends on them."""

    def __init__(self, store: Store, tool: Tool) -> None:
        self._store, self._tool = store, tool
        self._told: dict[int, tuple[float, str]] = {}

    def keep(self, project_id: int, *, is_urgent: bool = True) -> None:
        """Write what has changed, leaving the owner's own words alone.

        Args:
            project_id: the project's row.
            is_urgent: look also shortly after the last time, and at what the tool shows.
        """
        told_at, told = self._told.get(project_id, (float("-inf"), ""))
        if not is_urgent and time.monotonic() - told_at < EVERY_S:
            return
        project = self._store.projects.by_id(project_id)
        standing = standing_of(self._store, project)
        if is_urgent or standing != told:
            try:
                self._write(project, standing)
            except (ToolError, ValueError) as error:
                logger.info(
                    "project %s: its description stays as it is: %s", project.tool_id, error
                )
        self._told[project_id] = (time.monotonic(), standing)

    def _write(self, project: Project, standing: str) -> None:
        if project.regions_tool_id is None:
            self._tool.describe(project.tool_id, standing)
            return
        title = self._tool.project(project.regions_tool_id).title
        where = f'Label in the project "{title}" (number {project.regions_tool_id}).'
        self._tool.describe(project.tool_id, f"{where} {standing}")
        of = f'Regions of the project "{project.title}" (number {project.tool_id}).'
        self._tool.describe(project.regions_tool_id, f"{of} {standing}")


def standing_of(store: Store, project: Project) -> str:
    """Version, quality, progress and advice in a few sentences."""
    version = store.versions.find(project.id, project.current_version)
    metrics = {} if version is None else version.metrics
    miou = score_of(metrics)
    model = f"Model v{project.current_version}"
    if miou is not None:
        held_out = metrics.get("validation_regions", 0)
        low, high = metrics.get("validation_interval", (None, None))
        between = "" if low is None else f" [{100 * low:.0f}, {100 * high:.0f}]"
        where = _counted(held_out, "held-out region")
        model += f", {score_name(metrics)} {100 * miou:.1f} %{between} on {where}"
    pool = store.images.pixels(project.id)
    share = f", {100 * store.labels.area(project.id) / pool:.2f} % of the pool" if pool else ""
    regions = _counted(store.labels.count_regions(project.id), "region")
    advice = project.people.get("advice") or ""
    wish = shown_wish(store, project)
    looks_for = "" if wish is None else f"Looks for {'. '.join(wish_lines(wish))}. "
    return f"{model}; {regions} labelled{share}. {looks_for}{advice}".strip()


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"
