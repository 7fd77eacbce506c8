"""Learning from pixels that nobody labelled: a teacher says what they show.

The teacher is a moving average of the segmenter. It looks at crops as they are; the segmenter sees
the same crops with other colours, blurred, and mixed, and must say the same wherever the teacher is
sure. Sources: "Mean teachers are better role models", arXiv:1703.01780; "FixMatch",
arXiv:2001.07685; "UniMatch", arXiv:2208.09910.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ralis_backend.core.learning.average import MovingAverage
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import Crops, Cutter, ImageCache, LabelledImage, Unreadable
from ralis_backend.core.learning.pseudo_labels import OUTSIDE, UNSURE, PseudoLabels
from ralis_backend.core.learning.strong_views import StrongViews
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import Segmenter

logger = logging.getLogger(__name__)

_STREAM = 1
"""Draws are others than those of the painted crops of the same seed."""


class UnlabelledPixels:
    """See `Objective`.

    A person's label is never replaced: pixels that have one do not count here.

    Args:
        images: labelled ones, and with no regions those that nobody labelled.
        config: how crops are cut, and `config.unlabelled`.
        num_classes: C.
        seed: of the draws.
        removed_classes: indices of those that the teacher never names.
        before: what learned in the same training until labels changed: its teacher and what is
            known of it stay.
        cache: of decoded images, see `Cutter`; one for all crops where it is None.
        facts: as they were kept of that training: a teacher that was left stays so.

    Raises:
        ValueError: if no region holds a label, or the settings cannot work.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        num_classes: int,
        *,
        seed: int,
        removed_classes: Sequence[int] = (),
        before: UnlabelledPixels | None = None,
        facts: Mapping[str, Any] = MappingProxyType({}),
        cache: ImageCache | None = None,
    ) -> None:
        self._removed = list(removed_classes)
        self._settings = settings = config.unlabelled
        settings.check()
        self.weight = settings.weight
        rng = np.random.default_rng([seed, _STREAM])
        plain = replace(config, brightness=0.0, contrast=0.0, saturation=0.0)
        num_own = settings.own_crops or 1  # one, should no image of the pool be readable
        own = replace(plain, batch_size=num_own)
        cache = ImageCache(config.cache_bytes) if cache is None else cache
        self._own = Crops(images, own, num_classes, rng, OUTSIDE, cache)
        self._pool = PoolCrops(images, plain, rng, cache)
        self._views = StrongViews(settings, rng)
        self._pseudo_labels = PseudoLabels(self._own.counts.sum(axis=0), settings.threshold)
        self._class_weights = torch.from_numpy(self._own.class_weights())
        self._has_collapsed = bool(facts.get("unlabelled", {}).get("has_collapsed"))
        self._known_teacher: MovingAverage | None = None
        if before is not None:
            self._has_collapsed = before._has_collapsed
            self._known_teacher = before._known_teacher
            self._pseudo_labels.go_on_from(before._pseudo_labels, self._removed)
        self._has_any: bool | None = None  # pixels that nobody labelled; None: not looked for yet

    def begin(self, segmenter: Segmenter) -> None:
        """See `Objective.begin`."""
        if self._known_teacher is None:
            self._known_teacher = MovingAverage(segmenter, self._settings.decay)
        self._teacher = self._known_teacher
        self._class_weights = self._class_weights.to(segmenter.device)
        self._pseudo_labels.to(segmenter.device)

    def loss(self, segmenter: Segmenter, step: int) -> torch.Tensor:
        """See `Objective.loss`; 0 in the warm-up, without such pixels, and after a collapse."""
        ramp = self._settings.ramp_at(step)
        if not ramp or self._has_collapsed:
            return torch.zeros((), device=segmenter.device)
        crops, masks = self._batch()
        is_unlabelled = bool((masks == VOID).any())
        self._has_any = bool(self._has_any) or is_unlabelled
        if not is_unlabelled:
            return torch.zeros((), device=segmenter.device)
        seen = segmenter.normalised(crops)
        targets = self._taught(seen, torch.from_numpy(masks).to(segmenter.device))
        self._look_for_collapse(step)
        strong, mixed = self._views.of(crops, targets)
        loss = self._disagreement(segmenter, segmenter.normalised(strong), mixed)
        if self._settings.feature_dropout:
            with dropped_channels(segmenter, self._settings.feature_dropout):
                loss = (loss + self._disagreement(segmenter, seen, targets)) / 2
        return ramp * loss

    def after_step(self, segmenter: Segmenter, step: int) -> None:
        """See `Objective.after_step`."""
        self._teacher.follow(segmenter)

    def facts(self) -> Mapping[str, Any]:
        """See `Objective.facts`: how much was believed lately, and why nothing was learned."""
        return {
            "unlabelled": {
                "believed": round(self._pseudo_labels.believed_share, 3),
                "has_collapsed": self._has_collapsed,
                "is_all_labelled": self._has_any is False,
            }
        }

    def _batch(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, h, w, 3) uint8 crops and (B, h, w) uint8 masks."""
        crops, masks = self._pool.some(self._settings.pool_crops)
        if self._settings.own_crops or not crops:
            own_crops, own_masks = self._own.batch()
            crops, masks = [*own_crops, *crops], [*own_masks, *masks]
        return np.stack(crops), np.stack(masks)

    @torch.no_grad()
    def _taught(self, seen: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """(B, h, w) int64, see `PseudoLabels.of`.

        Where the teacher sees a removed class, it is as sure of another one as it would be beside
        it: hardly.
        """
        probabilities = self._teacher.segmenter.logits(seen).softmax(dim=1)
        probabilities[:, self._removed] = 0
        confidence, classes = probabilities.max(dim=1)
        return self._pseudo_labels.of(classes, confidence, masks)

    def _look_for_collapse(self, step: int) -> None:
        if self._pseudo_labels.has_collapsed:
            self._has_collapsed = True
            most = int(self._pseudo_labels.shares().argmax())
            logger.warning(
                "in step %d the teacher says nearly everywhere that it is class %d, which people "
                "did not: this training goes on without pixels that nobody labelled",
                step,
                most,
            )

    def _disagreement(
        self, segmenter: Segmenter, pixels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Weighted cross-entropy where the teacher is believed, mean over unlabelled pixels."""
        num_unlabelled = (targets != VOID).sum()
        total = functional.cross_entropy(
            segmenter.logits(pixels),
            targets.masked_fill(targets == UNSURE, VOID),
            self._class_weights,
            ignore_index=VOID,
            reduction="sum",
        )
        return total / num_unlabelled.clamp(min=1)


