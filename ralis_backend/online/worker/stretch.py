"""A training that goes on, as it stands in memory between two of its stretches."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from ralis_backend.core.learning.continuing import ContinuedTraining
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.further import Further
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.training_plan import ImageLabels, TrainingPlan


class Interrupted(Exception):
    """It was asked to stop, and goes on from here another time."""


class Looked:
    """Confusion matrices of one segmenter: of images whose labels are as they were, looked at once.

    New labels come one by one, and each would cost a look at everything that is held out; so would
    each interruption of a look.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, np.ndarray]] = {}

    def at(
        self,
        segmenter: Segmenter,
        parts: Sequence[ImageLabels],
        images: Sequence[LabelledImage],
        should_stop: Callable[[], bool],
    ) -> np.ndarray:
        """(N, C, C) int64, 0 where an image cannot be read; `Interrupted` if it is to stop."""
        matrices = []
        for part, image in zip(parts, images, strict=True):
            # the pixels by class: those of removed classes do not count
            labels = [label.id for label in part.labels], image.class_pixels
            known = self._known.get(part.image.id)
            if known is None or known[0] != labels:
                if should_stop():
                    raise Interrupted
                known = labels, evaluate(segmenter, [image])
                self._known[part.image.id] = known
            matrices.append(known[1])
        num_classes = segmenter.num_classes
        return np.array(matrices, np.int64).reshape(-1, num_classes, num_classes)


@dataclass(frozen=True)
class Basis:
    """What tells whether a project's labels have changed, or what counts of them.

    mark: of its labels and skips, see `Labels.mark`.
    removed_classes, background_class: indices of the project's classes.
    """

    newest_label_id: int
    mark: Sequence[int]
    starred_ids: Sequence[int]
    disputed_ids: Sequence[int]
    removed_classes: Sequence[int]
    background_class: int | None

    @classmethod
    def of(cls, store: Store, project: Project) -> Basis:
        """As a project's labels are now."""
        return cls(
            store.labels.newest_id(project.id),
            tuple(store.labels.mark(project.id)),
            tuple(store.labels.starred_ids(project.id)),
            tuple(store.labels.disputed_ids(project.id)),
            tuple(project.removed_classes),
            project.background_class,
        )

    @property
    def digest(self) -> str:
        """What a version's metrics keep of it; of ticks nothing where there are none, as before."""
        values = asdict(self)
        if not self.disputed_ids:
            del values["disputed_ids"]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Lesson:
    """What is learned from, and what is judged by.

    basis: of the labels when they were looked at.
    before: (N, C, C) confusion matrices of the version in use on what is held out.
    """

    plan: TrainingPlan
    read: LabelledImages
    basis: Basis
    held_out: Sequence[LabelledImage]
    before: np.ndarray


@dataclass
class Best:
    """The best candidate so far on some labels, and what was seen of it.

    is_kept: whether it lies where the stretch's `further` says.
    """

    segmenter: Segmenter
    looked: Looked
    is_kept: bool = False


@dataclass
class Stretch:
    """A training that goes on, in memory.

    version: that it goes on from.
    in_use: that version's segmenter.
    further: how far it is; its `checkpoint` is what was written last.
    best: the best candidate so far on these labels; None: the version is better.
    before, after: what was seen of the version in use, and of the candidate at a look.
    is_at_look: whether that look is not done yet.
    """

    project_id: int
    version: Version
    in_use: Segmenter
    training: ContinuedTraining
    further: Further
    lesson: Lesson | None = None
    best: Best | None = None
    kept_at: float = field(default_factory=time.monotonic)
    before: Looked = field(default_factory=Looked)
    after: Looked = field(default_factory=Looked)
    is_at_look: bool = False


@contextmanager
def spending(stretch: Stretch) -> Iterator[None]:
    """The time that the block takes, however it ends, is that of the stretch."""
    started = time.monotonic()
    try:
        yield
    finally:
        seconds, further = time.monotonic() - started, stretch.further
        stretch.further = replace(
            further,
            updates=stretch.training.updates,
            seconds=further.seconds + seconds,
            seconds_on_labels=further.seconds_on_labels + seconds,
        )
