"""Objectives that draw action maps, have them judged, and make the better ones more probable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from ralis_backend.core.learning.rewards.actions import (
    SAMPLERS,
    cell_logits,
    log_probabilities,
    on_pixels,
)
from ralis_backend.core.learning.rewards.advantages import (
    CREDITS,
    NORMALISATIONS,
    PIXEL_CREDITS,
)
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.loss import policy_loss
from ralis_backend.core.learning.rewards.raters import JudgedCrops
from ralis_backend.core.learning.rewards.scale import ProgressiveScale
from ralis_backend.core.learning.rewards.scores import Judge, PixelJudge, checked, checked_pixels
from ralis_backend.core.segmenter import Segmenter

J = TypeVar("J")


@dataclass(frozen=True)
class _Drawn:
    """Maps of a batch and what was said about them, for as many updates as they are used."""

    pixels: torch.Tensor  # (B, 3, H, W)
    stride: int
    actions: torch.Tensor  # (G, B, rows, cols), as all below
    advantages: torch.Tensor
    old: torch.Tensor
    log_reference: torch.Tensor | None  # (B, C, rows, cols)


class SampledMaps(ABC, Generic[J]):
    """See `Objective`. A kind of reward says how maps become advantages.

    Args:
        crops: what is learned from; no mask is to be had from it.
        config: the hyper-parameters.
        seed: of the draws.
        reference: what the policy is held near, never changed; None: the segmenter as it is when
            the training begins. Not needed where `kl_weight` is 0.

    Attributes:
        mean_reward: of the last maps that were drawn, in [0, 1].

    Raises:
        ValueError: if the settings cannot work.
    """

    weight = 1.0

    def __init__(
        self,
        crops: JudgedCrops[J],
        config: RewardConfig,
        *,
        seed: int,
        reference: Segmenter | None = None,
    ) -> None:
        config.check()
        self._crops, self._config = crops, config
        self._reference = reference
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn: _Drawn | None = None
        self.mean_reward = 0.0

    @property
    @abstractmethod
    def stride(self) -> int:
        """Side of the cells that the next maps are drawn in, in pixels."""

    @abstractmethod
    def judged(self, actions: torch.Tensor, maps: torch.Tensor, judge: J) -> torch.Tensor:
        """Ask the judge, note `mean_reward`, and credit the actions.

        Args:
            actions: (G, B, rows, cols) int64 classes of cells.
            maps: (G, B, H, W), the same on pixels.
            judge: of these maps.

        Returns:
            (G, B, rows, cols) float32 advantages, normalised.
        """

    def begin(self, segmenter: Segmenter) -> None:
        """See `Objective.begin`."""
        if self._reference is None and self._config.kl_weight:
            self._reference = segmenter.copy()
        if self._reference is not None:
            self._reference.model.eval()

    def loss(self, segmenter: Segmenter, step: int) -> torch.Tensor:
        """See `Objective.loss`; batch statistics are those of the crops, never of maps."""
        if (step - 1) % self._config.updates_per_draw == 0 or self._drawn is None:
            return self._new_loss(segmenter)
        drawn = self._drawn
        log_policy = _log_policy(segmenter, drawn.pixels, drawn.stride)
        return self._loss_of(log_policy, drawn)

    def after_step(self, segmenter: Segmenter, step: int) -> None:
        """See `Objective.after_step`; nothing to follow."""

    def facts(self) -> Mapping[str, Any]:
        """See `Objective.facts`."""
        return {"rewards": {"mean": round(self.mean_reward, 4), "stride": self.stride}}

    def _new_loss(self, segmenter: Segmenter) -> torch.Tensor:
        images, judge = self._crops.batch()
        pixels, sampler = segmenter.normalised(images), SAMPLERS[self._config.sampler]
        stride = sampler.policy_stride(self.stride)
        log_policy = _log_policy(segmenter, pixels, stride)  # (B, C, rows, cols)
        known = _finite(log_policy.detach())
        actions = sampler.draw(known, self._config.num_maps, self.stride, self._generator)
        maps = on_pixels(actions, stride, (pixels.shape[2], pixels.shape[3]))  # (G, B, H, W)
        advantages = self.judged(actions, maps, judge)  # (G, B, rows, cols)
        old, log_reference = log_probabilities(known, actions), self._log_reference(pixels, stride)
        self._drawn = _Drawn(pixels, stride, actions, advantages, old, log_reference)
        return self._loss_of(log_policy, self._drawn)

    def _loss_of(self, log_policy: torch.Tensor, drawn: _Drawn) -> torch.Tensor:
        return policy_loss(
            log_policy, drawn.actions, drawn.advantages, drawn.old, drawn.log_reference,
            self._config,
        )  # fmt: skip

    def _log_reference(self, pixels: torch.Tensor, stride: int) -> torch.Tensor | None:
        if self._reference is None or not self._config.kl_weight:
            return None
        with torch.no_grad():
            return _log_policy(self._reference, pixels, stride)


class ImageReward(SampledMaps[Judge]):
    """Learning from one score for each map: PSR, PSD and SyncAN.

    Args:
        crops: with judges of whole maps.
        config: the hyper-parameters.
        seed: of the draws.
        reference: as of `SampledMaps`.
        scale: the stride, where it is to go on from another training; None: from the first one.
    """

    def __init__(
        self,
        crops: JudgedCrops[Judge],
        config: RewardConfig,
        *,
        seed: int,
        reference: Segmenter | None = None,
        scale: ProgressiveScale | None = None,
    ) -> None:
        super().__init__(crops, config, seed=seed, reference=reference)
        self._scale = scale or ProgressiveScale(config.strides, config.patience, config.min_gain)

    @property
    def stride(self) -> int:
        """See `SampledMaps.stride`."""
        return self._scale.stride

    def judged(self, actions: torch.Tensor, maps: torch.Tensor, judge: Judge) -> torch.Tensor:
        """See `SampledMaps.judged`; `ValueError` if a score is not in [0, 1]."""
        scores = checked(judge(maps), tuple(maps.shape[:2])).to(maps.device)
        self.mean_reward = float(scores.mean())
        self._scale.observe(self.mean_reward)
        credited = CREDITS[self._config.credit](actions, scores)
        is_compared = (actions != actions[0]).any(dim=0)  # (B, rows, cols): maps differ there
        return NORMALISATIONS[self._config.normalisation](credited, is_compared)


class PixelReward(SampledMaps[PixelJudge]):
    """Learning from a reward for each pixel of each map, drawn pixel by pixel; SyncAN alone.

    Args as of `SampledMaps`.
    """

    @property
    def stride(self) -> int:
        """See `SampledMaps.stride`."""
        return 1

    def judged(self, actions: torch.Tensor, maps: torch.Tensor, judge: PixelJudge) -> torch.Tensor:
        """See `SampledMaps.judged`; `ValueError` if a reward that counts is not in [0, 1]."""
        rewards = judge(maps)
        values = checked_pixels(rewards, tuple(maps.shape))
        num_known = int(rewards.is_known.sum()) * len(maps)
        self.mean_reward = float(values.sum()) / max(1, num_known)
        credited = PIXEL_CREDITS[self._config.pixel_credit](values)
        return NORMALISATIONS[self._config.normalisation](credited, rewards.is_known)


def _log_policy(segmenter: Segmenter, pixels: torch.Tensor, stride: int) -> torch.Tensor:
    """(B, C, rows, cols) log-probabilities of cells' classes."""
    return cell_logits(segmenter.logits(pixels), stride).log_softmax(dim=1)


def _finite(log_policy: torch.Tensor) -> torch.Tensor:
    """The same; `FloatingPointError` where no action could be drawn from it."""
    if not bool(torch.isfinite(log_policy).all()):
        raise FloatingPointError(
            "the segmenter's probabilities are not finite, so that no action can be drawn; lower "
            "learning_rate or start from an earlier version"
        )
    return log_policy
