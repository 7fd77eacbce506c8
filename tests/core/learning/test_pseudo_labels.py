import math

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.pseudo_labels import OUTSIDE, UNSURE, PseudoLabels
from ralis_backend.core.regions import VOID


def labels_of(pseudo_labels, classes, confidence, mask=None):
    """`PseudoLabels.of` for a row of pixels that nobody labelled, or with `mask`."""
    mask = len(classes) * [VOID] if mask is None else mask
    rows = (torch.tensor([[each]]) for each in (classes, confidence))
    return pseudo_labels.of(*rows, torch.tensor([[mask]], dtype=torch.uint8))[0, 0].tolist()


def test_a_class_that_the_teacher_doubts_needs_less():
    # means 0.9 and 0.6: thresholds 0.9 and 0.9 * 0.6 / 0.9 = 0.6
    pseudo_labels = PseudoLabels(np.array([10, 10]), threshold=0.9)
    labels = labels_of(pseudo_labels, [0, 0, 1, 1], [0.95, 0.85, 0.65, 0.55])
    assert labels == [0, UNSURE, 1, UNSURE]
    torch.testing.assert_close(pseudo_labels.thresholds(), torch.tensor([0.9, 0.6]))


def test_a_persons_label_is_never_replaced_and_says_nothing_of_the_teacher():
    pseudo_labels = PseudoLabels(np.array([10, 10]), threshold=0.9)
    labels = labels_of(pseudo_labels, [0, 0, 1], [0.9, 0.1, 0.1], [VOID, 0, OUTSIDE])
    assert labels == [0, VOID, VOID]
    torch.testing.assert_close(pseudo_labels.thresholds(), torch.tensor([0.9, 0.9]))


def test_means_follow_slowly():
    pseudo_labels = PseudoLabels(np.array([10, 10]), threshold=0.8)
    labels_of(pseudo_labels, [0, 1], [1.0, 0.5])
    labels_of(pseudo_labels, [0, 1], [1.0, 1.0])  # 0.95 * 0.5 + 0.05 * 1 = 0.525
    torch.testing.assert_close(pseudo_labels.thresholds(), torch.tensor([0.8, 0.8 * 0.525]))


def test_a_class_that_was_never_predicted_has_the_whole_threshold():
    pseudo_labels = PseudoLabels(np.array([10, 10, 10]), threshold=0.8)
    labels_of(pseudo_labels, [0], [0.7])
    torch.testing.assert_close(pseudo_labels.thresholds(), torch.full((3,), 0.8))


def test_nothing_to_label_is_no_error():
    pseudo_labels = PseudoLabels(np.array([10, 10]), threshold=0.8)
    assert labels_of(pseudo_labels, [0, 1], [0.9, 0.9], [0, OUTSIDE]) == [VOID, VOID]
    assert not pseudo_labels.has_collapsed


@pytest.mark.parametrize(
    ("painted", "believed", "has_collapsed"),
    [
        ((50, 50), 100 * [0], True),  # entropy 0 where people's is ln 2
        ((50, 50), 98 * [0] + 2 * [1], True),  # 0.098 < 0.25 * 0.693
        ((50, 50), 90 * [0] + 10 * [1], False),  # 0.325
        ((99, 1), 100 * [0], True),
        ((100, 0), 100 * [0], False),  # people saw nothing else either
    ],
)
def test_a_teacher_that_says_everywhere_the_same_has_collapsed(painted, believed, has_collapsed):
    pseudo_labels = PseudoLabels(np.array(painted), threshold=0.8)
    for _ in range(40):
        assert not pseudo_labels.has_collapsed
        labels_of(pseudo_labels, believed, len(believed) * [0.9])
    assert pseudo_labels.has_collapsed == has_collapsed


@pytest.mark.parametrize(
    ("said_of_painted", "has_collapsed"),
    [
        (50 * [0] + 50 * [1], False),  # right, and the rest of the pool shows one class
        (100 * [0], True),
    ],
)
def test_a_pool_may_be_more_one_sided_than_paint(said_of_painted, has_collapsed):
    pseudo_labels = PseudoLabels(np.array([50, 50]), threshold=0.8)
    for _ in range(40):
        classes, mask = said_of_painted + 100 * [0], 50 * [0] + 50 * [1] + 100 * [VOID]
        labels_of(pseudo_labels, classes, 200 * [0.9], mask)
    assert pseudo_labels.has_collapsed == has_collapsed


def test_it_knows_how_much_was_believed():
    pseudo_labels = PseudoLabels(np.array([10, 10]), threshold=0.8)
    assert pseudo_labels.believed_share == 0
    labels_of(pseudo_labels, [0, 0, 0, 1], [0.9, 0.9, 0.1, 0.9], [VOID, VOID, VOID, 0])
    assert pseudo_labels.believed_share == pytest.approx(2 / 3)


def test_shares_are_those_of_what_is_believed():
    pseudo_labels = PseudoLabels(np.array([10, 10]), threshold=0.8)
    labels_of(pseudo_labels, [0, 0, 0, 1], [0.9, 0.9, 0.1, 0.9])
    assert pseudo_labels.shares().tolist() == pytest.approx([2 / 3, 1 / 3])
    assert math.isclose(float(pseudo_labels.shares().sum()), 1, rel_tol=1e-6)
