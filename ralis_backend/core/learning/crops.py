"""Labelled regions -> batches of crops around them, augmented."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.regions import VOID, Region


class Unreadable(ValueError):
    """An image or the label of a region that cannot be read; the others are learned from.

    Raised by `LabelledImage.load` and by what its mask is made of. Whoever raises it for a region
    gives the mask without that region's label afterwards.

    Args:
        message: what is wrong.
        region: whose label it is; None: the image itself.
    """

    def __init__(self, message: str, region: Region | None = None) -> None:
        super().__init__(message)
        self.region = region


class NothingReadable(ValueError):
    """There are labelled regions, but none of them can be read."""


class Mask(Protocol):
    """(H, W) uint8 class indices, VOID where unlabelled; composed where it is looked at, or not.

    `numpy.asarray` gives the whole of it, two slices a part.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""

    def __getitem__(self, part: tuple[slice, slice], /) -> Any:
        """The rows and columns of a part, uint8."""

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """The whole mask."""


@dataclass(frozen=True)
class LabelledImage:
    """An image with labels in some regions.

    load: gives the image, (H, W, 3) uint8 RGB; may raise `Unreadable`.
    mask: VOID outside labels; an array, or what composes it from files when it is looked at.
    regions: that are labelled.
    class_pixels: labelled pixels of each class in each region, where they are known without
        looking; None: counted in the mask.
    weights: how often crops are drawn around each region; None: around all alike.
    """

    load: Callable[[], np.ndarray]
    mask: Mask
    regions: tuple[Region, ...]
    class_pixels: tuple[Sequence[int], ...] | None = None
    weights: tuple[float, ...] | None = None

    def pixels_by_class(self) -> list[np.ndarray]:
        """Of each region, the labelled pixels by class index, up to the last class there is."""
        if self.class_pixels is not None:
            return [np.asarray(pixels, np.int64) for pixels in self.class_pixels]
        return [
            np.bincount(self.mask[region.slices].ravel(), minlength=VOID + 1)[:VOID]
            for region in self.regions
        ]


def unlabelled(load: Callable[[], np.ndarray], size: tuple[int, ...]) -> LabelledImage:
    """An image of (height, width) pixels that nobody labelled."""
    nothing = np.broadcast_to(np.uint8(VOID), size)  # no memory
    return LabelledImage(load, nothing, (), ())


class Crops:
    """Batches of crops around labelled regions, augmented."""

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: FinetuneConfig,
        num_classes: int,
        rng: np.random.Generator,
        outside: int = VOID,
        cache: ImageCache | None = None,
    ) -> None:
        self.config = config
        self.rng = rng
        self.cutter = Cutter(config, rng, outside, cache)
        self.regions: list[tuple[LabelledImage, Region]] = []
        counts, weights = [], []
        for image in images:
            shares = image.weights or (1.0,) * len(image.regions)
            found = zip(image.regions, image.pixels_by_class(), shares, strict=True)
            for region, pixels, share in found:
                if pixels[num_classes:].any():
                    raise ValueError(
                        f"class index {int(np.flatnonzero(pixels)[-1])} in {region} of a mask, "
                        f"expected indices below {num_classes}, the segmenter's classes, or VOID"
                    )
                if pixels.any():
                    self.regions.append((image, region))
                    weights.append(share)
                    counts.append(
                        np.bincount(np.arange(len(pixels)), pixels, num_classes)[:num_classes]
                    )
        if not self.regions:
            raise ValueError(
                "no region holds a labelled pixel; label at least one region before training"
            )
        self.counts = np.array(counts, np.float64)  # (R, C)
        self.chances = self._chances(np.array(weights))

    def __len__(self) -> int:
        return len(self.regions)

    def class_weights(self) -> np.ndarray:
        """(C,) float32 weights of classes in the loss, 1 on average over labelled pixels."""
        frequencies = self.counts.sum(axis=0) / self.counts.sum()
        weights = np.maximum(frequencies, 1e-3) ** -self.config.class_weight_power
        return np.asarray(weights / (weights * frequencies).sum(), np.float32)

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, h, w, 3) uint8 crops and (B, h, w) uint8 masks."""
        crops, masks, _ = self.batch_of_regions()
        return crops, masks

    def batch_of_regions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same, and (B,) which of `regions` each crop is around."""
        drawn = self.rng.choice(len(self), size=self.config.batch_size, p=self.chances)
        crops, masks, regions = zip(*(self._readable(int(index)) for index in drawn), strict=True)
        return np.stack(crops), np.stack(masks), np.array(regions)

    def _readable(self, index: int) -> tuple[np.ndarray, np.ndarray, int]:
        """A crop around that region, or around another one where it cannot be read."""
        while True:
            image, region = self.regions[index]
            try:
                return *self.cutter.cut(image, region), index
            except Unreadable as reason:
                self._leave_out(image, reason)
                if not self.chances[index]:
                    index = int(self.rng.choice(len(self), p=self.chances))

    def _leave_out(self, image: LabelledImage, reason: Unreadable) -> None:
        """Draw what cannot be read no more; `NothingReadable` if nothing else is left."""
        lost = [
            index
            for index, (each, region) in enumerate(self.regions)
            if each is image and reason.region in (None, region) and self.chances[index]
        ]
        if reason.region is not None:  # one of the labels that it may have
            lost = sorted(lost, key=lambda index: float(self.chances[index]))[:1]
        self.chances[lost] = 0
        if not self.chances.any():
            raise NothingReadable(
                f"none of the {len(self)} labelled regions can be read, the last one because: "
                f"{reason}"
            )
        self.chances /= self.chances.sum()

    def _chances(self, weights: np.ndarray) -> np.ndarray:
        """(R,) chance of each region: partly equal, partly by the rarity of its classes."""
        frequencies = self.counts.sum(axis=0) / self.counts.sum()
        shares = self.counts / self.counts.sum(axis=1, keepdims=True)
        rarity = (shares / (frequencies + 0.005)).sum(axis=1)
        mixed: np.ndarray = (1 - self.config.rarity_share) / len(self.regions) + (
            self.config.rarity_share * rarity / rarity.sum()
        )
        mixed = mixed * weights
        return np.asarray(mixed / mixed.sum())


