"""What a segmenter can be taught by on a fully labelled dataset, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.objective import Objective
from ralis_backend.core.learning.painted import PaintedRegions
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.objective import ImageReward, PixelReward
from ralis_backend.core.learning.rewards.raters import MapRater, PixelRater
from ralis_backend.core.learning.rewards.scale import ProgressiveScale
from ralis_backend.core.learning.rewards.scores import Noise
from ralis_backend.core.segmenter import Segmenter


@dataclass(frozen=True)
class Material:
    """What a lesson is made of.

    images: fully labelled; regions are where crops are drawn.
    finetune: how crops are drawn.
    rewards: how scores are learned from.
    noise: what scores lack.
    num_classes: C.
    seed: of the draws.
    scale: the stride in which maps are drawn, moved along.
    reference: what the segmenter is held near; None: nothing.
    """

    images: Sequence[LabelledImage]
    finetune: FinetuneConfig
    rewards: RewardConfig
    noise: Noise
    num_classes: int
    seed: int
    scale: ProgressiveScale
    reference: Segmenter | None = None

    @property
    def held(self) -> RewardConfig:
        """The rewards' settings; without a reference nothing is held near it."""
        return self.rewards if self.reference is not None else replace(self.rewards, kl_weight=0.0)


Lesson = Callable[[Material], Objective]
"""Makes an objective; `ValueError` if it can teach nothing."""


def masks(material: Material) -> PaintedRegions:
    """Cross-entropy on the masks: what rewards are compared with."""
    return PaintedRegions(
        material.images, material.finetune, material.num_classes, seed=material.seed
    )


def pixel_rewards(material: Material) -> PixelReward:
    """Of each pixel of a map it is told whether it is right."""
    rater = PixelRater(material.images, material.finetune, material.num_classes, seed=material.seed)
    return PixelReward(rater, material.held, seed=material.seed, reference=material.reference)


def image_rewards(material: Material) -> ImageReward:
    """Of each map its score is told and nothing else: no mask is shown to what learns."""
    blind = replace(material.finetune, rarity_share=0.0)  # else masks choose the crops
    rater = MapRater(
        material.images, blind, material.num_classes, seed=material.seed, noise=material.noise
    )
    return ImageReward(
        rater,
        material.held,
        seed=material.seed,
        reference=material.reference,
        scale=material.scale,
    )


LESSONS: Mapping[str, Lesson] = {
    "none": masks,
    "pixel": pixel_rewards,
    "image": image_rewards,
}
"""By the name of the reward."""
