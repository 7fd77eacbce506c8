"""Segmenter + labelled images -> how often it says which class of which."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ralis_backend.core.features import predicted_mask
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.metrics import confusion_matrix
from ralis_backend.core.segmenter import Segmenter


def evaluate(segmenter: Segmenter, images: Iterable[LabelledImage]) -> np.ndarray:
    """(C, C) int64 confusion matrix over all labelled pixels of `images`."""
    matrix = np.zeros((segmenter.num_classes, segmenter.num_classes), np.int64)
    for image in images:
        prediction = predicted_mask(segmenter.forward_pass(image.load()))  # (H, W)
        matrix += confusion_matrix(prediction, image.mask, segmenter.num_classes)
    return matrix
