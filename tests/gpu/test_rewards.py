"""Rewards on a device: one training step of each kind, and the same maps as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.loop import train
from ralis_backend.core.learning.rewards.actions import draw_actions
from ralis_backend.core.learning.rewards.advantages import CREDITS, NORMALISATIONS
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.rated import RatedBesidePaint, RatedConfig, RatedRegion
from ralis_backend.core.learning.rewards.scale import ProgressiveScale
from ralis_backend.core.learning.rewards.scores import Noise
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.lessons import LESSONS, Material
from tests.core.learning.test_finetune import _image
from tests.tiny_segmenter import TinySegmenter

CONFIG = FinetuneConfig(batch_size=2, crop_size=(32, 32), rarity_share=0.0)
SPEC = SegmenterSpec(2, "tiny", encoder_weights=None)


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("reward", ["pixel", "image"])
def test_rewards_are_learned_on_a_device(device, reward, credit):
    segmenter = TinySegmenter(SPEC, device=device)
    rewards = RewardConfig(
        num_maps=3, strides=(8,), credit=credit, updates_per_draw=2, sampler="shared-noise"
    )
    scale = ProgressiveScale(rewards.strides, rewards.patience, rewards.min_gain)
    material = Material([_image()], CONFIG, rewards, Noise(0.2, 5), 2, 0, scale, segmenter.copy())
    objective = LESSONS[reward](material)
    summary = train(segmenter, [objective], CONFIG, steps=3, steps_per_epoch=1, seed=0)
    assert np.isfinite(summary.final_loss)


def test_ratings_are_learned_on_a_device(device):
    image, segmenter = _image(), TinySegmenter(SPEC, device=device)
    rated = [
        RatedRegion(image.load, np.asarray(image.mask), image.regions[0], score) for score in (0, 1)
    ]
    guards = RatedConfig(min_ratings=2)
    objective = RatedBesidePaint(rated, [image], CONFIG, 2, seed=0, guards=guards)
    summary = train(segmenter, [objective], CONFIG, steps=2, steps_per_epoch=1, seed=0)
    assert np.isfinite(summary.final_loss)


@pytest.mark.parametrize("normalise", NORMALISATIONS.values())
def test_maps_are_drawn_and_normalised_as_on_the_cpu(device, normalise):
    log_policy = torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    log_policy = log_policy.log_softmax(dim=1)
    drawn, normal = [], []
    for each in ("cpu", device):
        maps = draw_actions(log_policy.to(each), 4, torch.Generator().manual_seed(1))
        known = torch.ones(maps.shape[1:], dtype=torch.bool).to(each)
        drawn.append(maps.cpu())
        normal.append(normalise(maps.float(), known).cpu())
    assert torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(normal[0], normal[1])
