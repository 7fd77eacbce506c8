"""Image -> class probabilities, by a network of segmentation-models-pytorch.

Pads images of any size to the encoder's stride, and cuts large ones into tiles.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import nn

from ralis_backend.core.segmenter import encoder_weights
from ralis_backend.core.segmenter.forward import MAPS, ForwardPass
from ralis_backend.core.segmenter.network import NetworkSegmenter, seeded
from ralis_backend.core.segmenter.protocol import SegmenterSpec

if TYPE_CHECKING:
    import segmentation_models_pytorch as smp

logger = logging.getLogger(__name__)

TILE_OVERLAP = 128
NUM_DROPOUT_PASSES = 10
DROPOUT = 0.2
"""Share of the decoder's channels that a pass leaves out: what the FPN is trained with."""
_BALD_STRIDE = 4
_EMBEDDING_STRIDE = 16
_NUM_STAGES = 4


class SmpSegmenter(NetworkSegmenter):
    """A network of segmentation-models-pytorch.

    Args:
        spec: the network.
        seed: of the layers that no pretrained weights exist for.
        device: as torch names it.
        max_pixels_per_pass: larger images are cut into overlapping tiles of about this size, to
            bound memory (about 1 GB per megapixel on top of the probabilities); 2048 x 1024
            pixels go in one pass, tiles of them would overlap by much.

    Raises:
        ValueError: if the spec names an unknown network, has no class, or names a file of weights
            that does not fit.
    """

    kind = "smp"
    offers = frozenset(MAPS)
    model: smp.base.SegmentationModel

    def __init__(
        self,
        spec: SegmenterSpec,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        max_pixels_per_pass: int = 2_200_000,
    ) -> None:
        super().__init__(spec, seed=seed, device=device)
        self.max_pixels_per_pass = max_pixels_per_pass
        self.stride = max(32, int(self.model.encoder.output_stride))

    def build(self, spec: SegmenterSpec) -> tuple[nn.Module, bool]:
        """See `NetworkSegmenter.build`."""
        _check(spec)
        return _build(spec, self.seed)

    def encoder_modules(self) -> Sequence[nn.Module]:
        """See `Segmenter.encoder_modules`."""
        return (self.model.encoder,)

    def _like(self, spec: SegmenterSpec) -> Self:
        other = super()._like(spec)
        other.max_pixels_per_pass = self.max_pixels_per_pass
        return other

    def stages(self, image: np.ndarray) -> Sequence[tuple[torch.Tensor, int]]:
        """See `Segmenter.stages`."""
        with torch.inference_mode():
            pixels = self.normalised(image)[None]
            down, right = -pixels.shape[2] % self.stride, -pixels.shape[3] % self.stride
            padded = nn.functional.pad(pixels, (0, right, 0, down), mode="replicate")
            maps = self.model.encoder(padded.to(memory_format=torch.channels_last))[-_NUM_STAGES:]
        return [(each[0].float(), padded.shape[2] // each.shape[2]) for each in maps]

    def forward_pass(self, image: np.ndarray, maps: Collection[str] = ()) -> ForwardPass:
        """What there is to see in one image, (H, W, 3) uint8 RGB of any size.

        Args:
            image: the image.
            maps: of `MAPS`, what is wanted besides probabilities: `mirrored` doubles the cost.

        Raises:
            ValueError: if the image is of another form, or a map is unknown.
        """
        _check_image(image)
        if unknown := sorted(set(maps) - set(MAPS)):
            raise ValueError(f"unknown maps {unknown}; expected some of {', '.join(MAPS)}")
        height, width = image.shape[:2]
        seen = self._maps(image, maps)
        whole, bald, embeddings = seen["probabilities"], seen.get("bald"), seen.get("embeddings")
        mirrored = None
        if "mirrored" in maps:
            flipped = self._maps(image[:, ::-1], ())["probabilities"]
            mirrored = flipped[:, :height, :width].flip(2)
        return ForwardPass(
            whole[:, :height, :width],
            embeddings,
            _stride(whole, embeddings, _EMBEDDING_STRIDE),
            None if bald is None else bald[0],
            _stride(whole, bald, _BALD_STRIDE),
            mirrored,
        )

    def _padded(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, 3, H, W) -> the same with rows below and columns to the right, mirrored."""
        height, width = pixels.shape[-2:]
        down, right = -height % self.stride, -width % self.stride
        mode = "reflect" if down < height and right < width else "replicate"
        return nn.functional.pad(pixels, (0, right, 0, down), mode=mode)

    def _maps(self, image: np.ndarray, maps: Collection[str]) -> dict[str, torch.Tensor]:
        """As `_pass`, of the padded image, in tiles if it is large."""
        with torch.inference_mode():
            self.model.eval()
            if image.shape[0] * image.shape[1] > self.max_pixels_per_pass:
                return self._tiled(image, maps)
            return self._pass(self._padded(self.normalised(image)[None]), maps)

    def _pass(self, pixels: torch.Tensor, maps: Collection[str]) -> dict[str, torch.Tensor]:
        """(1, 3, H, W) -> maps in cells of their own stride.

        Probabilities (C, H, W); if wanted embeddings (D, h, w), and BALD (1, h', w').
        """
        pixels = pixels.to(memory_format=torch.channels_last)
        features = self.model.encoder(pixels)
        decoded = self.model.decoder(features)
        logits = self.model.segmentation_head(decoded)
        seen = {"probabilities": logits.float().contiguous().softmax(dim=1)[0]}
        if "embeddings" in maps:
            seen["embeddings"] = features[-2][0].float()
        if "bald" in maps:
            shrink = max(1, _BALD_STRIDE * decoded.shape[2] // pixels.shape[2])
            small = decoded if shrink == 1 else nn.functional.avg_pool2d(decoded, shrink)
            seen["bald"] = self._bald(small)
        return seen

    def _bald(self, decoded: torch.Tensor) -> torch.Tensor:
        """(1, D, h, w) -> (1, h, w) mutual information of prediction and dropout mask, in nats.

        Each pass leaves out the same channels in every image, so that regions compare. Source:
        "Bayesian Active Learning for Classification and Preference Learning", arXiv:1112.5745;
        dropout in the head alone, so that the encoder runs once.
        """
        generator = torch.Generator().manual_seed(0)
        conv = self.model.segmentation_head[0]
        is_kept = torch.rand(NUM_DROPOUT_PASSES, decoded.shape[1], generator=generator) >= DROPOUT
        kept = (is_kept.float() / (1 - DROPOUT)).to(decoded.device)
        masked = conv.weight * kept[:, None, :, None, None]  # (M, C, D, k, k)
        bias = None if conv.bias is None else conv.bias.repeat(NUM_DROPOUT_PASSES)
        logits = nn.functional.conv2d(decoded, masked.flatten(0, 1), bias, padding=conv.padding)
        passes = logits[0].float().reshape(NUM_DROPOUT_PASSES, -1, *logits.shape[2:])
        total, entropy = torch.zeros_like(passes[0]), torch.zeros_like(passes[0, 0])
        for each in passes:  # one by one: each fits the processor's cache
            log_p = each.log_softmax(dim=0)  # (C, h, w)
            p = log_p.exp()
            total += p
            entropy -= (p * log_p).sum(dim=0)
        of_mean = torch.special.entr(total / NUM_DROPOUT_PASSES).sum(dim=0)
        bald: torch.Tensor = (of_mean - entropy / NUM_DROPOUT_PASSES).clamp(min=0)
        return bald[None]

    def _tiled(self, image: np.ndarray, maps: Collection[str]) -> dict[str, torch.Tensor]:
        """As `_pass`, of the padded image, from overlapping tiles that are blended into another."""
        size = tuple(-(-side // self.stride) * self.stride for side in image.shape[:2])
        sums: dict[str, torch.Tensor] = {}
        totals: dict[str, torch.Tensor] = {}
        for rows, cols in _tiles((size[0], size[1]), self.max_pixels_per_pass, self.stride):
            pixels = self._padded(self.normalised(image[rows, cols])[None])
            for name, values in self._pass(pixels, maps).items():
                step = pixels.shape[2] // values.shape[1]
                if name not in sums:
                    shape = (size[0] // step, size[1] // step)
                    sums[name] = torch.zeros((len(values), *shape), device=self.device)
                    totals[name] = torch.zeros(shape, device=self.device)
                weight = _blend_weight(values.shape[1:], TILE_OVERLAP // step, self.device)
                place = (
                    slice(rows.start // step, rows.start // step + values.shape[1]),
                    slice(cols.start // step, cols.start // step + values.shape[2]),
                )
                sums[name][:, place[0], place[1]] += values * weight
                totals[name][place] += weight
        return {name: total / totals[name] for name, total in sums.items()}


def _stride(whole: torch.Tensor, cells: torch.Tensor | None, usual: int) -> int:
    """Pixels of the image to a cell."""
    return usual if cells is None else round(whole.shape[1] / cells.shape[1])


def _check(spec: SegmenterSpec) -> None:
    # takes seconds to import: what builds no network should not wait for it
    import segmentation_models_pytorch as smp

    architectures = sorted(
        model.__name__
        for model in smp.MODEL_ARCHITECTURES_MAPPING.values()
        if model.forward is smp.base.SegmentationModel.forward  # DPT: other features, fixed sizes
    )
    if spec.architecture.lower() not in {name.lower() for name in architectures}:
        raise ValueError(
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


def _check_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"the image is {image.dtype} {image.shape}, expected uint8 (H, W, 3)")


def _tiles(size: tuple[int, int], max_pixels: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Overlapping tiles that cover `size`; all starts and sides are multiples of `stride`."""
    side = max(2 * TILE_OVERLAP, int(max_pixels**0.5)) // stride * stride
    height = min(size[0], max(side, max_pixels // min(size[1], side) // stride * stride))
    width = min(size[1], max(side, max_pixels // height // stride * stride))
    for row in _tile_starts(size[0], height, stride):
        for col in _tile_starts(size[1], width, stride):
            yield slice(row, row + height), slice(col, col + width)


def _tile_starts(length: int, tile: int, stride: int) -> list[int]:
    if tile >= length:
        return [0]
    count = -(-(length - TILE_OVERLAP) // (tile - TILE_OVERLAP))
    last = length - tile
    return [last * index // (count - 1) // stride * stride for index in range(count)]


def _blend_weight(
    size: torch.Size | tuple[int, ...], overlap: int, device: torch.device
) -> torch.Tensor:
    """(h, w) weights that fall towards a tile's edges, never to zero."""
    ramps = []
    for length in size:
        position = torch.arange(length, device=device, dtype=torch.float32)
        to_edge = torch.minimum(position, length - 1 - position) + 1
        ramps.append(to_edge.clamp(max=max(1, overlap)))
    return ramps[0][:, None] * ramps[1][None, :]
