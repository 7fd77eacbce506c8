"""What segmenters have in common: images of any size, training, versions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from ralis_backend.core import weights
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import encoder_weights
from ralis_backend.core.segmenter.forward import ForwardPass
from ralis_backend.core.segmenter.protocol import SegmenterSpec
from ralis_backend.core.segmenter.tiles import Maps, look_in_tiles

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_VALUES_PER_PASS = 128_000_000
"""Probabilities of one pass, pixels x classes: where there are many classes, tiles are smaller."""


class NetworkSegmenter(ABC):
    """See `Segmenter`. A kind names itself, builds its model, and looks at padded pixels.

    Args:
        spec: the network.
        seed: of the layers that no pretrained weights exist for.
        device: as torch names it.
        max_pixels_per_pass: larger images are cut into overlapping tiles of about this size, to
            bound memory (about 1 GB per megapixel); 2048 x 1024 pixels go in one pass, tiles of
            them would overlap by much. Beyond 58 classes tiles are smaller, see
            `MAX_VALUES_PER_PASS`.

    Raises:
        ValueError: if the spec names another kind's network, has no class, or names a file of
            weights that does not fit.
    """

    kind: str
    stride: int
    offers: frozenset[str] = frozenset(("mirrored",))
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(
        self,
        spec: SegmenterSpec,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        max_pixels_per_pass: int = 2_200_000,
    ) -> None:
        self.spec, self.seed, self.device = spec, seed, torch.device(device)
        self.max_pixels_per_pass = max_pixels_per_pass
        self.model, self.is_pretrained = self._built(spec)
        # channels_last: faster training on CPUs, and what tensor cores want
        self.model.to(self.device).to(memory_format=torch.channels_last).eval()

    @abstractmethod
    def build(self, spec: SegmenterSpec) -> tuple[nn.Module, bool]:
        """The model on the CPU, drawn from torch's global generator, and `is_pretrained`.

        `ValueError` if there is no such network.
        """

    @abstractmethod
    def look(self, pixels: torch.Tensor, maps: Collection[str]) -> dict[str, torch.Tensor]:
        """One pass of the model, in evaluation mode and without gradients.

        Args:
            pixels: (1, 3, H, W) as `normalised` gives them; sides are multiples of the stride.
            maps: those wanted of `offers`, without `mirrored`: that is a pass of its own.

        Returns:
            `probabilities` (C, H, W), and what is wanted: `embeddings` (D, h, w), `bald` and
            `deep_bald` (1, h', w'), as `ForwardPass` has them; each in cells of its own stride,
            which divides the segmenter's.
        """

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

    @property
    def lacks_weights(self) -> bool:
        """See `Segmenter.lacks_weights`."""
        has_encoder = bool(self.encoder_modules())
        return has_encoder and self.spec.encoder_weights is not None and not self.is_pretrained

    def forward_pass(self, image: np.ndarray, maps: Collection[str] = ()) -> ForwardPass:
        """What there is to see in one image, (H, W, 3) uint8 RGB of any size, held as a whole.

        Args:
            image: padded to the stride; a large one is cut into tiles.
            maps: of `offers`, what is wanted besides probabilities: `mirrored` doubles the cost.

        Raises:
            ValueError: if the image is of another form, or a map is not offered.
        """
        self._check(image, maps)
        return _joined(self._looks(image, maps), image.shape[:2], self.stride)

    def parts(
        self, image: np.ndarray, maps: Collection[str] = ()
    ) -> Iterator[tuple[Region, ForwardPass]]:
        """See `Segmenter.parts`; one part where the image fits into one pass."""
        self._check(image, maps)
        is_own = type(self).forward_pass is not NetworkSegmenter.forward_pass
        if is_own or self._fits(image):
            whole = Region(0, 0, image.shape[0], image.shape[1])
            return iter([(whole, self.forward_pass(image, maps))])
        return self._looks(image, maps)

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """(C, H, W) float32 class probabilities of one image, (H, W, 3) uint8 RGB."""
        return np.ascontiguousarray(self.forward_pass(image).probabilities.cpu().numpy())

    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """(..., H, W, 3) uint8 -> (..., 3, H, W) float32 on the device, as the model wants it."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        width = images.shape[-2]  # mean and deviation of whole rows: three channels make no vector
        mean, std = (
            (torch.tensor(each, device=self.device) * 255).repeat(width)
            for each in (self.mean, self.std)
        )
        rows = (pixels.flatten(-2) - mean).div_(std)
        return rows.reshape(images.shape).movedim(-1, -3)

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

    def _check(self, image: np.ndarray, maps: Collection[str]) -> None:
        _check_image(image)
        if unknown := sorted(set(maps) - self.offers):
            raise ValueError(
                f"a segmenter of kind {self.kind} offers no {', '.join(unknown)}; expected some of "
                f"{', '.join(sorted(self.offers))}"
            )

    @property
    def _max_pixels(self) -> int:
        return min(self.max_pixels_per_pass, MAX_VALUES_PER_PASS // self.num_classes)

    def _fits(self, image: np.ndarray) -> bool:
        """Whether one pass is enough."""
        return int(image.shape[0] * image.shape[1]) <= self._max_pixels

    def _looks(
        self, image: np.ndarray, maps: Collection[str]
    ) -> Iterator[tuple[Region, ForwardPass]]:
        """The image's parts, all of it where it fits into one pass."""
        height, width = (-(-side // self.stride) * self.stride for side in image.shape[:2])

        def look(rows: slice, cols: slice) -> Maps:
            seen = self._seen(image[rows, cols], maps)
            if "mirrored" in seen:  # as wide as the others, with nothing beyond the image
                missing = seen["probabilities"].shape[2] - seen["mirrored"].shape[2]
                seen["mirrored"] = nn.functional.pad(seen["mirrored"], (0, missing))
            return seen

        self.model.eval()
        if self._fits(image):
            yield _part(image, slice(0, height), slice(0, width), self._seen(image, maps))
            return
        for rows, cols, seen in look_in_tiles(look, (height, width), self._max_pixels, self.stride):
            yield _part(image, rows, cols, seen)

    def _seen(self, image: np.ndarray, maps: Collection[str]) -> dict[str, torch.Tensor]:
        """As `look`, of the padded image, and what was seen in its mirror image, turned back."""
        with torch.inference_mode():
            pixels = self._padded(self.normalised(image)[None])
            seen = self.look(pixels, [name for name in maps if name != "mirrored"])
            if "mirrored" in maps:
                flipped = self._padded(self.normalised(image[:, ::-1])[None])
                other = self.look(flipped, ())["probabilities"]
                seen["mirrored"] = other[:, :, : image.shape[1]].flip(2)
            return seen

    def _padded(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, 3, H, W) -> the same with rows below and columns to the right, mirrored."""
        height, width = pixels.shape[-2:]
        down, right = -height % self.stride, -width % self.stride
        if not (down or right):
            return pixels
        mode = "reflect" if down < height and right < width else "replicate"
        return nn.functional.pad(pixels, (0, right, 0, down), mode=mode)

    def _built(self, spec: SegmenterSpec) -> tuple[nn.Module, bool]:
        if not 1 <= spec.num_classes <= VOID:
            raise ValueError(f"num_classes is {spec.num_classes}, expected 1 to {VOID}")
        with seeded(self.seed):
            model, is_pretrained = self.build(spec)
        wanted = spec.encoder_weights
        if wanted is not None and encoder_weights.is_file(wanted) and not is_pretrained:
            raise ValueError(
                f"a segmenter of kind {self.kind} reads no file of encoder weights ({wanted}); "
                "set none"
            )
        return model, is_pretrained

    def _like(self, spec: SegmenterSpec) -> Self:
        """Another one with this spec that knows what this one knows."""
        other = type(self)(
            spec.untrained(),
            seed=self.seed,
            device=self.device,
            max_pixels_per_pass=self.max_pixels_per_pass,
        )
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


def _joined(
    parts: Iterator[tuple[Region, ForwardPass]], size: tuple[int, ...], stride: int
) -> ForwardPass:
    """The parts of an image of (height, width) pixels as one look."""
    corner, first = next(parts)
    if (corner.height, corner.width) == size:
        return first
    padded = tuple(-(-side // stride) * stride for side in size)
    whole: dict[str, Any] = {}
    for name, values in first.maps.items():
        cells = [-(-side // first.stride_of(name)) for side in padded]
        whole[name] = values.new_empty((*values.shape[:-2], *cells))
    for region, part in chain([(corner, first)], parts):
        for name, values in part.maps.items():
            step = part.stride_of(name)
            row, col = region.row // step, region.col // step
            rows, cols = slice(row, row + values.shape[-2]), slice(col, col + values.shape[-1])
            whole[name][..., rows, cols] = values
    for name in {"probabilities", "mirrored"} & set(whole):
        whole[name] = whole[name][:, : size[0], : size[1]]
    return replace(first, **whole)


def _part(image: np.ndarray, rows: slice, cols: slice, seen: Maps) -> tuple[Region, ForwardPass]:
    """What was seen in some rows and columns, which may reach beyond the image."""
    height, width = (
        min(each.stop, side) - each.start
        for each, side in zip((rows, cols), image.shape, strict=False)
    )
    whole, embeddings = seen["probabilities"], seen.get("embeddings")
    bald, deep_bald, mirrored = (seen.get(name) for name in ("bald", "deep_bald", "mirrored"))
    return Region(rows.start, cols.start, height, width), ForwardPass(
        whole[:, :height, :width],
        embeddings=embeddings,
        embedding_stride=_stride(whole, embeddings, ForwardPass.embedding_stride),
        bald=None if bald is None else bald[0],
        bald_stride=_stride(whole, deep_bald if bald is None else bald, ForwardPass.bald_stride),
        mirrored=None if mirrored is None else mirrored[:, :height, :width],
        deep_bald=None if deep_bald is None else deep_bald[0],
    )


def _check_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"the image is {image.dtype} {image.shape}, expected uint8 (H, W, 3)")


def _stride(whole: torch.Tensor, cells: torch.Tensor | None, usual: int) -> int:
    """Pixels of the image to a cell."""
    return usual if cells is None else round(whole.shape[1] / cells.shape[1])
