"""Regions whose mask somebody rated, learned beside painted ones and guarded [D].

The map that was rated is one action map; what it is compared with is how maps of the same classes
are usually rated. Nothing here draws maps: people have rated those that they were shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import Crops, LabelledImage
from ralis_backend.core.learning.painted import cross_entropy
from ralis_backend.core.learning.rewards.loss import clipped_gain, divergence
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import Segmenter

_PRIOR_REGIONS = 5.0
"""A class's usual score is drawn to that of all classes as if by so many more regions."""


@dataclass(frozen=True)
class RatedRegion:
    """A region, the mask that was shown for it, and how good somebody found that.

    load: gives the image, (H, W, 3) uint8 RGB; may raise `Unreadable`.
    shown: (H, W) uint8 classes, VOID outside the region.
    region: that was rated.
    score: 0, all wrong, to 1, all right; accept and reject are 1 and 0.
    """

    load: Callable[[], np.ndarray]
    shown: np.ndarray
    region: Region
    score: float


@dataclass(frozen=True)
class RatedConfig:
    """The guards, and how much ratings count. All are [D].

    weight: of the ratings' loss; that of the paint is 1.
    min_ratings: with fewer nothing is learned from them.
    uncertain_share: in a mask below the usual this share of a crop's pixels, those about which the
        reference is least sure, counts against the shown class; most of a bad mask is right.
    clip: a probability moves this far from the reference's by ratings, relatively.
    kl_weight: of the divergence from the reference in rated pixels.
    """

    weight: float = 0.3
    min_ratings: int = 50
    uncertain_share: float = 0.2
    clip: float = 0.2
    kl_weight: float = 0.05


class RatedBesidePaint:
    """See `Objective`: painted regions, and rated ones that never outweigh them.

    Guards: at least half of a batch's pixels that count are painted; the reference is the segmenter
    as the training finds it, which is the last accepted version; a version that lowers the held-out
    score by more than a point is refused by the promotion gate, as any other is.

    `functools.partial(RatedBesidePaint, rated)` is an `ObjectiveFactory`. It brings the paint
    along: beside `PaintedRegions` the paint counts twice, never less than half.

    Args:
        rated: at least `min_ratings`.
        images: painted.
        config: how crops are drawn.
        num_classes: C.
        seed: of the draws.
        guards: the hyper-parameters.

    Raises:
        ValueError: if there are too few ratings, a score is not in [0, 1], nothing is painted, or a
            mask holds an unknown class.
    """

    weight = 1.0

    def __init__(
        self,
        rated: Sequence[RatedRegion],
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        num_classes: int,
        *,
        seed: int,
        guards: RatedConfig | None = None,
    ) -> None:
        self._guards = guards or RatedConfig()
        if len(rated) < self._guards.min_ratings:
            raise ValueError(
                f"{len(rated)} regions are rated, expected at least {self._guards.min_ratings}: "
                "fewer teach more of their raters than of the images"
            )
        self._paint = Crops(images, config, num_classes, np.random.default_rng([seed, 0]))
        self._rated = _RatedCrops(rated, config, num_classes, np.random.default_rng([seed, 1]))
        self._class_weights = torch.from_numpy(self._paint.class_weights())
        self._advantages = _advantages(self._rated.counts, self._rated.scores)  # (R, C)
        self._generator = torch.Generator().manual_seed(seed)
        self._reference: Segmenter | None = None

    def begin(self, segmenter: Segmenter) -> None:
        """See `Objective.begin`."""
        self._reference = segmenter.copy()
        self._reference.model.eval()
        self._class_weights = self._class_weights.to(segmenter.device)

    def loss(self, segmenter: Segmenter, step: int) -> torch.Tensor:
        """See `Objective.loss`."""
        pixels, masks = self._paint.batch()
        painted = cross_entropy(segmenter, pixels, masks, self._class_weights)
        rated = self._rated_loss(segmenter, int((masks != VOID).sum()))
        return painted + self._guards.weight * rated

    def after_step(self, segmenter: Segmenter, step: int) -> None:
        """See `Objective.after_step`; the reference stays."""

    def facts(self) -> Mapping[str, Any]:
        """See `Objective.facts`."""
        return {"rated": {"regions": len(self._rated)}}

    def _rated_loss(self, segmenter: Segmenter, max_pixels: int) -> torch.Tensor:
        """Clipped gain and divergence, mean over at most so many rated pixels."""
        if self._reference is None:
            raise RuntimeError("`loss` was called before `begin`, which makes the reference")
        images, shown, drawn = self._rated.batch_of_regions()
        pixels = segmenter.normalised(images)
        with torch.no_grad():
            log_reference = self._reference.logits(pixels).log_softmax(dim=1)
        advantages = torch.from_numpy(_of_pixels(self._advantages[drawn], shown))
        advantages = _uncertain_if_bad(
            advantages.to(segmenter.device), log_reference, self._guards.uncertain_share
        )
        counts = _at_most(advantages != 0, max_pixels, self._generator)  # (B, h, w) bool
        if not bool(counts.any()):
            return torch.zeros((), device=segmenter.device)
        classes = torch.from_numpy(np.where(shown == VOID, 0, shown)).to(pixels.device).long()
        log_policy = segmenter.logits(pixels).log_softmax(dim=1)
        chosen, old = (
            each.gather(1, classes[:, None])[:, 0][counts] for each in (log_policy, log_reference)
        )
        gain = clipped_gain(chosen, old, advantages[counts], self._guards.clip).mean()
        kept = (_where(each, counts) for each in (log_policy, log_reference))
        return self._guards.kl_weight * divergence(*kept) - gain


