from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.rewards.scores import (
    JudgedPixels,
    Noise,
    checked,
    checked_pixels,
    correct_pixels,
    mean_ious,
)
from ralis_backend.core.metrics import confusion_matrix, mean_iou_of_present
from ralis_backend.core.regions import VOID


def test_a_maps_score_is_its_mean_iou_over_the_classes_of_the_mask():
    masks = torch.tensor([[[0, 0, 1, VOID]]])
    maps = torch.tensor([[[[0, 0, 1, 2]]], [[[0, 1, 1, 1]]], [[[2, 2, 2, 2]]]])
    # right; class 0: 1/2, class 1: 1/2; nothing
    expected = torch.tensor([[1.0], [0.5], [0.0]])
    torch.testing.assert_close(mean_ious(maps, masks, 3), expected)


def test_scores_equal_those_of_confusion_matrices():
    rng = np.random.default_rng(0)
    maps, masks = rng.integers(0, 4, (3, 2, 7, 5)), rng.integers(0, 4, (2, 7, 5))
    masks[rng.random(masks.shape) < 0.2] = VOID
    found = mean_ious(torch.from_numpy(maps), torch.from_numpy(masks), 4)
    for (sample, image), score in np.ndenumerate(found.numpy()):
        matrix = confusion_matrix(maps[sample, image], masks[image].astype(np.uint8), 4)
        assert score == pytest.approx(mean_iou_of_present(matrix), rel=1e-6)


def test_maps_of_an_image_of_which_nothing_is_known_have_equal_scores():
    maps = torch.tensor([[[[0, 1]]], [[[1, 1]]]])
    assert not mean_ious(maps, torch.full((1, 1, 2), VOID), 2).any()


def test_a_correct_pixel_is_rewarded_and_void_is_unknown():
    rewards = correct_pixels(torch.tensor([[[[0, 1, 1]]]]), torch.tensor([[[0, 0, VOID]]]))
    assert rewards.values.tolist()[0][0][0][:2] == [1, 0]
    assert rewards.is_known.tolist() == [[[True, True, False]]]


def test_stars_are_steps_from_0_to_1():
    scores = torch.tensor([[0.0, 0.1, 0.2, 0.6, 0.7, 1.0]])
    stars = Noise(num_stars=5).disturbed(scores, torch.Generator())
    assert stars.tolist() == [[0, 0, 0.25, 0.5, 0.75, 1]]


def test_a_share_of_the_scores_is_guessed():
    scores = torch.full((100, 100), 0.5)
    found = Noise(wrong_share=0.2).disturbed(scores, torch.Generator().manual_seed(0))
    assert float((found != 0.5).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert 0 <= float(found.min()) < 0.01
    assert 0.99 < float(found.max()) <= 1


@pytest.mark.parametrize(
    ("noise", "message"),
    [({"wrong_share": 1.5}, "expected 0 to 1"), ({"num_stars": 1}, "expected 2 or more")],
)
def test_noise_that_cannot_be_is_refused(noise, message):
    with pytest.raises(ValueError, match=message):
        Noise(**noise)


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5, float("inf")])
def test_a_score_that_is_none_is_refused(score):
    with pytest.raises(ValueError, match=r"expected 0 \(all wrong\) to 1 \(all right\)"):
        checked(torch.tensor([[0.5], [score]]), (2, 1))


def test_as_many_scores_as_maps_are_wanted():
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(2, 3\)"):
        checked(torch.zeros(2), (2, 3))


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_pixels_reward_that_is_none_is_refused_where_it_counts(reward):
    values = torch.tensor([0.5, reward]).reshape(1, 1, 1, 2)
    everywhere = torch.ones(1, 1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"a pixel's reward is .*expected 0 \(wrong\) to 1"):
        checked_pixels(JudgedPixels(values, everywhere), (1, 1, 1, 2))
    known = torch.tensor([[[True, False]]])
    found = checked_pixels(JudgedPixels(values, known), (1, 1, 1, 2))
    assert found.flatten().tolist() == [0.5, 0.0]


def test_as_many_rewards_as_pixels_are_wanted():
    rewards = JudgedPixels(torch.zeros(2, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"shape \(2, 1, 4, 4\), expected \(3, 1, 4, 4\)"):
        checked_pixels(rewards, (3, 1, 4, 4))
