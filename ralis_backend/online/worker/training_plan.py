"""What is labelled -> what the next version learns from, and what is measured on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ralis_backend.online.labels import RegionLabel, labels_by_image
from ralis_backend.online.random_slice import new_in_slice
from ralis_backend.online.store.tables import Image, Version


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
    validation: images that are kept out of it, for the promotion gate.
    unseen: regions of the random slice, one by one, that the version in use has not learned from.
    num_labels: labelled regions of the project.
    """

    training: Sequence[ImageLabels]
    validation: Sequence[ImageLabels]
    unseen: Sequence[ImageLabels]
    num_labels: int


def plan_training(
    images: Sequence[Image], labels: Sequence[RegionLabel], in_use: Version | None
) -> TrainingPlan:
    """Split the labels of a project by what they are for.

    Args:
        images: of the project; those that were never read are left out.
        labels: of the project, skipped ones included.
        in_use: the version that the next one is trained from; None before the first.
    """
    painted = [label for label in labels if not label.is_skipped]
    labelled = _by_image(images, painted)
    newest_learned = None if in_use is None else in_use.metrics.get("newest_label_id")
    return TrainingPlan(
        training=[each for each in labelled if not each.image.is_validation],
        validation=[each for each in labelled if each.image.is_validation],
        unseen=[
            each
            for label in new_in_slice(painted, newest_learned)
            for each in _by_image(images, [label])
        ],
        num_labels=len(painted),
    )


def _by_image(images: Sequence[Image], labels: Sequence[RegionLabel]) -> list[ImageLabels]:
    """The labels of each image, in the order of the images."""
    of_image = labels_by_image(labels)
    return [
        ImageLabels(image, image.size, of_image[image.id])
        for image in images
        if image.id in of_image and image.size is not None
    ]
