"""Something that a segmenter learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from ralis_backend.core.learning.config import FinetuneConfig
    from ralis_backend.core.learning.crops import LabelledImage
    from ralis_backend.core.segmenter import Segmenter


class Objective(Protocol):
    """One term of the loss, with whatever it draws and remembers.

    The loop calls it between putting the segmenter in training mode and back. Painted regions are
    one; so is agreement on unlabelled pixels with a teacher that it copies in `begin` and moves
    along in `after_step`.

    Attributes:
        weight: of its loss in the sum.
    """

    weight: float

    def begin(self, segmenter: Segmenter) -> None:
        """Prepare, before the first step."""

    def loss(self, segmenter: Segmenter, step: int) -> torch.Tensor:
        """A scalar on the segmenter's device, from a batch of its own; `step` counts from 1.

        0 without a gradient where nothing is learned yet.

        Randomness comes from a generator of its own, or from torch's global one, which the loop
        has seeded.
        """

    def after_step(self, segmenter: Segmenter, step: int) -> None:
        """Follow the weights as they are after step `step`."""

    def facts(self) -> Mapping[str, Any]:
        """What to keep with what was trained, JSON under a name of its own; empty if nothing."""


class ObjectiveFactory(Protocol):
    """Makes an objective for one training.

    One with a parameter `removed_classes` is told the indices of classes that the project has no
    more: their pixels are VOID, and nothing should teach them. Where labels change in a training
    that goes on, one with a parameter `before` is told the objective of this name that learned
    from them before, to go on from what it remembers; None at first. One with a parameter `facts`
    is told what the objectives said when that training was last kept; empty if it was not. One
    with a parameter `cache` is given the `ImageCache` of decoded images that all of them share.
    """

    def __call__(
        self,
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        num_classes: int,
        *,
        seed: int,
    ) -> Objective:
        """The objective; `ValueError` if it can learn nothing from these images."""
