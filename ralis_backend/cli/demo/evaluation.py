"""How good a version of the segmenter is on whole, fully labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ralis_backend.core.features import predicted_mask
from ralis_backend.core.metrics import confusion_matrix, ious, mean_iou_of_present
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.offline.datasets import Sample


@dataclass(frozen=True)
class Score:
    """Mean IoU and the IoU of each class in [0, 1], NaN where nothing can be said.

    foreground_miou: of all classes but the background, None where there is none.
    """

    miou: float
    class_ious: tuple[float, ...]
    num_images: int
    foreground_miou: float | None = None


def score(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    on_image: Callable[[], None],
    in_masks: Sequence[int] | None = None,
    background: int | None = None,
) -> Score:
    """One confusion matrix over all samples.

    Args:
        segmenter: is judged.
        samples: with masks.
        on_image: called after each.
        in_masks: which value of the masks each of the segmenter's classes is: a background
            without a label comes last in a project. None: they are the same.
        background: the masks' value that nobody looks for; None: there is none.
    """
    num_classes = segmenter.num_classes
    value = np.arange(num_classes) if in_masks is None else np.asarray(in_masks)
    total = np.zeros((num_classes, num_classes), np.int64)
    for sample in samples:
        prediction = predicted_mask(segmenter.forward_pass(sample.image()))
        total += confusion_matrix(value[prediction], sample.mask(), num_classes)
        on_image()
    return Score(
        mean_iou_of_present(total),
        tuple(float(value) for value in ious(total)),
        len(samples),
        None if background is None else mean_iou_of_present(total, background),
    )


def spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` of the samples, evenly spread (neighbours in a video are alike)."""
    if limit is None or len(samples) <= limit:
        return list(samples)
    picked = np.linspace(0, len(samples) - 1, limit).round().astype(int)
    return [samples[index] for index in picked]
