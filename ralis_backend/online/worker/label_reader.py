"""A stored annotation -> its labelled regions and answers, in the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ralis_backend.core.images import content_of
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.core.text import printable, reason_of, shortened
from ralis_backend.online.answers import REST
from ralis_backend.online.labels import NewLabel, painted_labels, says_something
from ralis_backend.online.pictures import Pictures
from ralis_backend.online.store import StoreError, annotation_from_json, now, unpack
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import Painted, Tool, ToolAnnotation, ToolProject, ToolUnavailable
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.region_tasks import MisplacedRegion, misfit

if TYPE_CHECKING:
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Annotation

logger = logging.getLogger(__name__)

READING = 7
"""How annotations are read. Count it up where the same annotation gives other labels than it did:
each project's are then read once more."""
MAX_LOGGED = 300
"""Characters of what was left out, in a line of the log."""
NOTHING_PAINTED = "nothing is painted in it, and the project has no background label"
NOTHING_ABOUT_PIXELS = (
    "it holds {} and nothing painted, which says nothing about pixels; paint in it, or submit it "
    "empty where all of it is background"
)
UNKNOWN_WHICH = (
    "nothing is painted in it, and it does not say which of the regions that were suggested on its "
    "image it is about: it began from none that is known"
)
NOTHING_INSIDE = "none of the regions that were suggested in it lies in the image as it is now"


@dataclass(frozen=True)
class _Asked:
    """The regions that an annotation labels, and why some are left out.

    is_certain: whether it is about all of these; else about those in which something is painted.
    were_asked_for: whether they were shown to be labelled; see `painted_labels`.
    elsewhere: further regions, of which counts what a person painted outside of the others.
    drawn_instead: what was drawn on a whole image that nobody asked for, by type; nobody painted.
    """

    regions: Sequence[Region]
    is_certain: bool = True
    were_asked_for: bool = True
    left_out: Sequence[str] = ()
    elsewhere: Sequence[Region] = ()
    drawn_instead: Sequence[str] = ()