class _RatedCrops(Crops):
    """Crops around rated regions, drawn alike, of which it is known which they are.

    Attributes:
        scores: (R,) float32, in the order of `regions`.
    """

    def __init__(
        self,
        rated: Sequence[RatedRegion],
        config: FinetuneConfig,
        num_classes: int,
        rng: np.random.Generator,
    ) -> None:
        for each in rated:
            if not 0 <= each.score <= 1:  # also NaN
                raise ValueError(
                    f"{each.region} is rated {each.score}, expected 0 (all wrong) to 1 (all right)"
                )
        images = [LabelledImage(each.load, each.shown, (each.region,)) for each in rated]
        score_of = {id(image): each.score for image, each in zip(images, rated, strict=True)}
        super().__init__(images, config, num_classes, rng)
        self.chances = np.full(len(self.regions), 1 / len(self.regions))
        self.scores = np.array([score_of[id(image)] for image, _ in self.regions], np.float32)


def _advantages(counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(R, C) float32: a region's score less what masks with that class usually get, over the std.

    Args:
        counts: (R, C) pixels shown of each class.
        scores: (R,) in [0, 1].
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    usual = (shares.T @ scores + _PRIOR_REGIONS * scores.mean()) / (
        shares.sum(axis=0) + _PRIOR_REGIONS
    )  # (C,)
    centred = scores[:, None] - usual
    deviation = np.sqrt((shares * centred**2).sum() / len(scores))
    return np.asarray(np.where(np.ptp(scores) > 0, centred / (deviation + 1e-6), 0), np.float32)


def _of_pixels(advantages: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(B, C) by class, (B, h, w) classes -> (B, h, w) float32, 0 where nothing was shown."""
    batch = np.arange(len(shown))[:, None, None]
    is_shown = shown != VOID
    values: np.ndarray = advantages[batch, np.where(is_shown, shown, 0)] * is_shown
    return values


def _uncertain_if_bad(
    advantages: torch.Tensor, log_reference: torch.Tensor, share: float
) -> torch.Tensor:
    """The advantages; of a crop's below 0 the share about which the reference is least sure."""
    entropy = -(log_reference.exp() * log_reference).sum(dim=1)  # (B, h, w)
    kept = advantages.clone()
    for values, doubts in zip(kept, entropy, strict=True):
        bad = (values.flatten() < 0).nonzero()[:, 0]
        by_doubt = doubts.flatten()[bad].argsort(descending=True, stable=True)
        values.view(-1)[bad[by_doubt[math.ceil(share * len(bad)) :]]] = 0
    return kept


def _at_most(chosen: torch.Tensor, limit: int, generator: torch.Generator) -> torch.Tensor:
    """Of the chosen pixels, (B, h, w) bool, at most so many, drawn alike."""
    places = chosen.flatten().nonzero()[:, 0]
    if len(places) <= limit:
        return chosen
    drawn = torch.randperm(len(places), generator=generator)[:limit].to(places.device)
    kept = torch.zeros_like(chosen).flatten()
    kept[places[drawn]] = True
    return kept.reshape(chosen.shape)


def _where(values: torch.Tensor, is_kept: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) at (B, h, w) bool -> (1, C, 1, N)."""
    return values.movedim(1, -1)[is_kept].T[None, :, None]