class PoolCrops:
    """Crops from anywhere in images, each image as likely as another.

    Args:
        images: labelled or not; one that cannot be read is tried once.
        config: how crops are cut.
        rng: of the draws.
        cache: of decoded images, see `Cutter`.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        rng: np.random.Generator,
        cache: ImageCache | None = None,
    ) -> None:
        self._images = list(images)
        self._rng = rng
        self._cutter = Cutter(config, rng, OUTSIDE, cache)

    def some(self, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Crops, (h, w, 3) uint8, and masks, (h, w) uint8; none where no image is readable."""
        crops: list[np.ndarray] = []
        masks: list[np.ndarray] = []
        while len(crops) < count and self._images:
            index = int(self._rng.integers(len(self._images)))
            image = self._images[index]
            whole = Region(0, 0, *image.mask.shape)
            try:
                crop, mask = self._cutter.cut(image, whole)
            except Unreadable:  # noted by who raised it
                del self._images[index]
                continue
            crops.append(crop)
            masks.append(mask)
        return crops, masks


@contextmanager
def dropped_channels(segmenter: Segmenter, share: float) -> Iterator[None]:
    """Within, whole channels of what the encoder gives are left out at random.

    Nothing happens to a segmenter without a part called so.
    """

    def drop(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        if isinstance(outputs, torch.Tensor):
            return functional.dropout2d(outputs, share)
        return [functional.dropout2d(each, share) for each in outputs]

    hooks = [each.register_forward_hook(drop) for each in segmenter.encoder_modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