class LabelReader:
    """Reads the labels of one project's annotations; each may be read at any time again.

    Args:
        store: where annotations lie and labels go.
        tool: knows what results mean, and gives images.
        config: how regions are cut.
        project: whose annotations these are; it says what unpainted pixels are.
        pool: the project as the tool has it.
    """

    def __init__(
        self, store: Store, tool: Tool, config: WorkerConfig, project: Project, pool: ToolProject
    ) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._project = project
        self._pool = pool

    def read(self, row: Annotation) -> None:
        """Annotation -> labelled regions and answers; a failure is noted with the annotation.

        What failed has to be read still, and costs its neighbours nothing.

        Raises:
            ToolUnavailable: if the tool itself does not answer; one image's host alone is a
                failure of that annotation.
            OSError: if a mask cannot be written.
        """
        annotation = annotation_from_json(unpack(row.payload))
        answers: dict[str, Any] = {}
        try:
            if not row.is_machine:
                is_asked = bool(row.begun_from) and not row.is_start_lost
                answers = self._tool.answers(annotation, is_asked=is_asked)
            if row.image_id is None:
                raise ValueError(
                    f"annotation {annotation.id} belongs to task {annotation.task_id}, "
                    "which is not known here"
                )
            self._refuse_misplaced(row)
            with self._store.attempts.trying(*_attempt_at(row)):
                labels, left_out = self._labels(row, row.image_id, annotation, answers)
        except StoreError:
            raise
        except Exception as error:
            logger.warning("project %s: %s", self._project.tool_id, reason_of(error))
            self._note_failure(row, error, answers)
            return
        if left_out:
            self._say(annotation, labels, left_out)
        self._store.labels.put(row, labels, answers, left_out, self._project.meaning)

    def _note_failure(self, row: Annotation, error: Exception, answers: Mapping[str, Any]) -> None:
        """It is tried again; a region that was asked for does not wait for it meanwhile."""
        message = reason_of(error)
        if isinstance(error, ToolUnavailable) or row.crop_task_id is None:
            self._store.annotations.fail(row, message)
        elif isinstance(error, MisplacedRegion):
            self._take_out(row, row.crop_task_id)
            self._store.annotations.fail(row, message)
        else:
            region = self._store.queue.get(row.crop_task_id).region
            self._store.labels.put_unread(row, region, answers, message)
        if isinstance(error, ToolUnavailable):
            self._tool.project(self._project.tool_id)

    def _take_out(self, row: Annotation, crop_task_id: int) -> None:
        """A misplaced region waits for nobody; what was read of it while it was believed goes."""
        state = self._store.queue.get(crop_task_id).state
        if state == "done":
            self._store.labels.put(row, [], {})
        elif state == "open":
            self._store.queue.change({crop_task_id: {"state": "deleted"}})

    def _refuse_misplaced(self, row: Annotation) -> None:
        """Raises `MisplacedRegion` if the image cannot have the region that a task is about."""
        if row.crop_task_id is None or row.image_id is None:
            return
        image = self._store.images.get(row.image_id)
        why = misfit(self._store.queue.get(row.crop_task_id), image.size)
        if why is not None:
            raise MisplacedRegion(f"annotation {row.annotation_id} of task {row.task_id}: {why}")

    def _say(
        self, annotation: ToolAnnotation, labels: Sequence[NewLabel], left_out: Sequence[str]
    ) -> None:
        is_read = any(label.mask is not None for label in labels)
        logger.warning(
            "project %s: annotation %d of task %d %s: %s%s",
            self._project.tool_id,
            annotation.id,
            annotation.task_id,
            "was read in part" if is_read else "has nothing that counts",
            printable(shortened(left_out[0], MAX_LOGGED)),
            f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else "",
        )

    def _unpainted(self, answers: Mapping[str, Any]) -> tuple[str | None, list[str]]:
        """The class of this annotation's unpainted pixels: as the annotator said, or as usual.

        And what of that does not count.
        """
        rest, names = answers.get(REST.name), self._project.class_names
        if rest is None or rest in names:
            return rest or self._project.background_name, []
        return self._project.background_name, [
            f"what is left unpainted is said to be {shortened(repr(rest), 100)}, which is not one "
            f"of {shortened(', '.join(names), 100)}; add it to the label config or repair the "
            "annotation"
        ]

    def _labels(
        self,
        row: Annotation,
        image_id: int,
        annotation: ToolAnnotation,
        answers: Mapping[str, Any],
    ) -> tuple[list[NewLabel], list[str]]:
        """What an annotation labels, and what of it does not count."""
        unpainted, odd_rest = self._unpainted(answers)
        if row.crop_task_id is not None:
            region = self._store.queue.get(row.crop_task_id).region
            size = (region.height, region.width)
            asked, places = _Asked([region]), [Region(0, 0, *size)]
        else:
            size = self._image_size(image_id)
            asked = self._asked_regions(row, annotation, size)
            places = list(asked.regions)
        left_out = [*asked.left_out]
        if annotation.is_skipped:
            return [NewLabel(region, None) for region in asked.regions], left_out
        found = self._tool.refusals(annotation, self._pool, size, places)
        if asked.drawn_instead and REST.name not in answers and not found.refused:
            return [], [NOTHING_ABOUT_PIXELS.format(" and ".join(asked.drawn_instead))]
        place_of = dict(zip(asked.regions, places, strict=True))
        refused = [region for region, place in place_of.items() if place in found.refused]
        disputed = {region for region, place in place_of.items() if place in found.disputed}
        names = self._project.class_names
        painted = self._tool.mask(annotation, self._pool, names, size, unpainted)

        def patch(region: Region, place: Region) -> np.ndarray:
            if region in disputed:
                return painted.made_in(place)
            drawn = painted.drawn_in(place)
            is_about_it = asked.is_certain or says_something(drawn)
            return painted.mask[place.slices] if is_about_it else drawn

        def digest(region: Region) -> str:
            return painted.digest(place_of[region], answers.get(REST.name))

        patches = [
            (region, patch(region, place))
            for region, place in place_of.items()
            if place not in found.refused
        ]
        labels = [NewLabel(region, None, drawn_digest=digest(region)) for region in refused]
        labels += [
            replace(
                label,
                is_disputed=label.region in disputed and label.mask is not None,
                drawn_digest=digest(label.region),
            )
            for label in painted_labels(patches, were_asked_for=asked.were_asked_for)
        ]
        labels += _made_elsewhere(painted, asked)
        left_out += [*painted.left_out, *odd_rest]
        is_painted = any(label.mask is not None for label in labels)
        if patches and not is_painted and not left_out:
            if asked.is_certain or unpainted is None:
                left_out.append(NOTHING_PAINTED)
            elif not refused:
                left_out.append(UNKNOWN_WHICH)
        return labels, left_out

    def _asked_regions(
        self, row: Annotation, annotation: ToolAnnotation, size: tuple[int, int]
    ) -> _Asked:
        """What a whole-image annotation labels.

        The rectangles it carries; else the regions that its masks name and those that it began
        from, and elsewhere, as no box said where to paint, what a person painted. Where nobody
        knows which regions it began from, it is about those in which something is painted. Else the
        whole image, region by region, unless there were rectangles that cannot be read.
        """
        begun_from = [Region(*place) for place in row.begun_from or ()]
        certain = [] if row.is_start_lost else begun_from
        found = self._tool.annotated_regions(annotation, self._pool, size, certain)
        is_certain = not row.is_start_lost or bool(found.regions or found.left_out)
        if not is_certain:
            found = self._tool.annotated_regions(annotation, self._pool, size, begun_from)
        left_out = list(found.left_out)
        if begun_from and not found.regions and not left_out:
            left_out.append(NOTHING_INSIDE)
        if found.regions:
            elsewhere = [] if found.are_boxes else self._cells(size)
            return _Asked(found.regions, is_certain, is_certain, left_out, elsewhere)
        if left_out:
            return _Asked((), left_out=left_out)
        whole = self._cells(size)
        return _Asked(whole, were_asked_for=False, drawn_instead=found.drawn_instead)

    def _cells(self, size: tuple[int, int]) -> list[Region]:
        return grid(size, self._config.ranking.region_size)

    def _image_size(self, image_id: int) -> tuple[int, int]:
        """(height, width) of an annotated image, read from its file the first time.

        While it rests after a failure it is not asked for: of many annotations of a host that is
        down each would be waited for.
        """
        image = self._store.images.get(image_id)
        if image.size is not None:
            return image.size
        if not image.may_be_tried(now()):
            raise ValueError(
                f"the size of the image of task {image.task_id} is not known, and it cannot be "
                f"read: {image.error}"
            )
        pixels = Pictures(self._store, self._project, self._tool.image).read(image)
        height, width = pixels.shape[:2]
        self._store.images.seen(image.id, (height, width), content_of(pixels))
        return height, width


def _made_elsewhere(painted: Painted, asked: _Asked) -> list[NewLabel]:
    """What a person painted outside of the regions that were asked for; no background there."""
    is_open = np.ones(painted.mask.shape, bool)
    for region in asked.regions:
        is_open[region.slices] = False
    labels = []
    for cell in asked.elsewhere:
        open_here = is_open[cell.slices]
        made = np.where(open_here, painted.made_in(cell), np.uint8(VOID))
        if says_something(made):
            share = np.count_nonzero(made != VOID) / np.count_nonzero(open_here)
            digest = painted.digest(cell)
            labels.append(NewLabel(cell, made, drawn_digest=digest, share_beside=share))
            open_here[:] = False  # cells at the border overlap
    return labels


def _attempt_at(row: Annotation) -> tuple[int, str, int, str]:
    return row.project_id, "annotation", row.id, f"annotation {row.annotation_id}"
