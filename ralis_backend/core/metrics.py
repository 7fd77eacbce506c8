"""Masks -> one confusion matrix over a whole split -> class IoUs and their mean."""

from __future__ import annotations

import numpy as np

from ralis_backend.core.regions import VOID


def confusion_matrix(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each true class was given each predicted class.

    Matrices of several images add up; scores of a split are taken from their sum.

    Args:
        prediction: (H, W) class indices below `num_classes`.
        target: (H, W) class indices; pixels that are VOID are ignored.
        num_classes: C.

    Returns:
        (C, C) int64, a row per true class.

    Raises:
        ValueError: if the shapes differ or an index is not below `num_classes`.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, target {target.shape}")
    labelled = target != VOID
    true = target[labelled].astype(np.int64)
    predicted = prediction[labelled].astype(np.int64)
    if true.size and max(true.max(), predicted.max()) >= num_classes:
        raise ValueError(
            f"class index {max(true.max(), predicted.max())} in a mask, expected indices below "
            f"num_classes = {num_classes}, or VOID = {VOID} in the target"
        )
    pairs = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    matrix: np.ndarray = pairs.reshape(num_classes, num_classes).astype(np.int64, copy=False)
    return matrix


def ious(matrix: np.ndarray) -> np.ndarray:
    """(C,) float64 intersection over union; NaN for a class in neither masks nor predictions."""
    intersection = np.diagonal(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - intersection
    values: np.ndarray = np.divide(
        intersection, union, out=np.full(len(matrix), np.nan), where=union > 0
    )
    return values


def mean_iou(matrix: np.ndarray) -> float:
    """Mean of the class IoUs that exist; NaN when nothing was compared."""
    values = ious(matrix)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def mean_iou_of_present(matrix: np.ndarray, background: int | None = None) -> float:
    """Mean IoU of the classes that the true masks hold; NaN where they hold none.

    A class that is predicted and absent counts against those it was mistaken for, and is no class
    of its own: curves of one test set are means over the same classes.

    Args:
        matrix: (C, C) int64 confusion matrix, a row per true class.
        background: a class that is left out, though what it is mistaken for counts; None: none is.
    """
    is_present = matrix.sum(axis=1) > 0
    if background is not None:
        is_present[background] = False
    return float(ious(matrix)[is_present].mean()) if is_present.any() else float("nan")
