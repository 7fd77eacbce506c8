from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.loop import train
from ralis_backend.core.learning.rewards.actions import SAMPLERS
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.objective import ImageReward, PixelReward
from ralis_backend.core.learning.rewards.raters import MapRater, PixelRater
from ralis_backend.core.learning.rewards.scale import ProgressiveScale
from ralis_backend.core.learning.rewards.scores import JudgedPixels, Noise
from ralis_backend.core.metrics import mean_iou
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec
from tests.core.learning.test_finetune import _image
from tests.tiny_segmenter import TinySegmenter

CONFIG = FinetuneConfig(batch_size=2, crop_size=(32, 32), learning_rate=3e-3, rarity_share=0)
REWARDS = RewardConfig(num_maps=8, strides=(16, 8), patience=10, kl_weight=0, entropy_weight=0)
GREY = np.full((2, 32, 32, 3), 128, np.uint8)


def _segmenter() -> Segmenter:
    return TinySegmenter(SegmenterSpec(2, "tiny", encoder_weights=None))


def _whole(seed: int = 0) -> LabelledImage:
    """Red is class 0 and blue class 1; all of it is labelled, nothing is void."""
    image = _image(seed, num_regions=100)
    assert not (np.asarray(image.mask) == VOID).any()
    return LabelledImage(image.load, image.mask, (Region(0, 0, *image.mask.shape),))


class Judged:
    """Grey crops, and a judge of the test's own."""

    def __init__(self, judge: Callable[[torch.Tensor], object]) -> None:
        self.judge = judge
        self.num_batches = 0

    def batch(self):
        self.num_batches += 1
        return GREY, self.judge


def _learn(objective, steps: int, segmenter: Segmenter | None = None) -> Segmenter:
    segmenter = segmenter or _segmenter()
    train(segmenter, [objective], CONFIG, steps=steps, steps_per_epoch=1, seed=0)
    return segmenter


def _miou(segmenter: Segmenter) -> float:
    return mean_iou(evaluate(segmenter, [_whole(seed) for seed in range(2)]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_scores_of_whole_maps_teach_what_is_where(sampler):
    images = [_whole(seed) for seed in range(2)]
    rewards = replace(REWARDS, sampler=sampler)
    objective = ImageReward(MapRater(images, CONFIG, 2, seed=0), rewards, seed=0)
    before = _miou(_segmenter())
    assert _miou(_learn(objective, 80)) > max(0.75, before + 0.2)


def test_rewards_of_pixels_teach_what_is_where_and_one_image_is_enough():
    objective = PixelReward(PixelRater([_whole()], CONFIG, 2, seed=0), REWARDS, seed=0)
    assert _miou(_learn(objective, 60)) > 0.8


def test_probabilities_that_are_not_finite_end_the_training_in_words():
    segmenter = _segmenter()
    with torch.no_grad():
        next(segmenter.model.parameters()).fill_(float("nan"))
    objective = ImageReward(Judged(lambda maps: maps), REWARDS, seed=0)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        _learn(objective, 1, segmenter)


def test_equal_scores_leave_every_gradient_at_0():
    objective = ImageReward(Judged(lambda maps: torch.full(maps.shape[:2], 0.4)), REWARDS, seed=0)
    segmenter = _segmenter()
    objective.begin(segmenter)
    torch.autograd.backward(objective.loss(segmenter, 1))
    gradients = [each.grad for each in segmenter.model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("score", [float("nan"), -1.0, 3.0])
def test_scores_that_are_none_end_the_training_with_what_is_expected(score):
    objective = ImageReward(Judged(lambda maps: torch.full(maps.shape[:2], score)), REWARDS, seed=0)
    with pytest.raises(ValueError, match="expected 0"):
        _learn(objective, 1)


def test_a_reward_that_is_not_finite_counts_only_where_nothing_is_known():
    def judge(maps: torch.Tensor) -> JudgedPixels:
        values, known = (maps == 1).float(), torch.ones(maps.shape[1:], dtype=torch.bool)
        values[:, :, 0] = float("nan")
        known[:, 0] = known_row
        return JudgedPixels(values, known)

    known_row = False
    objective = PixelReward(Judged(judge), REWARDS, seed=0)
    _learn(objective, 1)
    assert 0 < objective.mean_reward < 1
    known_row = True
    with pytest.raises(ValueError, match=r"reward is nan, expected .*mark unknown pixels"):
        _learn(objective, 1)


def test_maps_and_their_scores_serve_as_many_updates_as_they_are_meant_to():
    crops = Judged(lambda maps: (maps == 1).float().mean(dim=(2, 3)))
    _learn(ImageReward(crops, replace(REWARDS, updates_per_draw=3), seed=0), 7)
    assert crops.num_batches == 3


def test_the_judge_sees_maps_of_cells_and_these_shrink():
    strides = []

    def judge(maps: torch.Tensor) -> torch.Tensor:
        borders = (maps[..., 1:] != maps[..., :-1]).any(dim=(0, 1, 2)).nonzero()[:, 0] + 1
        strides.append(int(np.gcd.reduce(borders.numpy())))
        return torch.full(maps.shape[:2], 0.5)

    config = replace(REWARDS, strides=(16, 8, 4), patience=1, num_maps=32)
    _learn(ImageReward(Judged(judge), config, seed=0), 8)
    assert strides == [16, 16, 8, 8, 4, 4, 4, 4]


def test_a_scale_of_another_training_is_gone_on_with():
    scale = ProgressiveScale((16, 8), patience=10, min_gain=0)
    scale.restore({"stage": 1, "total": 0.0, "count": 0, "before": None})
    crops = Judged(lambda maps: torch.full(maps.shape[:2], 0.5))
    assert ImageReward(crops, REWARDS, seed=0, scale=scale).stride == 8


def test_the_reference_is_the_segmenter_as_the_training_finds_it_and_holds_it_back():
    def brightest(maps: torch.Tensor) -> torch.Tensor:
        return (maps == 1).float().mean(dim=(2, 3))

    moved = []
    for kl_weight in (0, 50):
        segmenter = _segmenter()
        before = segmenter.probabilities(GREY[0])
        config = replace(REWARDS, kl_weight=kl_weight)
        _learn(ImageReward(Judged(brightest), config, seed=0), 20, segmenter)
        moved.append(np.abs(segmenter.probabilities(GREY[0]) - before).mean())
    assert moved[1] < 0.5 * moved[0]


def test_a_wrong_rater_teaches_less_and_the_same_seed_the_same():
    def rater(share: float) -> MapRater:
        return MapRater([_whole()], CONFIG, 2, seed=0, noise=Noise(share, 5))

    states = [
        _learn(ImageReward(rater(share), REWARDS, seed=0), 3).state() for share in (0.2, 0.2, 0.0)
    ]
    first, again, other = (torch.cat([v.flatten() for v in each.values()]) for each in states)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Replaced:
    """A rater's crops, with scores that do not depend on its masks."""

    def __init__(self, rater: MapRater) -> None:
        self.rater = rater

    def batch(self):
        return self.rater.batch()[0], lambda maps: (maps == 1).float().mean(dim=(2, 3))


def test_other_masks_with_the_same_scores_teach_the_same():
    image, states = _whole(), []
    for mask in (np.asarray(image.mask), 1 - np.asarray(image.mask)):
        crops = Replaced(MapRater([replace(image, mask=mask)], CONFIG, 2, seed=0))
        states.append(_learn(ImageReward(crops, REWARDS, seed=0), 3).state())
    assert all(torch.equal(values, states[1][name]) for name, values in states[0].items())
