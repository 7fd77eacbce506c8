"""A task's image file -> its pixels, by the one rule of its project.

The rule is stored with the project. What it does not say yet, how values of more than 8 bits are
shown, is measured when the first such picture is met, on a sample of the project's pictures; later
pictures do not change it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ralis_backend.core.images import RangeUnknown, decode_image, deep_values
from ralis_backend.core.intensity import Kind, PixelRule, Range, range_of
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import ImageUnreachable, ToolTask, ToolUnavailable

logger = logging.getLogger(__name__)

SAMPLE = 16
"""Pictures that a range is measured on."""
_GONE = 6
"""Failures in a row, over five hours: what is not delivered for so long is no outage."""
MEASURED, SETTING = "measured", "RALIS_INTENSITY_RANGE"
_KINDS: tuple[Kind, ...] = ("integers", "floats")


@dataclass(frozen=True)
class PictureSettings:
    """What the operator says of all projects' pictures.

    bands: which ones of more than three are shown, counted from 1; empty: the first three.
    intensity_range: what becomes black and white, of values of more than 8 bits; None: measured.
    """

    bands: tuple[int, ...] = ()
    intensity_range: Range | None = None


def pixel_rule(project: Project) -> PixelRule:
    """The rule that is stored with a project."""
    stored: Mapping[str, Any] = project.pixel_rule or {}
    ranges = stored.get("ranges") or {}
    return PixelRule(
        tuple(stored.get("bands") or ()),
        {kind: (ranges[kind][0], ranges[kind][1]) for kind in _KINDS if kind in ranges},
    )


def describe_rule(project: Project) -> str:
    """The rule in words, for people."""
    stored: Mapping[str, Any] = project.pixel_rule or {}
    rule = pixel_rule(project)
    sources = stored.get("sources") or {}
    said = [
        f"{kind} beyond 8 bits: {low:g} is black, {high:g} white ({sources.get(kind, 'as set')})"
        for kind, (low, high) in rule.ranges.items()
    ]
    if rule.bands:
        said.append(f"bands {','.join(map(str, rule.bands))} of more than three")
    return "; ".join(said) or "8 bits as they are; deeper ones are measured when the first is met"


def keep_settings(store: Store, project: Project, settings: PictureSettings) -> Project:
    """Bring the project's stored rule in line with the settings; logged where that changes it.

    Models that were trained before have seen the pictures otherwise: a training is asked for.
    """
    stored = dict(project.pixel_rule or {})
    wanted = {name: value for name, value in stored.items() if name != "bands"}
    if settings.bands:
        wanted["bands"] = list(settings.bands)
    if settings.intensity_range is not None:
        wanted["ranges"] = {kind: list(settings.intensity_range) for kind in _KINDS}
        wanted["sources"] = dict.fromkeys(_KINDS, SETTING)
    elif SETTING in (stored.get("sources") or {}).values():
        wanted.pop("ranges", None)
        wanted.pop("sources", None)
    if wanted == stored:
        return project
    project = store.projects.change(project.id, pixel_rule=wanted or None)
    logger.info("project %s: pictures: %s", project.tool_id, describe_rule(project))
    if project.current_version:
        store.projects.change(project.id, is_training_requested=True)
        logger.warning(
            "project %s: its pictures are shown otherwise from now on; crops that were handed out "
            "and the model are of before, until the next training",
            project.tool_id,
        )
    return project


@dataclass(frozen=True)
class Pictures:
    """The pixels of one project's pictures.

    fetch: gives the bytes of a task's file.
    may_measure: whether a range that is not known yet is measured and stored. Where somebody waits
        for an answer it is not: such a picture is shown by its own range until the worker has.
    """

    store: Store
    project: Project
    fetch: Callable[[ToolTask], bytes]
    may_measure: bool = True

    def pixels(self, task: ToolTask) -> np.ndarray:
        """(H, W, 3) uint8, RGB.

        Raises:
            ImageError: if the file cannot be used.
            Exception: what `fetch` raises.
        """
        return self.decode(self.fetch(task))

    def decode(self, content: bytes) -> np.ndarray:
        """The same of a file that is here already."""
        try:
            return decode_image(content, rule=pixel_rule(self.project))
        except RangeUnknown as unknown:
            rule = self._settled(unknown.kind, content)
        return decode_image(content, rule=rule)

    def _settled(self, kind: Kind, content: bytes) -> PixelRule:
        """The rule with the range of a kind of values, stored unless somebody was faster.

        Where every sample is of one value only, it is not stored: that tells nothing of the others.
        """
        project = self.store.projects.by_id(self.project.id)
        rule = pixel_rule(project)
        if kind not in rule.ranges:
            samples, num_unreachable = self._samples(kind, content, rule.bands)
            limits = range_of(samples)
            if (
                not self.may_measure
                or num_unreachable > len(samples)
                or all(sample.size == 0 or sample.min() == sample.max() for sample in samples)
            ):
                return replace(rule, ranges={**rule.ranges, kind: limits})
            source = f"{MEASURED} on {len(samples)} of the pictures"
            project = self.store.projects.settle_range(project.id, kind, limits, source)
            logger.info("project %s: pictures: %s", project.tool_id, describe_rule(project))
        self.project.pixel_rule = project.pixel_rule
        return pixel_rule(project)

    def _samples(
        self, kind: Kind, content: bytes, bands: tuple[int, ...]
    ) -> tuple[list[np.ndarray], int]:
        """Values of this picture and of some others that are of the same kind.

        And how many pictures a host did not deliver, of which some may be of that kind.
        """
        found = deep_values(content, bands)
        samples, num_unreachable = [] if found is None else [found[1]], 0
        if not self.may_measure:
            return samples, 0
        images = self.store.images.of(self.project.id)
        there = [it for it in images if it.error is None or it.num_failures < _GONE]
        for image in _spread(there, SAMPLE - 1):
            try:
                other = deep_values(self.fetch(task_of(image)), bands)
            except ToolUnavailable:
                raise
            except ImageUnreachable:
                num_unreachable += 1
                continue
            except Exception as error:  # whoever reads it for its own sake says so
                logger.debug("task %s says nothing of the range: %s", image.task_id, error)
                continue
            if other is not None and other[0] == kind:
                samples.append(other[1])
        return samples, num_unreachable


def task_of(image: Image) -> ToolTask:
    """The task behind an image."""
    return ToolTask(
        image.task_id, image.task_created_at, image.ref, project_id=image.tool_project_id
    )


def _spread(images: Sequence[Image], count: int) -> list[Image]:
    """Some of the images, evenly over all; none whose name says that it has 8 bits."""
    chosen = [it for it in images if not it.ref.lower().split("?")[0].endswith((".jpg", ".jpeg"))]
    step = max(1, len(chosen) // max(1, count))
    return chosen[::step][:count]
