"""Segmenters + labelled images -> how often they say which class of which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ralis_backend.core.features import predicted_classes
from ralis_backend.core.learning.crops import LabelledImage, Unreadable
from ralis_backend.core.metrics import confusion_matrix
from ralis_backend.core.segmenter import Segmenter


def evaluate(segmenter: Segmenter, images: Iterable[LabelledImage]) -> np.ndarray:
    """(C, C) int64 confusion matrix over all labelled pixels of `images`."""
    (matrix,) = evaluate_each([segmenter], images)
    return matrix


def evaluate_each(
    segmenters: Sequence[Segmenter], images: Iterable[LabelledImage]
) -> list[np.ndarray]:
    """A (C, C) int64 confusion matrix of each segmenter, over the same pixels.

    One image is held at a time; one that cannot be read counts for none of them.
    """
    matrices = [np.zeros((each.num_classes, each.num_classes), np.int64) for each in segmenters]
    for image in images:
        try:
            pixels, mask = image.load(), np.asarray(image.mask)
        except Unreadable:  # noted by who raised it
            continue
        for segmenter, matrix in zip(segmenters, matrices, strict=True):
            prediction = predicted_classes(segmenter, pixels)  # (H, W)
            matrix += confusion_matrix(prediction, mask, segmenter.num_classes)
    return matrices
