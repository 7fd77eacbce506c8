from __future__ import annotations

import numpy as np
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.loop import train
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.scale import ProgressiveScale
from ralis_backend.core.learning.rewards.scores import Noise
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.image_tags import ImageTags, _tags
from ralis_backend.offline.lessons import Material
from tests.tiny_segmenter import TinySegmenter


def test_a_crop_is_tagged_with_the_classes_of_its_mask():
    masks = np.array([[[0, 0, VOID]], [[2, 0, 2]], [[VOID, VOID, VOID]]], np.uint8)
    assert torch.equal(_tags(masks, 3), torch.tensor([[1.0, 0, 0], [1, 0, 1], [0, 0, 0]]))


def test_classes_that_no_image_shows_become_improbable():
    image = np.full((32, 32, 3), 100, np.uint8)
    region = Region(0, 0, 32, 32)
    shown = LabelledImage(lambda: image, np.ones((32, 32), np.uint8), (region,))
    config = FinetuneConfig(batch_size=2, crop_size=(32, 32), learning_rate=3e-3)
    scale = ProgressiveScale((4,), 1, 0)
    material = Material([shown], config, RewardConfig(), Noise(), 3, 0, scale)
    segmenter = TinySegmenter(SegmenterSpec(3, "tiny", encoder_weights=None))
    train(segmenter, [ImageTags(material)], config, steps=30, steps_per_epoch=1, seed=0)
    assert segmenter.probabilities(image)[1].mean() > 0.8
