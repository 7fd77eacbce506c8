"""What the worker needs of the labelling tool, and the values that travel between them.

The worker is handed a `Tool`; `labelstudio/tool.py` implements it. Nothing here knows Label
Studio's formats, and nothing there knows the store.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from ralis_backend.core.regions import VOID, Region

MAX_ID = 2**63 - 1
"""Of projects, tasks and annotations: what a database's integer holds."""


def is_id(value: Any) -> bool:
    """Whether it is an id that the tool gives and a database holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID


class ToolError(Exception):
    """The labelling tool did not do what was asked; the message says what to do.

    ToolNotFound: the project or task is gone.
    NoPool: it holds the regions of another one.
    ToolUnavailable: it is down, slow or overloaded; trying again later may help.
    """


class ToolNotFound(ToolError):
    """The project, task or file does not exist (any more)."""


class NoPool(ToolError):
    """The project holds the regions of a pool: it is not one to be worked on itself."""


class ToolUnavailable(ToolError):
    """The tool does not answer; the same call may succeed later."""


class ImageUnreachable(ValueError):
    """An image is not delivered though the tool answers; it alone may be had later.

    host: who does not deliver it, by a name that all images of it share; None: that is not known.
    was_asked: not where that host is down: then it is asked for one image now and then, and the
        others have not failed.
    failing_s: for how many seconds that host has answered for no image; infinite: that is not
        known.
    """

    def __init__(
        self,
        why: str,
        host: str | None = None,
        *,
        was_asked: bool = True,
        failing_s: float = math.inf,
    ) -> None:
        super().__init__(why)
        self.host, self.was_asked, self.failing_s = host, was_asked, failing_s


@dataclass(frozen=True)
class ClassLabel:
    """A class as annotators see it: its name and its colour, `#RRGGBB`."""

    name: str
    color: str


@dataclass(frozen=True)
class ToolProject:
    """A project of the labelling tool.

    `uid` is `<id>.<unix seconds of creation>`: ids may be handed out again after deletion.
    `num_tasks` and `num_annotations` (skips included) are what the tool counts; None if it does
    not say. `pool_uid`: of the pool for whose regions it was made, where its mark says so.
    `regions_sign`: what its interface has that those of such projects have, in the tool's words;
    None: nothing. `background` is the class of unpainted pixels as it is known here, for what
    annotators are told; the tool does not say it. `shows_boxes`: whether suggested regions are
    shown as boxes, which nobody can delete.
    """

    uid: str
    id: int
    title: str
    label_config: str
    classes: tuple[ClassLabel, ...]
    num_tasks: int | None = None
    num_annotations: int | None = None
    pool_uid: str | None = None
    regions_sign: str | None = None
    background: str | None = None
    shows_boxes: bool = False


@dataclass(frozen=True)
class ToolTask:
    """One task: an image to label. `created_at` tells apart tasks that got the same id.

    created_at: None where the tool says no time, and nobody knows which of them it is.
    `project_id` is the tool's id of its project: whose files it may show.
    What is annotated in it makes no other task of it:
    num_annotations: submitted and skipped.
    changed_at: when an annotation of it changed last, by the tool's clock; None if it was not said.
    state: another one whenever an annotation of it was made, changed or deleted; never empty where
        the tool says it.
    """

    id: int
    created_at: datetime | None
    image: str
    data: Mapping[str, Any] = field(default_factory=dict)
    project_id: int | None = field(default=None, compare=False)
    num_annotations: int = field(default=0, compare=False)
    changed_at: datetime | None = field(default=None, compare=False)
    state: str = field(default="", compare=False)


@dataclass(frozen=True)
class ToolAnnotation:
    """One annotation of a task, its results still in the tool's own format.

    is_starred: a reviewer marked it as the right one of its task.
    is_machine: it was made from a prediction in bulk, and nobody has touched it since.
    copied_from: the id of the annotation that it is a duplicate of.
    is_of_others: it started from a prediction that is none of ours.
    """

    id: int
    task_id: int
    task_created_at: datetime | None  # None: the event did not say
    annotator: str
    created_at: datetime
    updated_at: datetime
    lead_time_s: float | None
    is_skipped: bool
    results: Sequence[Any]  # as they were sent: anything may be among them
    suggested_version: str | None  # model version of the prediction it started from
    is_starred: bool = False
    is_machine: bool = False
    copied_from: int | None = None
    is_of_others: bool = False


@dataclass(frozen=True)
class TaskAnnotations:
    """All annotations of a task at one moment; no drafts.

    unreadable: of those that are malformed, why, by id.
    """

    task: ToolTask
    annotations: Sequence[ToolAnnotation]
    unreadable: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Painted:
    """What an annotation paints.

    mask: (height, width) uint8 class indices, VOID where nothing counts.
    is_made: (height, width) bool, where a person painted: neither what was left as it was
        suggested, nor what nobody painted.
    drawn: (height, width) uint8 indices of `labels`, of what lies on top of the strokes, suggested
        ones too; VOID where there is none.
    labels: the classes, and what else strokes are called.
    left_out: what could not be read and why, one text each.
    """

    mask: np.ndarray
    is_made: np.ndarray
    drawn: np.ndarray
    labels: Sequence[str]
    left_out: tuple[str, ...] = ()

    def made_in(self, region: Region) -> np.ndarray:
        """(h, w) uint8: what a person painted in a region; all else of it is VOID."""
        made = self.is_made[region.slices]
        shown: np.ndarray = np.where(made, self.mask[region.slices], np.uint8(VOID))
        return shown

    def drawn_in(self, region: Region) -> np.ndarray:
        """(h, w) uint8: the strokes in a region; what they do not cover is VOID."""
        is_drawn = self.drawn[region.slices] != VOID
        shown: np.ndarray = np.where(is_drawn, self.mask[region.slices], np.uint8(VOID))
        return shown

    def digest(self, region: Region, rest: str | None = None) -> str:
        """Another one whenever strokes cover a region otherwise, or with other labels.

        And where a person painted over a suggestion. Whatever the background is, and whichever
        labels the project has by now.

        Args:
            region: inside.
            rest: what the annotator said that is left unpainted in it.
        """
        drawn = self.drawn[region.slices]
        indices = np.flatnonzero(np.bincount(drawn.ravel(), minlength=VOID + 1)[:VOID])
        digest = hashlib.sha256(repr(rest).encode())
        for label, index in sorted((self.labels[index], index) for index in indices):
            digest.update(repr(label).encode())
            digest.update(np.packbits(drawn == index).tobytes())
        digest.update(np.packbits(self.is_made[region.slices]).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class FoundRegions:
    """The suggested regions that a whole-image annotation is about, and why some are left out.

    are_boxes: whether boxes show them, so that people know where to paint.
    drawn_instead: types of what else was drawn in an annotation in which nobody painted.
    """

    regions: tuple[Region, ...] = ()
    left_out: tuple[str, ...] = ()
    drawn_instead: tuple[str, ...] = ()
    are_boxes: bool = False


@dataclass(frozen=True)
class Refusals:
    """The regions of an annotation that somebody called not worth labelling.

    refused: those with no pixel painted.
    disputed: those that something is painted in all the same: what is left unpainted there is no
        background.
    """

    refused: frozenset[Region] = frozenset()
    disputed: frozenset[Region] = frozenset()


@dataclass(frozen=True)
class Hint:
    """What a webhook says has changed, by ids: what it claims beyond that is not believed.

    annotated: tasks whose annotations changed.
    annotations: that changed; a deletion does not name their tasks.
    made, deleted: tasks.
    is_about_settings: the project itself was changed.
    is_unclear: it says that something happened, not what.
    """

    annotated: frozenset[int] = frozenset()
    annotations: frozenset[int] = frozenset()
    made: frozenset[int] = frozenset()
    deleted: frozenset[int] = frozenset()
    is_about_settings: bool = False
    is_unclear: bool = False

    @property
    def num_ids(self) -> int:
        """How many ids it names."""
        named = (self.annotated, self.annotations, self.made, self.deleted)
        return sum(len(ids) for ids in named)

    def unclear(self) -> Hint:
        """The same without what it names."""
        return Hint(is_about_settings=self.is_about_settings, is_unclear=True)

    def __or__(self, other: Hint) -> Hint:
        """What both say."""
        return Hint(
            self.annotated | other.annotated,
            self.annotations | other.annotations,
            self.made | other.made,
            self.deleted | other.deleted,
            self.is_about_settings or other.is_about_settings,
            self.is_unclear or other.is_unclear,
        )


@dataclass(frozen=True)
class Crop:
    """A region as a task of its own, with everything an annotator is shown.

    `image` is the region enlarged by the whole number `scale`; `context` the whole image with the
    region's box. Both are (H, W, 3) uint8, RGB. `num_in_round` is the last rank of its round, 0
    where that is not known. `source_created_at` tells apart tasks of the pool that got the same id.
    """

    source_task: int
    region: Region
    image: np.ndarray
    context: np.ndarray
    scale: int
    round: int
    rank: int
    reason: str
    strategy: str
    version: str
    num_in_round: int = 0
    source_created_at: datetime | None = None


@dataclass(frozen=True)
class CropPrediction:
    """What a crop task is pre-filled with, and its place in the queue.

    `mask` is (height, width) uint8 of class indices at the region's own size, VOID where nothing
    is suggested; None for a segmenter that has learned nothing yet. `usefulness` in [0, 1], the
    most useful region first: the tool translates it into the tool's own order.
    """

    task_id: int
    region: Region
    scale: int
    mask: np.ndarray | None
    usefulness: float
    rank: int
    reason: str


@dataclass(frozen=True)
class SuggestedRegion:
    """One suggestion on a whole image; `usefulness` in [0, 1].

    strategy, wish_id: who mined it, and for what; None: it is for no class alone.
    """

    region: Region
    rank: int
    usefulness: float
    reason: str
    strategy: str | None = None
    wish_id: int | None = None


@dataclass(frozen=True)
class ImageSuggestion:
    """What a whole-image task is answered with: regions, best first, and the predicted mask.

    `mask` is (H, W) uint8 over the whole image, or None before the first version.
    """

    task_id: int
    image_size: tuple[int, int]
    regions: tuple[SuggestedRegion, ...]
    mask: np.ndarray | None
    version: str
    usefulness: float


class Watch(Protocol):
    """Told of each call to the tool before it is sent; refuses it by raising."""

    def __call__(self, *, is_change: bool) -> None:
        """Return, or raise: then nothing is read or changed."""


class Tool(Protocol):
    """The labelling tool, as the worker sees it. Every call may raise `ToolError`."""

    def watched(self, watch: Watch) -> Tool:
        """The same tool, of whose calls `watch` is told, each request of a longer call alone."""

    def project(self, project_id: int) -> ToolProject:
        """The project; `ValueError` if its label config cannot be used, saying why."""

    def prepare(
        self,
        project: ToolProject,
        mode: str,
        regions_project_id: int | None,
        regions_uid: str | None = None,
    ) -> int | None:
        """Bring the project's settings in order; safe to repeat.

        Webhooks with their header, sampling, prediction settings; in crops mode also the regions
        project, made if `regions_project_id` is None or gone, its labels kept equal to the pool's.
        One that has the uid `regions_uid` is the one, whatever people have made of it.

        Returns:
            The id of the regions project, None in in-place mode.
        """

    def tidy_doubles(self, project: ToolProject, regions_project_id: int) -> list[str]:
        """Delete regions projects of this pool, besides the one in use, in which there is nothing.

        Returns:
            A sentence for people on each of those in which there is something: it is left alone.
        """

    def tasks(self, project_id: int, changed_since: datetime | None = None) -> Iterator[ToolTask]:
        """All tasks of a project, oldest first, each once, without their annotations.

        Args:
            project_id: of the project.
            changed_since: leave out tasks that nothing happened to since, by the tool's clock.
        """

    def annotations(self, project_id: int, task_ids: Sequence[int]) -> Iterator[TaskAnnotations]:
        """The submitted and skipped annotations of these tasks, task by task.

        A task that the project does not have (any more) is left out.
        """

    def hint(self, action: str, payload: Mapping[str, Any]) -> Hint:
        """What a stored webhook says has changed; anything unreadable in it is unclear."""

    def mask(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        class_names: Sequence[str],
        size: tuple[int, int],
        background: str | None,
    ) -> Painted:
        """What the annotation paints on a picture of (height, width) `size`.

        `background` is the class of pixels that nobody painted; None: they are VOID. Strokes that
        cannot be read are left out.

        Raises:
            ValueError: if `background` is not in `class_names`.
        """

    def answers(self, annotation: ToolAnnotation, *, is_asked: bool = False) -> dict[str, Any]:
        """What the annotation answers besides paint, by the name of an `AnswerKind`.

        `is_asked`: whether it is known which regions it was asked for, whatever it shows.
        """

    def annotated_regions(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        image_size: tuple[int, int],
        handed_out: Sequence[Region],
    ) -> FoundRegions:
        """The suggested regions that a whole-image annotation is about.

        Args:
            annotation: of a whole image.
            project: the pool.
            image_size: (height, width) of the image.
            handed_out: with what the annotation began from; they count unless it carries regions
                that nobody takes away by deleting a mask.
        """

    def refusals(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        size: tuple[int, int],
        regions: Sequence[Region],
    ) -> Refusals:
        """Which of the regions that an annotation labels were called not worth labelling.

        Args:
            annotation: of a whole image, or of a region's task.
            project: the pool.
            size: (height, width) of the image, or of the region.
            regions: in it.
        """

    def others_mask(
        self,
        pool: ToolProject,
        model_version: str,
        task_id: int,
        class_names: Sequence[str],
        size: tuple[int, int],
    ) -> np.ndarray | None:
        """The mask that others have predicted in a task, (height, width) uint8, VOID between.

        Args:
            pool: the task's project.
            model_version: as the tool names their predictions.
            task_id: of the pool.
            class_names: by class index.
            size: (height, width) of the image.

        Returns:
            None where there is none, or nothing in it can be read.
        """

    def image(self, task: ToolTask) -> bytes:
        """The bytes of a task's image file; `ValueError` if it has none or may not be fetched."""

    def create_crop_tasks(
        self, pool: ToolProject, regions_project_id: int, crops: Sequence[Crop]
    ) -> list[ToolTask]:
        """Upload the crops' pictures and make their tasks; one task per crop, in order.

        A crop that has a task already (made by a call whose answer or end was lost) gets no other.
        """

    def publish_crop_predictions(
        self,
        regions_project_id: int,
        version: str,
        class_names: Sequence[str],
        predictions: Iterable[CropPrediction],
    ) -> None:
        """Store the predictions under `version`, make it the project's, drop older versions'."""

    def publish_image_predictions(
        self,
        pool: ToolProject,
        version: str,
        class_names: Sequence[str],
        suggestions: Iterable[ImageSuggestion],
    ) -> None:
        """The same for whole-image tasks (in-place mode).

        Suggestions are taken one after another and not kept: their masks would fill the memory.
        """

    def describe(self, project_id: int, line: str) -> None:
        """Keep a line about a project in its description, beside the owner's own words."""

    def begun_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        """Those of the tasks that somebody has begun: with an annotation, a skip or a draft."""

    def delete_unopened_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        """Delete those of the tasks that nobody has begun (no annotation, no draft).

        Returns:
            The ids that are gone now.
        """
