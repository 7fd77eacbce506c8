"""Image -> class probabilities, by a network of segmentation-models-pytorch.

Pads images of any size to the encoder's stride, tiles large ones, saves and loads versions,
exports to ONNX. Training is `finetune`'s.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ralis_backend.core import weights
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter.forward import MAPS, ForwardPass

if TYPE_CHECKING:
    import segmentation_models_pytorch as smp

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TILE_OVERLAP = 128
NUM_DROPOUT_PASSES = 10
DROPOUT = 0.2
"""Share of the decoder's channels that a pass leaves out: what the FPN is trained with."""
_BALD_STRIDE = 4
_EMBEDDING_STRIDE = 16


@dataclass(frozen=True)
class SegmenterSpec:
    """Which network: names as in segmentation-models-pytorch; `encoder_weights` None is random."""

    num_classes: int
    architecture: str = "FPN"
    encoder: str = "mobilenet_v2"
    encoder_weights: str | None = "imagenet"


class Segmenter:
    """A network and the classes it tells apart.

    Args:
        spec: the network.
        seed: of the layers that no pretrained weights exist for.
        device: as torch names it.
        max_pixels_per_pass: larger images are cut into overlapping tiles of about this size, to
            bound memory (about 1 GB per megapixel on top of the probabilities).

    Attributes:
        model: the network, in evaluation mode; takes what `normalised` returns, gives logits.
        stride: sides of its input must be multiples of this.
        is_pretrained: whether the encoder began with, or learned, weights worth keeping.

    Raises:
        ValueError: if the spec names an unknown network or has no class.
    """

    def __init__(
        self,
        spec: SegmenterSpec,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        max_pixels_per_pass: int = 2_000_000,
    ) -> None:
        _check(spec)
        self.spec = spec
        self.device = torch.device(device)
        self.max_pixels_per_pass = max_pixels_per_pass
        self.seed = seed
        self.model, self.is_pretrained = _build(spec, seed)
        # channels_last: faster training on CPUs, and what tensor cores want
        self.model.to(self.device).to(memory_format=torch.channels_last).eval()
        self.stride = max(32, int(self.model.encoder.output_stride))

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return self.spec.num_classes

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

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """(C, H, W) float32 class probabilities of one image, (H, W, 3) uint8 RGB."""
        return np.ascontiguousarray(self.forward_pass(image).probabilities.cpu().numpy())

    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """(..., H, W, 3) uint8 -> (..., 3, H, W) float32 on the device, as the encoder wants it."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        mean = torch.tensor(IMAGENET_MEAN, device=self.device) * 255
        std = torch.tensor(IMAGENET_STD, device=self.device) * 255
        return ((pixels - mean) / std).movedim(-1, -3)

    def resized(self, num_classes: int) -> Segmenter:
        """A segmenter for another number of classes that keeps what this one knows.

        Classes keep their index; those beyond `num_classes` are forgotten, new ones begin
        improbable.
        """
        other = Segmenter(
            replace(self.spec, num_classes=num_classes, encoder_weights=None),
            seed=self.seed,
            device=self.device,
            max_pixels_per_pass=self.max_pixels_per_pass,
        )
        known = self.model.state_dict()
        other.model.load_state_dict(
            {name: _fitted(known[name], new) for name, new in other.model.state_dict().items()}
        )
        other.spec = replace(self.spec, num_classes=num_classes)
        other.is_pretrained = self.is_pretrained
        return other

    def save(self, path: Path, extra_metadata: Mapping[str, Any] | None = None) -> None:
        """Write the segmenter to one file; `extra_metadata` (JSON) is kept beside the spec."""
        metadata = {
            **(extra_metadata or {}),
            "kind": "segmenter",
            "spec": asdict(self.spec),
            "seed": self.seed,
            "is_pretrained": self.is_pretrained,
        }
        weights.save(path, self.model.state_dict(), metadata)

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Segmenter:
        """The segmenter that `save` wrote; reads nothing but this file.

        Raises:
            weights.WeightsError: if the file is damaged or holds something else.
        """
        tensors, metadata = weights.load(path)
        if metadata.get("kind") != "segmenter":
            raise weights.WeightsError(
                f"{path} holds a {metadata.get('kind', 'file of unknown kind')}, not a segmenter"
            )
        try:
            spec = SegmenterSpec(**metadata["spec"])
            segmenter = cls(
                replace(spec, encoder_weights=None), seed=int(metadata["seed"]), device=device
            )
            segmenter.model.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise weights.WeightsError(
                f"{path} does not fit the network it names ({metadata.get('spec')}): {error}"
            ) from error
        segmenter.spec = spec
        segmenter.is_pretrained = bool(metadata["is_pretrained"])
        return segmenter

    def export_onnx(self, path: Path, size: tuple[int, int] = (256, 256)) -> None:
        """Write the segmenter as an ONNX file, checked against this one.

        Its input `image` is (1, 3, H, W) float32, RGB in 0..255, H and W any multiples of the
        stride; its output `probabilities` is (1, C, H, W).

        Args:
            path: the file to write.
            size: (height, width) that the network is traced at, rounded up to the stride.

        Raises:
            RuntimeError: if the written file computes something else than the segmenter.
        """
        traced = tuple(max(2, -(-side // self.stride)) * self.stride for side in size)
        network = _Exported(self.model).to("cpu").eval()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
                temporary = Path(folder) / path.name
                _write_onnx(network, temporary, (traced[0], traced[1]), self.stride)
                _compare_onnx(network, temporary, (traced[0], traced[1]), self.stride)
                os.replace(temporary, path)
        finally:
            self.model.to(self.device)

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

    if not 1 <= spec.num_classes <= VOID:
        raise ValueError(f"num_classes is {spec.num_classes}, expected 1 to {VOID}")
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
    return _create(replace(spec, encoder_weights=None), seed), False


def _create(spec: SegmenterSpec, seed: int) -> smp.base.SegmentationModel:
    import segmentation_models_pytorch as smp

    encoder_weights: str | bool | None = spec.encoder_weights
    if encoder_weights is not None and spec.encoder.startswith("tu-"):
        encoder_weights = True  # timm names the weights in the encoder's name
    with torch.random.fork_rng(devices=[]):  # the initialisers know the global generator only
        torch.default_generator.manual_seed(seed)
        try:
            return smp.create_model(
                spec.architecture,
                encoder_name=spec.encoder,
                encoder_weights=encoder_weights,
                classes=spec.num_classes,
            )
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            if encoder_weights is not None:
                raise
            raise ValueError(
                f"{spec.architecture} with encoder '{spec.encoder}' cannot be built: {error}"
            ) from error


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


class _Exported(nn.Module):
    """The network with the normalisation before it and the softmax behind it."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: smp.base.SegmentationModel) -> None:
        super().__init__()
        self.network = model
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pixels = (image - self.mean) / self.std
        logits: torch.Tensor = self.network(pixels)
        return logits.softmax(dim=1)


def _write_onnx(network: nn.Module, path: Path, size: tuple[int, int], stride: int) -> None:
    rows = torch.export.Dim("height_in_strides", min=1, max=512)
    cols = torch.export.Dim("width_in_strides", min=1, max=512)
    torch.onnx.export(
        network,
        (torch.rand(1, 3, *size) * 255,),
        str(path),
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes={"image": {2: stride * rows, 3: stride * cols}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _compare_onnx(network: nn.Module, path: Path, size: tuple[int, int], stride: int) -> None:
    import onnxruntime  # loaded here alone: the server never needs it

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for height, width in (size, (size[0] + stride, size[1] + 2 * stride)):
        image = torch.rand((1, 3, height, width), generator=generator) * 255
        (written,) = session.run(None, {"image": image.numpy()})
        with torch.inference_mode():
            difference = float((network(image) - torch.from_numpy(written)).abs().max())
        if not difference < 1e-3:
            raise RuntimeError(
                f"the ONNX file's probabilities differ from the segmenter's by {difference:.2g} at "
                f"{height} x {width} pixels, expected less than 0.001; it was not written"
            )
