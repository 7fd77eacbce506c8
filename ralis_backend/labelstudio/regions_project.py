"""The regions project of a pool: found by its mark, made once, kept in order; its doubles.

Its description carries the pool's uid. Where somebody has written another description, its
labelling interface still tells that it is one of ours.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import (
    LabelStudioError,
    NotFound,
    Unauthorised,
    Unavailable,
)
from ralis_backend.labelstudio.once import deleted, found_or_made
from ralis_backend.labelstudio.payloads.hotkeys import with_hotkeys
from ralis_backend.labelstudio.payloads.instructions import HEADING, instructions
from ralis_backend.labelstudio.payloads.label_config import (
    REGION_LABEL,
    LabelConfig,
    parse_label_config,
)
from ralis_backend.labelstudio.payloads.regions_config import (
    REGIONS_SIGN,
    is_like,
    regions_config,
    shows_regions,
)
from ralis_backend.labelstudio.payloads.tasks import project_uid
from ralis_backend.online.tool import ToolProject

logger = logging.getLogger(__name__)

MARKER = "ralis:pool="
"""Stands in a regions project's description, so that it is found again by its pool's uid."""
SUFFIX = " · regions"
UNLESS = f"remove from its labelling interface {REGIONS_SIGN}"
"""What to do with a pool that looks like a regions project."""
_MARK = re.compile(re.escape(MARKER) + r"([0-9]+(?:\.[0-9]+)?)(?![0-9.]*[0-9])")

LEAST_USEFUL_FIRST = {
    "sampling": "Uncertainty sampling",
    "show_collab_predictions": True,
    "evaluate_predictions_automatically": False,
}

REGIONS_SETTINGS = {**LEAST_USEFUL_FIRST, "skip_queue": "IGNORE_SKIPPED"}
"""A region that one annotator skips is not handed to the next."""

Project = dict[str, Any]


def pool_of(project: Mapping[str, Any]) -> str | None:
    """The uid of the pool whose regions a project holds; None if its description names none."""
    found = _MARK.search(str(project.get("description")))
    return found[1] if found else None


def is_regions_project(project: Mapping[str, Any]) -> bool:
    """Whether a project is one that we made for regions, whatever its description says now."""
    return pool_of(project) is not None or shows_regions(str(project.get("label_config")))


class RegionsProjects:
    """The regions projects of one Label Studio server.

    Args:
        client: its API.
        region_label: names the rectangles of suggested regions.
    """

    def __init__(self, client: LabelStudioClient, region_label: str = REGION_LABEL) -> None:
        self._client = client
        self._region_label = region_label

    def keep(
        self, pool: ToolProject, regions_project_id: int | None, regions_uid: str | None = None
    ) -> Project:
        """The pool's regions project, with its mark; made if there is none.

        Args:
            pool: whose regions are labelled there.
            regions_project_id: as it is known; None: it is looked for by its mark.
            regions_uid: likewise: one of this uid is the one, whatever its owner has made of it.
        """
        known = self._known(pool, regions_project_id, regions_uid)
        found, _ = found_or_made(
            f"the regions project of project {pool.id}",
            lambda: known or self.find(pool),
            lambda: self._make(pool),
        )
        return found

    def find(self, pool: ToolProject) -> Project | None:
        """The one with the most annotations, then tasks, then the oldest; None if there is none."""
        marked = list(self.marked(pool))
        best = min(
            marked,
            key=lambda it: (-num_annotations(it), -num_tasks(it), int(it["id"])),
            default=None,
        )
        return None if best is None else self._client.project(int(best["id"]))

    def marked(self, pool: ToolProject) -> Iterator[Project]:
        """All projects that carry the pool's mark, with their counts."""
        for found in self._client.projects():
            if pool_of(found) == pool.uid:
                yield found

    def tidy_doubles(self, pool: ToolProject, regions_project_id: int) -> list[str]:
        """Delete doubles of the regions project in which there is nothing; what to say of others.

        Args:
            pool: whose regions are labelled.
            regions_project_id: the one that is in use.
        """
        notes = []
        for double in list(self.marked(pool)):
            double_id = int(double["id"])
            if double_id == regions_project_id:
                continue
            if self._delete_if_empty(pool, double_id):
                continue
            notes.append(
                f"project {double_id} is a second regions project of project {pool.id}, with "
                f"{num_tasks(double)} tasks and {num_annotations(double)} annotations, which are "
                f"not read: project {regions_project_id} is the one in use; when nothing in "
                f"project {double_id} is needed, delete it in Label Studio"
            )
        return notes

    def _delete_if_empty(self, pool: ToolProject, double_id: int) -> bool:
        try:
            double = self._client.project(double_id)
        except NotFound:
            return True
        if pool_of(double) != pool.uid or num_tasks(double) or num_annotations(double):
            return False
        if "task_number" not in double:  # it does not say
            return False
        deleted(self._client.delete_project, double_id)
        logger.warning(
            "project %d, an empty second regions project of project %d, was deleted",
            double_id,
            pool.id,
        )
        return True

    def _known(self, pool: ToolProject, project_id: int | None, uid: str | None) -> Project | None:
        """The project of this id, if it is the pool's regions project; its mark is kept."""
        if project_id is None or project_id == pool.id:
            return None
        try:
            found = self._client.project(project_id)
        except NotFound:
            return None
        marked = pool_of(found)
        if marked == pool.uid:
            return found
        is_known = project_uid(found) == uid or shows_regions(str(found.get("label_config")))
        if marked is None and is_known:
            text = f"{str(found.get('description') or '').rstrip()} {MARKER}{pool.uid}".strip()
            return self._client.update_project(project_id, description=text)
        return None

    def _make(self, pool: ToolProject) -> Project:
        parsed = self._parsed(pool)
        return self._client.create_project(
            f"{pool.title[:40]}{SUFFIX}",
            regions_config(parsed, pool.background),
            description=f"Suggested regions of project {pool.id}, kept by RALIS. "
            f"{MARKER}{pool.uid}",
            **REGIONS_SETTINGS,
            **self._told(pool, parsed),
            show_instruction=True,
        )

    def keep_in_order(self, pool: ToolProject, found: Project) -> None:
        """Bring the settings and labels of a pool's regions project in order.

        Raises:
            LabelStudioError: saying what to do, where Label Studio refuses its labelling interface.
        """
        regions_id, parsed = int(found["id"]), self._parsed(pool)
        told = self._told(pool, parsed)
        if not is_ours(found.get("expert_instruction")):
            del told["expert_instruction"]
        keep_settings(self._client, regions_id, {**REGIONS_SETTINGS, **told})
        shown = str(found["label_config"])
        if not is_like(shown, parsed, pool.background):
            self._write_config(pool, found, parsed)
        elif (keyed := with_hotkeys(shown, parsed)) != shown:
            self._client.update_project(regions_id, label_config=keyed)

    def _write_config(self, pool: ToolProject, found: Project, parsed: LabelConfig) -> None:
        """Once there are tasks, controls that are gone stay, hidden.

        Label Studio takes no interface without a control that annotations use, and shows neither
        waiting suggestions nor what an open screen is about to submit in one that is gone.
        """
        regions_id, shown = int(found["id"]), str(found["label_config"])
        before = None if found.get("task_number") == 0 else shown
        config = regions_config(parsed, pool.background, before)
        try:
            self._client.update_project(regions_id, label_config=config)
        except (NotFound, Unauthorised, Unavailable):
            raise
        except LabelStudioError as error:
            raise LabelStudioError(
                f"the labelling interface of project {regions_id} stays as it was, annotators draw "
                f"with the controls and labels from before: {error}; give controls of another type "
                f"other names than before in project {pool.id}, and leave its Image the name it had"
            ) from None

    def _told(self, pool: ToolProject, config: LabelConfig) -> dict[str, Any]:
        """Settings by which annotators learn what to do.

        Without a background an empty submission says nothing: Label Studio then refuses it.
        """
        text = instructions(
            [label.name for label in config.labels],
            pool.background,
            is_brush=config.control_type == "brushlabels",
            of_owner=str(self._client.project(pool.id).get("expert_instruction") or ""),
        )
        return {
            "expert_instruction": text,
            "enable_empty_annotation": pool.background is not None,
        }

    def _parsed(self, pool: ToolProject) -> LabelConfig:
        return parse_label_config(pool.label_config, self._region_label)


def is_ours(instruction: Any) -> bool:
    """Whether a regions project's instructions are ours to keep up to date: the owner's are not."""
    return not instruction or str(instruction).startswith(HEADING)


def num_annotations(project: Mapping[str, Any]) -> int:
    """Submitted and skipped annotations that a project counts."""
    names = ("total_annotations_number", "skipped_annotations_number")
    return sum(int(project.get(name) or 0) for name in names)


def num_tasks(project: Mapping[str, Any]) -> int:
    """Tasks that a project counts."""
    return int(project.get("task_number") or 0)


def keep_settings(client: LabelStudioClient, project_id: int, wanted: Mapping[str, Any]) -> None:
    """Change those settings of a project that are not as `wanted`."""
    project = client.project(project_id)
    changes = {name: value for name, value in wanted.items() if project.get(name) != value}
    if changes:
        client.update_project(project_id, **changes)
