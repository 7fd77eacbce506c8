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
from ralis_backend.online.store import Store, StoreError, now
from ralis_backend.online.store.attempts import IMAGE
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import ImageUnreachable, ToolTask, ToolUnavailable

logger = logging.getLogger(__name__)

SAMPLE = 16
"""Pictures that a range is measured on."""
ENOUGH = 8
"""Of these, or half of the pool, that were had settle it: an outage hides most of them."""
NOT_ITS_FAULT = (ToolUnavailable, StoreError)
"""What says nothing of the image or annotation that was being read: the step is tried again."""
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

    def read(self, image: Image, size: tuple[int, int] | None = None) -> np.ndarray:
        """`pixels` of an image of the pool; what goes wrong is noted with it, also if that is all.

        Args:
            image: the row.
            size: the (height, width) that it has to have; None: any.

        Raises:
            SetAsideError: if it has ended the worker three times.
            ValueError: if it is of another size.
            Exception: as `pixels`; of `NOT_ITS_FAULT` nothing is noted.
        """
        try:
            with self.store.attempts.trying(*attempt_on(image)):
                pixels = self.pixels(task_of(image))
            if size is not None:
                check_size(pixels.shape[:2], size)
        except NOT_ITS_FAULT:
            raise
        except Exception as error:
            self.store.images.fail(image.id, error)
            raise
        return pixels

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
        Nor is it while most pictures of a small pool are out of reach.
        """
        project = self.store.projects.by_id(self.project.id)
        rule = pixel_rule(project)
        if kind not in rule.ranges:
            samples, are_enough = self._samples(kind, content, rule.bands)
            limits = range_of(samples)
            if (
                not self.may_measure
                or not are_enough
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
    ) -> tuple[list[np.ndarray], bool]:
        """Values of this picture and of some others that are of the same kind.

        And whether enough were had to speak for the pool. What failed is not asked for again.
        """
        found = deep_values(content, bands)
        samples = [] if found is None else [found[1]]
        if not self.may_measure:
            return samples, False
        images = _may_be_deep(self.store.images.of(self.project.id))
        num_had = 0
        for image in _spread([it for it in images if it.error is None], SAMPLE - 1):
            try:
                with self.store.attempts.trying(*attempt_on(image)):
                    other = deep_values(self.fetch(task_of(image)), bands)
            except NOT_ITS_FAULT:
                raise
            except Exception as error:
                logger.debug("task %s says nothing of the range: %s", image.task_id, error)
                self.store.images.fail(image.id, error)
                num_had += not isinstance(error, ImageUnreachable)
                continue
            num_had += 1
            if other is not None and other[0] == kind:
                samples.append(other[1])
        awaited = [it for it in images if it.error is None or it.is_out_of_reach(now())]
        return samples, num_had >= min(ENOUGH, len(awaited) / 2)


def task_of(image: Image) -> ToolTask:
    """The task behind an image."""
    return ToolTask(
        image.task_id, image.task_created_at, image.ref, project_id=image.tool_project_id
    )


def attempt_on(image: Image) -> tuple[int, str, int, str]:
    """What `Attempts.trying` counts an image under."""
    return image.project_id, IMAGE, image.id, f"the image of task {image.task_id}"


def check_size(found: tuple[int, ...], expected: tuple[int, int]) -> None:
    """Raise `ValueError` if an image is of another size than its labels, (height, width)."""
    if found != expected:
        raise ValueError(
            f"the image has {found[0]} x {found[1]} pixels (height x width) now, its labels were "
            f"made at {expected[0]} x {expected[1]}; restore the image file, or delete the task"
        )


def _may_be_deep(images: Sequence[Image]) -> list[Image]:
    """Those whose names do not say that they have 8 bits."""
    return [it for it in images if not it.ref.lower().split("?")[0].endswith((".jpg", ".jpeg"))]


def _spread(images: Sequence[Image], count: int) -> Sequence[Image]:
    """At most `count` of the images, evenly over all."""
    step = max(1, -(-len(images) // max(1, count)))
    return images[::step]
