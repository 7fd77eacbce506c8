"""What is labelled -> what the next version learns from, and what is measured on the way."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from ralis_backend.core.learning.registry import PAINT, besides_paint
from ralis_backend.online.labels import RegionLabel, labels_by_image
from ralis_backend.online.paint_alone import is_left_off
from ralis_backend.online.random_slice import new_in_slice
from ralis_backend.online.store.tables import Image, Version
from ralis_backend.online.worker.promotion import MIN_VALIDATION_REGIONS, can_judge

MOST_UNLABELLED_IMAGES = 200
"""Of a pool: each has to be fetched, and decoded images fill the memory."""


@dataclass(frozen=True)
class ImageLabels:
    """An image, its (height, width) in pixels, and labels of its regions."""

    image: Image
    size: tuple[int, int]
    labels: Sequence[RegionLabel]


@dataclass(frozen=True)
class TrainingPlan:
    """What a training uses of a project's labels; none of it is skipped regions.

    training: what is learned from.
    unlabelled: images that nobody labelled, learned from as well where `besides` says so.
    besides: names in `OBJECTIVES` of what is learned from besides paint.
    not_yet: why nothing is, though the settings say so, until that can be judged; None: that is
        not why.
    validation: images that are kept out of it, for the promotion gate.
    unseen: regions of the random slice, one by one, that the version in use has not learned from.
    num_labels: labelled regions of the project.
    held_out: as `validation`, with the images that cannot be read now.
    left_out: what cannot be used of the labels, and why.
    """

    training: Sequence[ImageLabels]
    validation: Sequence[ImageLabels]
    unseen: Sequence[ImageLabels]
    num_labels: int
    left_out: Sequence[str] = ()
    unlabelled: Sequence[ImageLabels] = ()
    besides: Sequence[str] = ()
    not_yet: str | None = None
    held_out: Sequence[ImageLabels] = ()

    @property
    def learned_from(self) -> Sequence[ImageLabels]:
        """All images that the training looks at."""
        return [*self.training, *self.unlabelled]

    def from_paint_alone(self) -> TrainingPlan:
        """The same labels, and nothing else."""
        return replace(self, unlabelled=(), besides=())


def plan_training(
    images: Sequence[Image],
    labels: Sequence[RegionLabel],
    in_use: Version | None,
    moment: datetime,
    learner: str = PAINT,
) -> TrainingPlan:
    """Split the labels of a project by what they are for.

    The same version and labels give the same plan.

    Args:
        images: of the project; those that were never read are left out.
        labels: of the project, skipped ones included.
        in_use: the version that the next one is trained from; None before the first.
        moment: now; images that could not be read shortly before are left out.
        learner: what is learned from, see `besides_paint`.
    """
    painted, every = [label for label in labels if not label.is_skipped], images
    num_labels = sum(label.is_closing for label in painted)
    images, left_out = _readable(images, {label.image_id for label in painted}, moment)
    labelled = _by_image(images, painted)
    left_out += _outside(labelled, painted)
    newest_learned = None if in_use is None else in_use.metrics.get("newest_label_id")
    known = None if in_use is None else in_use.metrics
    training = [each for each in labelled if not each.image.is_validation]
    validation = [each for each in labelled if each.image.is_validation]
    more = besides_paint(learner)
    not_yet = _why_not_yet(in_use, validation) if more else None
    if not_yet or is_left_off(known, num_labels):
        more = ()
    rng = np.random.default_rng(0 if in_use is None else in_use.number)
    return TrainingPlan(
        training=training,
        validation=validation,
        unseen=[
            each
            for label in new_in_slice(painted, newest_learned)
            for each in _by_image(images, [label])
        ],
        num_labels=num_labels,
        left_out=left_out,
        unlabelled=_unlabelled(images, _shown_by(every, labels), rng) if more else (),
        besides=more,
        not_yet=not_yet,
        held_out=_by_image([each for each in every if each.is_validation], painted),
    )


def _why_not_yet(in_use: Version | None, validation: Sequence[ImageLabels]) -> str | None:
    """Why the next version learns from paint alone, whatever the settings say; None: it need not.

    Nobody could tell whether the rest does harm.
    """
    if in_use is None or in_use.weights_key is None:
        return "what has learned nothing yet is no teacher, and no version is there to compare with"
    num_held_out = sum(label.is_closing for each in validation for label in each.labels)
    if can_judge(num_held_out):
        return None
    return (
        f"{num_held_out} labelled regions that can be read are held out, expected at least "
        f"{MIN_VALIDATION_REGIONS} to tell whether more does harm"
    )


def _unlabelled(
    images: Sequence[Image], taken: Set[int | str], rng: np.random.Generator
) -> list[ImageLabels]:
    """Some of the images that show none of the pictures `taken`, drawn at random."""
    known = [
        ImageLabels(image, image.size, ())
        for image in images
        if image.size is not None and _picture(image) not in taken
    ]
    return [known[index] for index in rng.permutation(len(known))[:MOST_UNLABELLED_IMAGES]]


def _shown_by(images: Sequence[Image], labels: Sequence[RegionLabel]) -> set[int | str]:
    """The pictures that are labelled in any task, or held out, whether they can be read or not.

    What was skipped may be no picture at all, and is one of them.
    """
    labelled = {label.image_id for label in labels}
    return {_picture(each) for each in images if each.id in labelled or each.is_validation}


def _picture(image: Image) -> int | str:
    """What tells a picture from others: several tasks may show it."""
    return image.content or image.id


def _readable(
    images: Sequence[Image], labelled: Set[int], moment: datetime
) -> tuple[list[Image], list[str]]:
    """The images that may be tried, and what is wrong with the labelled ones among the others."""
    left_out = [
        f"task {image.task_id}: {image.error}"
        for image in images
        if image.id in labelled and not image.may_be_tried(moment)
    ]
    return [image for image in images if image.may_be_tried(moment)], left_out


def _outside(used: Sequence[ImageLabels], labels: Sequence[RegionLabel]) -> list[str]:
    """Which labels of those images do not lie in them."""
    used_ids = {label.id for each in used for label in each.labels}
    sizes = {each.image.id: each for each in used}
    return [
        f"task {each.image.task_id}: {label.region} lies outside the image, which has "
        f"{each.size[0]} x {each.size[1]} pixels (height x width) now; restore the image file"
        for label in labels
        if label.id not in used_ids and (each := sizes.get(label.image_id)) is not None
    ]


def _by_image(images: Sequence[Image], labels: Sequence[RegionLabel]) -> list[ImageLabels]:
    """The labels of each image that lie in it, in the order of the images."""
    of_image = labels_by_image(labels)
    found = []
    for image in images:
        if image.id in of_image and image.size is not None:
            inside = [each for each in of_image[image.id] if each.region.is_inside(image.size)]
            found.append(ImageLabels(image, image.size, inside))
    return found
