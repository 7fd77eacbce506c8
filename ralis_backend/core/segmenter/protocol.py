"""What everyone else may ask of a segmenter, whatever network it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ralis_backend.core.regions import Region

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ralis_backend.core.segmenter.forward import ForwardPass


@dataclass(frozen=True)
class SegmenterSpec:
    """Which network.

    num_classes: C.
    architecture: one of segmentation-models-pytorch, or a kind of `SEGMENTERS`.
    encoder: as segmentation-models-pytorch names it.
    encoder_weights: their name there, or the path of a `.safetensors` file; None: random ones, and
        for kinds that begin without any.
    """

    num_classes: int
    architecture: str = "FPN"
    encoder: str = "mobilenet_v2"
    encoder_weights: str | None = "imagenet"

    def for_classes(self, num_classes: int) -> SegmenterSpec:
        """The same network for another number of classes."""
        return replace(self, num_classes=num_classes)

    def untrained(self) -> SegmenterSpec:
        """The same network before any weights are read: those of a version replace them."""
        return replace(self, encoder_weights=None)


DEFAULT_SPEC = SegmenterSpec(num_classes=1)
"""Where nothing else is asked for; see `for_classes`."""


class Segmenter(Protocol):
    """A network and the classes that it tells apart.

    `NetworkSegmenter` has all of it, except for how the model is built and looks at an image.

    Attributes:
        kind: its name in `SEGMENTERS`, kept in its files.
        spec: the network.
        seed: of the layers that no pretrained weights exist for.
        device: where it runs.
        model: from what `normalised` returns, (B, 3, H, W), to logits (B, C, H, W) of the same H
            and W; in evaluation mode. What it holds is what is trained and saved.
        stride: sides of the model's input must be multiples of this.
        offers: which of `MAPS` a look can give: strategies that need others cannot rank.
        mean, std: of the channels of pixels in [0, 1]: what `normalised` does.
        is_pretrained: whether the encoder began with, or learned, weights worth keeping.
    """

    kind: str
    spec: SegmenterSpec
    seed: int
    device: torch.device
    model: nn.Module
    stride: int
    offers: frozenset[str]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_pretrained: bool

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""

    @property
    def lacks_weights(self) -> bool:
        """Whether the encoder should have begun with the spec's weights, which were not to be had.

        False for kinds without such a part.
        """

    def forward_pass(self, image: np.ndarray, maps: Collection[str] = ()) -> ForwardPass:
        """What there is to see in one image, (H, W, 3) uint8 RGB of any size.

        Args:
            image: the image.
            maps: of `offers`, what is wanted besides probabilities.

        Raises:
            ValueError: if the image is of another form, or a map is not offered.
        """

    def parts(
        self, image: np.ndarray, maps: Collection[str] = ()
    ) -> Iterator[tuple[Region, ForwardPass]]:
        """The same part by part, row by row, so that no map of a large image is held as a whole.

        The parts cover the image, do not overlap, and begin at multiples of every map's stride.
        """

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """(C, H, W) float32 class probabilities of one image, (H, W, 3) uint8 RGB."""

    def stages(self, image: np.ndarray) -> Sequence[tuple[torch.Tensor, int]]:
        """The encoder's features of one image, (D, h, w) float32 each, and their strides.

        Two maps or more, the finest first, at most the last four; a map begins at the top-left
        corner and may reach beyond the image. The last but one is what embeddings are made of.
        """

    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """(..., H, W, 3) uint8 -> (..., 3, H, W) float32 on the device, as the model wants it."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) as `normalised` gives it -> (B, C, H, W) float32, to learn from."""

    def encoder_modules(self) -> Sequence[nn.Module]:
        """The model's parts that learn slowly: those that weights of other images exist for.

        They keep their batch statistics once `is_pretrained`. None, if there is no such part.
        """

    def state(self) -> dict[str, torch.Tensor]:
        """All that training changes, by name; the tensors themselves, no copies."""

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave; `RuntimeError` if it is another network's."""

    def copy(self) -> Segmenter:
        """Another one that computes the same."""

    def resized(self, num_classes: int) -> Segmenter:
        """A segmenter for another number of classes that keeps what this one knows.

        Classes keep their index; those beyond `num_classes` are forgotten, new ones begin
        improbable.
        """

    def save(self, path: Path, extra_metadata: Mapping[str, Any] | None = None) -> None:
        """Write the segmenter to one file; `extra_metadata` (JSON) is kept beside the spec."""