class Cutter:
    """Cuts crops around regions: at a scale drawn at random, mirrored or not, colours changed.

    Args:
        config: size, scales and colours.
        rng: of the draws.
        outside: what masks hold where a crop reaches beyond its image.
        cache: of decoded images, where others look at the same ones; None: one of its own.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        rng: np.random.Generator,
        outside: int = VOID,
        cache: ImageCache | None = None,
    ) -> None:
        self.config = config
        self.rng = rng
        self.outside = outside
        self.cache = ImageCache(config.cache_bytes) if cache is None else cache

    def cut(self, image: LabelledImage, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """(h, w, 3) uint8 and (h, w) uint8 around a region, or within it if it is larger.

        Raises:
            Unreadable: if the image or its mask cannot be read, or they do not fit.
        """
        pixels = self.cache.get(image)
        if pixels.shape[:2] != image.mask.shape:
            raise Unreadable(
                f"the image has {pixels.shape[:2]} pixels, its mask {image.mask.shape} (height, "
                "width); the image file changed after it was labelled"
            )
        height, width = self.config.crop_size
        scale = self.rng.uniform(*self.config.scale_range)
        rows = self._window(region.row, region.height, round(height / scale), len(pixels))
        cols = self._window(region.col, region.width, round(width / scale), pixels.shape[1])
        crop = cv2.resize(_cut(pixels, rows, cols, None), (width, height))
        mask = cv2.resize(
            _cut(image.mask, rows, cols, self.outside),
            (width, height),
            interpolation=cv2.INTER_NEAREST,
        )
        if self.rng.random() < 0.5:
            crop, mask = crop[:, ::-1], mask[:, ::-1]
        return self._jittered(crop), np.ascontiguousarray(mask)

    def _window(self, start: int, length: int, size: int, limit: int) -> tuple[int, int]:
        """(start, stop) of `size` around or within a region, inside the image where it fits."""
        ends = sorted((start, start + length - size))
        drawn = int(self.rng.integers(ends[0], ends[1] + 1))
        drawn = min(max(drawn, 0), limit - size) if size <= limit else (limit - size) // 2
        return drawn, drawn + size

    def _jittered(self, crop: np.ndarray) -> np.ndarray:
        config = self.config
        if not (config.brightness or config.contrast or config.saturation):
            return np.ascontiguousarray(crop)
        brightness, contrast, saturation = (
            1 + strength * self.rng.uniform(-1, 1)
            for strength in (config.brightness, config.contrast, config.saturation)
        )
        values = crop.astype(np.float32) * np.float32(brightness)
        grey = values.mean(axis=2, keepdims=True)
        values = grey + (values - grey) * np.float32(saturation)
        mean = grey.mean()
        values = mean + (values - mean) * np.float32(contrast)
        return np.asarray(np.clip(values, 0, 255), np.uint8)


class ImageCache:
    """Decoded images, the least recently used dropped beyond a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        # With the image itself, whose number another one might get.
        self._images: OrderedDict[int, tuple[LabelledImage, np.ndarray]] = OrderedDict()

    def get(self, image: LabelledImage) -> np.ndarray:
        """(H, W, 3) uint8; what `image.load` raises."""
        key = id(image)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key][1]
        pixels = image.load()
        self._images[key] = image, pixels
        self.num_bytes += pixels.nbytes
        while self.num_bytes > self.max_bytes and len(self._images) > 1:
            _, (_, dropped) = self._images.popitem(last=False)
            self.num_bytes -= dropped.nbytes
        return pixels


def _cut(
    values: np.ndarray | Mask, rows: tuple[int, int], cols: tuple[int, int], fill: int | None
) -> np.ndarray:
    """A window that may reach beyond the array: filled with `fill`, or with the nearest pixel."""
    height, width = values.shape[:2]
    before = (max(0, -rows[0]), max(0, -cols[0]))
    after = (max(0, rows[1] - height), max(0, cols[1] - width))
    window: np.ndarray = values[max(0, rows[0]) : rows[1], max(0, cols[0]) : cols[1]]
    if not any(before + after):
        return window
    sides = ((before[0], after[0]), (before[1], after[1]), (0, 0))[: window.ndim]
    if fill is None:
        return np.pad(window, sides, mode="edge")
    return np.pad(window, sides, constant_values=fill)
