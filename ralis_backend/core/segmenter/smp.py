"""Networks of segmentation-models-pytorch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ralis_backend.core.blocks import softmax_
from ralis_backend.core.segmenter import encoder_weights
from ralis_backend.core.segmenter.dropout import bald_of, deep_bald_of
from ralis_backend.core.segmenter.maps import MAPS
from ralis_backend.core.segmenter.network import NetworkSegmenter, seeded
from ralis_backend.core.segmenter.protocol import SegmenterSpec

if TYPE_CHECKING:
    import segmentation_models_pytorch as smp

logger = logging.getLogger(__name__)

_BALD_STRIDE = 4
_NUM_STAGES = 4


class SmpSegmenter(NetworkSegmenter):
    """A network of segmentation-models-pytorch.

    Raises:
        ValueError: if the spec names an unknown network, has no class, or names a file of weights
            that does not fit.
    """

    kind = "smp"
    offers = frozenset(MAPS)
    model: smp.base.SegmentationModel

    def build(self, spec: SegmenterSpec) -> tuple[nn.Module, bool]:
        """See `NetworkSegmenter.build`."""
        _check(spec)
        network, is_pretrained = _build(spec, self.seed)
        self.stride = max(32, int(network.encoder.output_stride))
        return network, is_pretrained

    def encoder_modules(self) -> Sequence[nn.Module]:
        """See `Segmenter.encoder_modules`."""
        return (self.model.encoder,)

    def stages(self, image: np.ndarray) -> Sequence[tuple[torch.Tensor, int]]:
        """See `Segmenter.stages`."""
        with torch.inference_mode():
            pixels = self.normalised(image)[None]
            down, right = -pixels.shape[2] % self.stride, -pixels.shape[3] % self.stride
            padded = nn.functional.pad(pixels, (0, right, 0, down), mode="replicate")
            maps = self.model.encoder(padded.to(memory_format=torch.channels_last))[-_NUM_STAGES:]
        return [(each[0].float(), padded.shape[2] // each.shape[2]) for each in maps]

    def look(self, pixels: torch.Tensor, maps: Collection[str]) -> dict[str, torch.Tensor]:
        """See `NetworkSegmenter.look`."""
        pixels = pixels.to(memory_format=torch.channels_last)
        features = self.model.encoder(pixels)
        decoded = self.model.decoder(features)
        head, *upsampling = self.model.segmentation_head
        logits = head(decoded).float().contiguous()  # here it is small; a class is read at a time
        for layer in upsampling:
            logits = layer(logits)
        seen = {"probabilities": softmax_(logits[0])}
        if "embeddings" in maps:
            seen["embeddings"] = features[-2][0].float()
        shrink = max(1, _BALD_STRIDE * decoded.shape[2] // pixels.shape[2])

        def small(decoded: torch.Tensor) -> torch.Tensor:
            return decoded if shrink == 1 else nn.functional.avg_pool2d(decoded, shrink)

        if "bald" in maps:
            seen["bald"] = bald_of(head, small(decoded))
        if "deep_bald" in maps:
            decoder = self.model.decoder
            seen["deep_bald"] = deep_bald_of(lambda: small(decoder(features)), decoder, head)
        return seen


class UnknownArchitecture(ValueError):
    """It is none of segmentation-models-pytorch."""


def _check(spec: SegmenterSpec) -> None:
    # takes seconds to import: what builds no network should not wait for it
    import segmentation_models_pytorch as smp

    architectures = sorted(
        model.__name__
        for model in smp.MODEL_ARCHITECTURES_MAPPING.values()
        if model.forward is smp.base.SegmentationModel.forward  # DPT: other features, fixed sizes
    )
    if spec.architecture.lower() not in {name.lower() for name in architectures}:
        raise UnknownArchitecture(
            f"unknown architecture '{spec.architecture}'; expected one of "
            f"{', '.join(architectures)}"
        )
    names = smp.encoders.get_encoder_names()
    if spec.encoder not in names and not spec.encoder.startswith("tu-"):
        raise ValueError(
            f"unknown encoder '{spec.encoder}'; expected 'tu-<timm model>' or one of "
            f"{', '.join(names)}"
        )


_NOT_TO_BE_HAD: set[tuple[str, str | None]] = set()
"""Encoder weights that this process failed to load; asking the hub again takes half a minute."""


def _build(spec: SegmenterSpec, seed: int) -> tuple[smp.base.SegmentationModel, bool]:
    """The network on the CPU, and whether its encoder is pretrained."""
    if spec.encoder_weights is not None and encoder_weights.is_file(spec.encoder_weights):
        network = _create(spec.untrained(), seed)
        encoder_weights.load(Path(spec.encoder_weights), network.encoder, spec.encoder)
        return network, True
    wanted = (spec.encoder, spec.encoder_weights)
    if spec.encoder_weights is not None and wanted not in _NOT_TO_BE_HAD:
        try:
            with _quiet_hub():
                return _create(spec, seed), True
        except KeyError as error:
            raise ValueError(
                f"no weights '{spec.encoder_weights}' for encoder '{spec.encoder}': {error}"
            ) from error
        except Exception as error:  # the hub's and timm's loaders raise nearly anything
            _NOT_TO_BE_HAD.add(wanted)
            logger.warning(
                "The %s weights of encoder %s could not be had (%s). Training starts from random "
                "weights and needs far more labels. Give the machine access to the Hugging Face "
                "hub once, or set HF_HUB_CACHE to a folder that holds them.",
                spec.encoder_weights,
                spec.encoder,
                error,
            )
    return _create(spec.untrained(), seed), False


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """The hub tells twice of each of its tries; what came of them we say ourselves, once."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _create(spec: SegmenterSpec, seed: int) -> smp.base.SegmentationModel:
    import segmentation_models_pytorch as smp

    pretrained: str | bool | None = spec.encoder_weights
    if pretrained is not None and spec.encoder.startswith("tu-"):
        pretrained = True  # timm names the weights in the encoder's name
    with seeded(seed):  # from the beginning, also after an attempt that drew some and failed
        try:
            return smp.create_model(
                spec.architecture,
                encoder_name=spec.encoder,
                encoder_weights=pretrained,
                classes=spec.num_classes,
            )
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            if pretrained is not None:
                raise
            raise ValueError(
                f"{spec.architecture} with encoder '{spec.encoder}' cannot be built: {error}"
            ) from error
