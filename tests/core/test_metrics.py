from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.metrics import confusion_matrix, ious, mean_iou, mean_iou_of_present
from ralis_backend.core.regions import VOID


def test_confusion_of_a_2x2_image_by_hand():
    prediction = np.array([[0, 1], [1, 0]], np.uint8)
    target = np.array([[0, 0], [1, VOID]], np.uint8)
    matrix = confusion_matrix(prediction, target, 3)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(ious(matrix), [0.5, 0.5, np.nan])
    assert mean_iou(matrix) == 0.5


def test_confusion_equals_counting_in_a_loop():
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 4, (13, 7), np.uint8)
    target = rng.choice(np.array([0, 1, 2, 3, VOID], np.uint8), (13, 7))
    expected = np.zeros((4, 4), np.int64)
    for row in range(13):
        for col in range(7):
            if target[row, col] != VOID:
                expected[target[row, col], prediction[row, col]] += 1
    np.testing.assert_array_equal(confusion_matrix(prediction, target, 4), expected)


def test_a_class_only_predicted_counts_as_zero():
    matrix = confusion_matrix(np.array([[0, 2]]), np.array([[0, 0]]), 3)
    np.testing.assert_allclose(ious(matrix), [0.5, np.nan, 0.0])


def test_nothing_compared_is_nan_without_a_warning():
    matrix = confusion_matrix(np.zeros((2, 2), np.uint8), np.full((2, 2), VOID), 2)
    assert np.isnan(mean_iou(matrix))


def test_wrong_shapes_and_classes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        confusion_matrix(np.zeros((2, 2)), np.zeros((2, 3)), 2)
    with pytest.raises(ValueError, match="index 5"):
        confusion_matrix(np.zeros((1, 1), np.uint8), np.full((1, 1), 5, np.uint8), 2)


def test_without_background_its_mistakes_count_and_its_own_iou_does_not():
    matrix = np.array([[10, 10, 0], [5, 975, 0], [0, 0, 0]])  # class 1 is the background
    assert mean_iou_of_present(matrix, 1) == pytest.approx(10 / 25)
    assert mean_iou_of_present(matrix) == pytest.approx((10 / 25 + 975 / 990) / 2)
    assert np.isnan(mean_iou_of_present(np.diag([0, 7, 0]), 1))
