"""What a teacher says of pixels -> the labels that are believed, class by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ralis_backend.core.regions import VOID

OUTSIDE = 254
"""In masks, where a crop reaches beyond its image: nobody labelled it, and nobody could."""
UNSURE = -1
"""A pixel that nobody labelled, and whose pseudo-label is not believed."""
COLLAPSE_SHARE = 0.25
"""Of the entropy of people's labels: with less, the teacher says nearly everywhere the same."""
_DECAY = 0.95
_MIN_BATCHES = 40


class PseudoLabels:
    """Thresholds that follow how sure the teacher is of each class.

    A pixel is believed from `threshold * m[c] / max(m)` on, where m[c] is the mean probability of
    the pixels of class c, a moving average over batches: with one threshold for all, rare classes
    would hardly ever be learned from. Our design, after "FlexMatch", arXiv:2110.08263.

    Args:
        painted: (C,) pixels of each class that people labelled.
        threshold: of the class that the teacher is most sure of, in (0, 1].
    """

    def __init__(self, painted: np.ndarray, threshold: float) -> None:
        self._threshold = threshold
        self._painted_entropy = _entropy(torch.from_numpy(np.asarray(painted, np.float64)))
        self._means = torch.zeros(len(painted))  # 0: never predicted
        self._believed = torch.zeros(len(painted))
        self._said_of_painted = torch.zeros(len(painted))
        self._painted = torch.zeros(len(painted))
        self._num_pixels = 0.0
        self._num_batches = 0

    def to(self, device: torch.device) -> None:
        """Move what is remembered to where the teacher runs."""
        self._means, self._believed = self._means.to(device), self._believed.to(device)
        self._painted = self._painted.to(device)
        self._said_of_painted = self._said_of_painted.to(device)

    def go_on_from(self, before: PseudoLabels, removed_classes: Sequence[int]) -> None:
        """Remember what is known of the same teacher; of removed classes nothing."""
        self._means, self._believed = before._means.clone(), before._believed.clone()
        self._means[removed_classes] = 0
        self._believed[removed_classes] = 0
        self._said_of_painted, self._painted = before._said_of_painted, before._painted
        self._num_pixels, self._num_batches = before._num_pixels, before._num_batches

    def of(
        self, classes: torch.Tensor, confidence: torch.Tensor, masks: torch.Tensor
    ) -> torch.Tensor:
        """What is learned from each pixel of a batch.

        Args:
            classes: (B, H, W) int64, as the teacher says.
            confidence: (B, H, W) float32, the probability of that class.
            masks: (B, H, W) uint8, what people said: VOID where nobody did, and `OUTSIDE`.

        Returns:
            (B, H, W) int64: the class where it is believed, `UNSURE` where it is not, VOID where a
            person labelled, and outside.
        """
        is_unlabelled = masks == VOID
        is_painted = ~is_unlabelled & (masks != OUTSIDE)
        self._compare(classes[is_painted], masks[is_painted].long())
        self._follow(classes[is_unlabelled], confidence[is_unlabelled])
        is_sure = is_unlabelled & (confidence >= self.thresholds()[classes])
        self._remember(classes[is_sure], int(is_unlabelled.sum()))
        believed = torch.where(is_sure, classes, UNSURE)
        return torch.where(is_unlabelled, believed, VOID)

    def thresholds(self) -> torch.Tensor:
        """(C,) float32; the whole threshold for a class that was never predicted."""
        known = torch.where(self._means > 0, self._means, self._means.max())
        return self._threshold * known / known.max().clamp(min=1e-6)

    def shares(self) -> torch.Tensor:
        """(C,) shares of the classes among what was believed lately; zeros where nothing was."""
        return self._believed / self._believed.sum().clamp(min=1e-6)

    @property
    def believed_share(self) -> float:
        """Of the pixels that nobody labelled, those that were believed lately, in [0, 1]."""
        return float(self._believed.sum()) / max(1.0, self._num_pixels)

    @property
    def has_collapsed(self) -> bool:
        """Whether the teacher says nearly everywhere the same, of what people labelled as well.

        They label what is rare: of the rest it may well be right to say the same.
        """
        if self._num_batches < _MIN_BATCHES or not self._believed.any():
            return False
        if _entropy(self._believed) >= COLLAPSE_SHARE * self._painted_entropy:
            return False
        of_people = _entropy(self._painted)
        return not of_people or _entropy(self._said_of_painted) < COLLAPSE_SHARE * of_people

    def _compare(self, classes: torch.Tensor, labels: torch.Tensor) -> None:
        """What the teacher says of pixels that people labelled, and what they say."""
        num_classes = len(self._painted)
        said = torch.bincount(classes, minlength=num_classes)
        self._said_of_painted = _DECAY * self._said_of_painted + said
        self._painted = _DECAY * self._painted + torch.bincount(labels, minlength=num_classes)

    def _follow(self, classes: torch.Tensor, confidence: torch.Tensor) -> None:
        """Move the means of the classes that are there towards this batch."""
        counts = torch.bincount(classes, minlength=len(self._means))
        sums = torch.bincount(classes, confidence, minlength=len(self._means))
        is_there, is_known = counts > 0, self._means > 0
        means = (sums / counts.clamp(min=1)).float()
        moved = torch.where(is_known, _DECAY * self._means + (1 - _DECAY) * means, means)
        self._means = torch.where(is_there, moved, self._means)

    def _remember(self, classes: torch.Tensor, num_unlabelled: int) -> None:
        counts = torch.bincount(classes, minlength=len(self._believed))
        self._believed = _DECAY * self._believed + counts
        self._num_pixels = _DECAY * self._num_pixels + num_unlabelled
        self._num_batches += 1


def _entropy(counts: torch.Tensor) -> float:
    """Of the shares, in nats."""
    return float(torch.special.entr(counts / counts.sum().clamp(min=1e-6)).sum())
