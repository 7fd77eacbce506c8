"""What segmenters have in common: input, training, versions. How one looks is its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from ralis_backend.core import weights
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter.forward import ForwardPass
from ralis_backend.core.segmenter.protocol import SegmenterSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NetworkSegmenter(ABC):
    """See `Segmenter`. A kind names itself, builds its model, and says how it looks at an image.

    Args:
        spec: the network.
        seed: of the layers that no pretrained weights exist for.
        device: as torch names it.
    """

    kind: str
    stride: int
    offers: frozenset[str] = frozenset()
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(
        self, spec: SegmenterSpec, *, seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        self.spec, self.seed, self.device = spec, seed, torch.device(device)
        self.model, self.is_pretrained = self._built(spec)
        # channels_last: faster training on CPUs, and what tensor cores want
        self.model.to(self.device).to(memory_format=torch.channels_last).eval()

    @abstractmethod
    def build(self, spec: SegmenterSpec) -> tuple[nn.Module, bool]:
        """The model on the CPU, drawn from torch's global generator, and `is_pretrained`.

        `ValueError` if there is no such network.
        """

    @abstractmethod
    def forward_pass(self, image: np.ndarray, maps: Collection[str] = ()) -> ForwardPass:
        """See `Segmenter.forward_pass`."""

    @abstractmethod
    def stages(self, image: np.ndarray) -> Sequence[tuple[torch.Tensor, int]]:
        """See `Segmenter.stages`."""

    def encoder_modules(self) -> Sequence[nn.Module]:
        """See `Segmenter.encoder_modules`; none here."""
        return ()

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return self.spec.num_classes

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """(C, H, W) float32 class probabilities of one image, (H, W, 3) uint8 RGB."""
        return np.ascontiguousarray(self.forward_pass(image).probabilities.cpu().numpy())

    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """(..., H, W, 3) uint8 -> (..., 3, H, W) float32 on the device, as the model wants it."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        mean = torch.tensor(self.mean, device=self.device) * 255
        std = torch.tensor(self.std, device=self.device) * 255
        return ((pixels - mean) / std).movedim(-1, -3)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `Segmenter.logits`; inside bfloat16 on CUDA."""
        is_cuda = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_cuda):
            logits: torch.Tensor = self.model(pixels.to(memory_format=torch.channels_last))
        return logits.float()

    def state(self) -> dict[str, torch.Tensor]:
        """See `Segmenter.state`."""
        return dict(self.model.state_dict())

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """See `Segmenter.restore`."""
        self.model.load_state_dict(tensors)

    def copy(self) -> Self:
        """Another one that computes the same."""
        return self._like(self.spec)

    def resized(self, num_classes: int) -> Self:
        """See `Segmenter.resized`."""
        return self._like(self.spec.for_classes(num_classes))

    def save(self, path: Path, extra_metadata: Mapping[str, Any] | None = None) -> None:
        """Write the segmenter to one file; `extra_metadata` (JSON) is kept beside the spec."""
        metadata = {
            **(extra_metadata or {}),
            "kind": "segmenter",
            "segmenter": self.kind,
            "spec": asdict(self.spec),
            "seed": self.seed,
            "is_pretrained": self.is_pretrained,
        }
        weights.save(path, self.state(), metadata)

    def _built(self, spec: SegmenterSpec) -> tuple[nn.Module, bool]:
        if not 1 <= spec.num_classes <= VOID:
            raise ValueError(f"num_classes is {spec.num_classes}, expected 1 to {VOID}")
        with seeded(self.seed):
            return self.build(spec)

    def _like(self, spec: SegmenterSpec) -> Self:
        """Another one with this spec that knows what this one knows."""
        other = type(self)(spec.untrained(), seed=self.seed, device=self.device)
        known = self.state()
        other.restore({name: _fitted(known[name], new) for name, new in other.state().items()})
        other.spec, other.is_pretrained = spec, self.is_pretrained
        return other


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws of torch's global generator begin at `seed` within; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):  # the initialisers know the global generator only
        torch.default_generator.manual_seed(seed)
        yield


def _fitted(known: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """`known` with as many rows as `new`; further rows make a class that begins improbable."""
    if known.shape == new.shape:
        return known
    rows = min(len(known), len(new))
    fitted = torch.zeros_like(new)
    fitted[:rows] = known[:rows]
    if known.ndim == 1:  # the bias
        fitted[rows:] = known.min() - 2
    return fitted
