"""One look at an image -> features of each of its regions.

A feature is computed where a strategy needs it, and not otherwise. Every mean over regions is two
small matrix products, one along rows and one along columns, so that it makes no difference how many
regions there are or whether they overlap. Of a large image that is seen in parts, each part adds
to the means of the regions that it shares; only small maps are held as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.blocks import row_blocks
from ralis_backend.core.features.table import FEATURES, GRID_SIDE, RegionFeatures, maps_for
from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import ForwardPass, Segmenter

_PIXELS_AT_ONCE = 4_000_000


def describe(
    forward: ForwardPass, regions: Sequence[Region], features: Collection[str] | None = None
) -> RegionFeatures:
    """Features of `regions`, all of one image, in their order.

    Args:
        forward: one look at the image.
        regions: inside the image.
        features: names of those wanted, of `FEATURES`; None: all that the pass allows.

    Raises:
        ValueError: if a region does not lie in the image, a name is unknown, or the pass was not
            asked for what a feature takes.
    """
    height, width = forward.probabilities.shape[1:]
    whole = Region(0, 0, height, width)
    described = _described([(whole, forward)], (height, width), regions, features)
    with torch.inference_mode():
        return described.features()


def describe_parts(
    parts: Iterable[tuple[Region, ForwardPass]],
    size: tuple[int, int],
    regions: Sequence[Region],
    features: Collection[str] | None = None,
) -> tuple[RegionFeatures, np.ndarray]:
    """Features of `regions`, all of one image that is seen part by part, and its predicted mask.

    Args:
        parts: as `Segmenter.parts` gives them.
        size: (height, width) of the image in pixels.
        regions: as in `describe`.
        features: likewise.

    Returns:
        The features, and (H, W) uint8: each pixel's most probable class.

    Raises:
        ValueError: as `describe`.
    """
    described = _described(parts, size, regions, features)
    with torch.inference_mode():
        return described.features(), described.predicted.cpu().numpy()


def _described(
    parts: Iterable[tuple[Region, ForwardPass]],
    size: tuple[int, int],
    regions: Sequence[Region],
    features: Collection[str] | None,
) -> _Description:
    for region in regions:
        if not region.is_inside(size):
            raise ValueError(f"{region} is not inside the image of {size[0]} x {size[1]} pixels")
    described = _Description(size, regions)
    for part, forward in parts:
        wanted = _wanted(forward, features)
        with torch.inference_mode():
            described.add(part, forward, wanted)
    return described


class _Description:
    """What is known of an image's regions so far.

    sums: (R, M) by feature, what the parts so far add to the means over regions; of peaks the
        largest value so far.
    entropy: (H, W) nats, where something looks at it.
    """

    entropy: torch.Tensor
    _predicted: torch.Tensor
    _whole: ForwardPass | None = None

    def __init__(self, size: tuple[int, int], regions: Sequence[Region]) -> None:
        self.size, self.regions = size, regions
        self.corners = np.array([_corners(region) for region in regions]).reshape(-1, 4)
        self.sums: dict[str, torch.Tensor] = {}
        self.num_classes = 0
        self.wanted: Sequence[str] = ()

    def add(self, part: Region, forward: ForwardPass, wanted: Sequence[str]) -> None:
        """Another part of the image."""
        self.num_classes, self.wanted = len(forward.probabilities), wanted
        is_whole = (part.height, part.width) == self.size
        touched = _touched(self.corners, part)
        seen = _SeenPart(forward, part, [self.regions[index] for index in touched])
        if is_whole:
            self._whole = forward
        else:
            self._keep("_predicted", part, forward.predicted, is_whole)
        if "entropy_grid" in wanted:
            self._keep("entropy", part, seen.entropy, is_whole)
        for name in wanted:
            if name in _MEANS:
                self._add_means(name, touched, _MEANS[name](seen), is_whole)
            if name in _PEAKS:
                self._raise_peaks(name, touched, _PEAKS[name](seen))

    @property
    def predicted(self) -> torch.Tensor:
        """(H, W) uint8 class indices; computed when first asked for."""
        return self._predicted if self._whole is None else self._whole.predicted

    def features(self) -> RegionFeatures:
        """Of all regions, once every part was added."""
        values = {name: _of_whole(self, name).float().cpu().numpy() for name in self.wanted}
        return RegionFeatures(len(self.regions), values)

    def blocks(self) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """Regions of one size, as many as fit: positions, and rows and columns of their pixels."""
        device = self.predicted.device
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, region in enumerate(self.regions):
            by_size.setdefault((region.height, region.width), []).append(index)
        for (height, width), every in by_size.items():
            at_once = max(1, _PIXELS_AT_ONCE // (height * width))
            for start in range(0, len(every), at_once):
                some = every[start : start + at_once]
                row = torch.tensor([self.regions[index].row for index in some], device=device)
                col = torch.tensor([self.regions[index].col for index in some], device=device)
                rows = (row[:, None] + torch.arange(height, device=device))[:, :, None]
                cols = (col[:, None] + torch.arange(width, device=device))[:, None, :]
                yield some, rows, cols

    def _keep(self, name: str, part: Region, values: torch.Tensor, is_whole: bool) -> None:
        if is_whole:
            setattr(self, name, values)
            return
        if not hasattr(self, name):
            setattr(self, name, values.new_zeros(self.size))
        getattr(self, name)[part.slices] = values

    def _add_means(
        self, name: str, touched: list[int], means: torch.Tensor, is_whole: bool
    ) -> None:
        if is_whole:
            self.sums[name] = means
            return
        if name not in self.sums:
            self.sums[name] = means.new_zeros((len(self.regions), means.shape[1]))
        self.sums[name][touched] += means

    def _raise_peaks(self, name: str, touched: list[int], peaks: torch.Tensor) -> None:
        if name not in self.sums:
            self.sums[name] = peaks.new_zeros((len(self.regions), peaks.shape[1]))
        self.sums[name][touched] = torch.maximum(self.sums[name][touched], peaks)


def _wanted(forward: ForwardPass, features: Collection[str] | None) -> list[str]:
    offered = forward.offered
    if features is None:
        return [name for name in FEATURES if maps_for((name,)) <= offered]
    if unknown := sorted(set(features) - set(FEATURES)):
        raise ValueError(f"unknown features {unknown}; expected some of {', '.join(FEATURES)}")
    if missing := sorted(maps_for(features) - offered):
        raise ValueError(
            f"the forward pass holds no {', '.join(missing)}; ask for maps_for(features) when "
            "looking at the image"
        )
    return list(features)


def _corners(region: Region) -> tuple[int, int, int, int]:
    return region.row, region.col, region.row + region.height, region.col + region.width


def _touched(corners: np.ndarray, part: Region) -> list[int]:
    """Which regions, (R, 4) top, left, bottom and right, share pixels with a part."""
    top, left, bottom, right = _corners(part)
    is_beside = (corners[:, 0] >= bottom) | (corners[:, 2] <= top)
    is_beside |= (corners[:, 1] >= right) | (corners[:, 3] <= left)
    touched: list[int] = np.flatnonzero(~is_beside).tolist()
    return touched


class _SeenPart:
    """One part of an image and the regions in it; what several features share is computed once."""

    def __init__(self, forward: ForwardPass, part: Region, regions: Sequence[Region]) -> None:
        self.forward = forward
        self.part = part
        self.regions = regions
        self._means: dict[tuple[int, int, int], _RegionMeans] = {}

    @cached_property
    def entropy(self) -> torch.Tensor:
        """(h, w) nats."""
        return entropy_map(self.forward.probabilities)

    @cached_property
    def bald(self) -> torch.Tensor:
        """(h', w') cells of the part's pixels."""
        return self._of_pixels(self.forward.bald, "bald")

    @cached_property
    def deep_bald(self) -> torch.Tensor:
        """(h', w') cells of the part's pixels."""
        return self._of_pixels(self.forward.deep_bald, "deep_bald")

    @cached_property
    def pooled(self) -> torch.Tensor:
        """(C, h', w') probabilities in the cells of the BALD map."""
        return self.in_cells(self.forward.probabilities)

    def in_cells(self, maps: torch.Tensor) -> torch.Tensor:
        """(M, h, w) -> (M, h', w'): means over the cells of the BALD map."""
        stride = self.forward.bald_stride
        return functional.avg_pool2d(maps[None], stride, ceil_mode=True)[0]

    def means(self, maps: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """(M, h, w) maps of the part -> (R, M), its share of the means over regions.

        A cell is stride x stride pixels.
        """
        key = (maps.shape[1], maps.shape[2], stride)
        if key not in self._means:
            corner = (self.part.row // stride, self.part.col // stride)
            self._means[key] = _RegionMeans(
                self.regions, corner, (key[0], key[1]), stride, maps.device
            )
        return self._means[key].of(maps)

    def peaks(self, maps: torch.Tensor) -> torch.Tensor:
        """(M, h', w') cells of the BALD map -> (R, M) largest values that regions touch."""
        stride, height, width = self.forward.bald_stride, *maps.shape[1:]
        peaks = maps.new_zeros((len(self.regions), len(maps)))
        for index, region in enumerate(self.regions):
            top, left = region.row - self.part.row, region.col - self.part.col
            rows = slice(max(0, top // stride), min(height, -(-(top + region.height) // stride)))
            cols = slice(max(0, left // stride), min(width, -(-(left + region.width) // stride)))
            peaks[index] = maps[:, rows, cols].amax(dim=(1, 2))
        return peaks

    def _of_pixels(self, cells: torch.Tensor | None, name: str) -> torch.Tensor:
        if cells is None:
            raise ValueError(f"the forward pass holds no {name}")
        height, width = (
            -(-side // self.forward.bald_stride) for side in self.forward.probabilities.shape[1:]
        )
        return cells[:height, :width]


def _entropy(seen: _SeenPart) -> torch.Tensor:
    return seen.means(seen.entropy[None])


def _margin(seen: _SeenPart) -> torch.Tensor:
    return seen.means(margin_map(seen.forward.probabilities)[None])


def _class_probabilities(seen: _SeenPart) -> torch.Tensor:
    return seen.means(seen.forward.probabilities)


def _embeddings(seen: _SeenPart) -> torch.Tensor:
    if seen.forward.embeddings is None:
        raise ValueError("the forward pass holds no embeddings")
    return seen.means(seen.forward.embeddings, seen.forward.embedding_stride)


def _bald(seen: _SeenPart) -> torch.Tensor:
    return seen.means(seen.bald[None], seen.forward.bald_stride)


def _class_entropy(seen: _SeenPart) -> torch.Tensor:
    entropy = seen.in_cells(seen.entropy[None])
    return seen.means(seen.pooled * entropy, seen.forward.bald_stride)


def _class_bald(seen: _SeenPart) -> torch.Tensor:
    height, width = seen.pooled.shape[1:]
    return seen.means(seen.pooled * seen.bald[:height, :width], seen.forward.bald_stride)


def _deep_bald(seen: _SeenPart) -> torch.Tensor:
    return seen.means(seen.deep_bald[None], seen.forward.bald_stride)


def _class_deep_bald(seen: _SeenPart) -> torch.Tensor:
    height, width = seen.pooled.shape[1:]
    return seen.means(seen.pooled * seen.deep_bald[:height, :width], seen.forward.bald_stride)


def _mirror_divergence(seen: _SeenPart) -> torch.Tensor:
    if seen.forward.mirrored is None:
        raise ValueError("the forward pass holds no mirrored")
    divergence = symmetric_divergence(seen.forward.probabilities, seen.forward.mirrored)
    return seen.means(divergence[None])


_MEANS: dict[str, Callable[[_SeenPart], torch.Tensor]] = {
    "entropy": _entropy,
    "margin": _margin,
    "class_probabilities": _class_probabilities,
    "embeddings": _embeddings,
    "bald": _bald,
    "class_entropy": _class_entropy,
    "class_bald": _class_bald,
    "deep_bald": _deep_bald,
    "class_deep_bald": _class_deep_bald,
    "mirror_divergence": _mirror_divergence,
}
"""Means over regions, (R, M), to which each part of the image adds its share."""


_PEAKS: dict[str, Callable[[_SeenPart], torch.Tensor]] = {
    "bald_peak": lambda seen: seen.peaks(seen.bald[None]),
    "class_peaks": lambda seen: seen.peaks(seen.pooled),
    "deep_bald_peak": lambda seen: seen.peaks(seen.deep_bald[None]),
}
"""Largest values in regions, (R, M), which each part of the image may raise."""


def _of_whole(image: _Description, name: str) -> torch.Tensor:
    """A feature from what was gathered of the whole image."""
    if name in _OF_WHOLE:
        return _OF_WHOLE[name](image)
    means = image.sums[name]
    if name == "embeddings":
        lengths = torch.linalg.vector_norm(means, dim=1, keepdim=True)
        return torch.div(means, lengths.clamp(min=1e-12))
    return means if name.startswith("class") else means[:, 0]


def _class_counts(image: _Description) -> torch.Tensor:
    counts = torch.zeros(len(image.regions), image.num_classes, device=image.predicted.device)
    for index, rows, cols in image.blocks():
        counts[index] = class_counts(image.predicted[rows, cols], image.num_classes)
    return counts


def _entropy_grid(image: _Description) -> torch.Tensor:
    grids = torch.zeros(len(image.regions), 3 * GRID_SIDE**2, device=image.entropy.device)
    for index, rows, cols in image.blocks():
        grids[index] = entropy_grid(image.entropy[rows, cols])
    return grids


def _boundary(image: _Description) -> torch.Tensor:
    height, width = image.size
    shares = torch.zeros(len(image.regions), 1, device=image.predicted.device)
    rows_at_once = max(1, _PIXELS_AT_ONCE // width)
    for row in range(0, height, rows_at_once):
        block = Region(row, 0, min(rows_at_once, height - row), width)
        touched = _touched(image.corners, block)
        with_next_row = boundary_map(image.predicted[row : row + rows_at_once + 1])
        regions = [image.regions[index] for index in touched]
        means = _RegionMeans(regions, (row, 0), (block.height, width), 1, shares.device)
        shares[touched] += means.of(with_next_row[None, : block.height])
    return shares[:, 0]


_OF_WHOLE: dict[str, Callable[[_Description], torch.Tensor]] = {
    "class_counts": _class_counts,
    "entropy_grid": _entropy_grid,
    "boundary": _boundary,
}


def boundary_map(predicted: torch.Tensor) -> torch.Tensor:
    """(..., H, W) classes -> the same shape, float32: 1 where the next pixel has another class."""
    is_boundary = torch.zeros(predicted.shape, device=predicted.device)
    is_boundary[..., :, :-1] = (predicted[..., :, 1:] != predicted[..., :, :-1]).float()
    below = (predicted[..., 1:, :] != predicted[..., :-1, :]).float()
    is_boundary[..., :-1, :] = torch.maximum(is_boundary[..., :-1, :], below)
    return is_boundary


def symmetric_divergence(probabilities: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(C, ...) and (C, ...) -> (...): KL(p, q) + KL(q, p) over the first axis, nats."""
    log_ratio = probabilities.clamp(min=1e-12).log() - others.clamp(min=1e-12).log()
    return ((probabilities - others) * log_ratio).sum(dim=0)


def class_counts(predicted: torch.Tensor, num_classes: int) -> torch.Tensor:
    """(R, h, w) class indices -> (R, C) float32, how many pixels of each class a region has."""
    num_regions = len(predicted)
    offsets = num_classes * torch.arange(num_regions, device=predicted.device)
    flat = (predicted.flatten(1) + offsets[:, None]).reshape(-1)
    counts = torch.bincount(flat, minlength=num_regions * num_classes)
    return counts.reshape(num_regions, num_classes).float()


def entropy_grid(entropy: torch.Tensor) -> torch.Tensor:
    """(R, h, w) entropy maps -> (R, 192): min, mean, max on an 8 x 8 grid, each row by row.

    A cell is floor(h / 8) x floor(w / 8) pixels, so the last rows and columns may be left out;
    a side below 8 pixels is stretched to 8 first.

    Source: "Reinforced Active Learning for Image Segmentation", arXiv:2002.06583; the cell's
    size as in the authors' code.
    """
    num_regions, height, width = entropy.shape
    if min(height, width) < GRID_SIDE:
        size = (max(height, GRID_SIDE), max(width, GRID_SIDE))
        entropy = functional.interpolate(entropy[:, None], size)[:, 0]
    rows, cols = entropy.shape[1] // GRID_SIDE, entropy.shape[2] // GRID_SIDE
    whole = entropy[:, : GRID_SIDE * rows, : GRID_SIDE * cols]
    cells = whole.reshape(num_regions, GRID_SIDE, rows, GRID_SIDE, cols)
    pooled = (cells.amin(dim=(2, 4)), cells.mean(dim=(2, 4)), cells.amax(dim=(2, 4)))
    return torch.cat([each.reshape(num_regions, GRID_SIDE**2) for each in pooled], dim=1)


def predicted_mask(forward: ForwardPass) -> np.ndarray:
    """(H, W) uint8: each pixel's most probable class."""
    mask: np.ndarray = forward.predicted.cpu().numpy()
    return mask


def predicted_classes(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """(H, W) uint8: the most probable class of each pixel of an image, (H, W, 3) uint8 RGB."""
    return describe_parts(segmenter.parts(image), (image.shape[0], image.shape[1]), [], ())[1]


def entropy_map(probabilities: torch.Tensor) -> torch.Tensor:
    """(C, rows, ...) probabilities -> (rows, ...) entropy of each pixel in nats."""
    return torch.cat(
        [
            # half the time of special.entr
            block.clamp(min=1e-30).log_().mul_(block).sum(dim=0).neg_()
            for block in row_blocks(probabilities)
        ]
    )


def margin_map(probabilities: torch.Tensor) -> torch.Tensor:
    """(C, rows, ...) probabilities -> (rows, ...) best minus second-best class's, in [0, 1]."""
    return torch.cat([_margins(block) for block in row_blocks(probabilities)])


def _margins(probabilities: torch.Tensor) -> torch.Tensor:
    best = torch.zeros_like(probabilities[0])
    second = torch.zeros_like(best)
    for probability in probabilities:  # faster than sorting each pixel's classes
        second = torch.maximum(second, torch.minimum(best, probability))
        best = torch.maximum(best, probability)
    return best - second


class _RegionMeans:
    """Means over regions of maps of one size, as two matrix products.

    Args:
        regions: in pixels of the image.
        corner: row and column of the maps' first cell in the image's cells.
        size: (height, width) of the maps in cells.
        stride: pixels to a cell's side.
        device: of the maps.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        corner: tuple[int, int],
        size: tuple[int, int],
        stride: int,
        device: torch.device,
    ) -> None:
        rows = [(region.row, region.height) for region in regions]
        cols = [(region.col, region.width) for region in regions]
        tall, wide = (
            np.arange(first, first + num) for first, num in zip(corner, size, strict=True)
        )
        self._rows, self._row_index = _interval_weights(rows, tall, stride, device)
        self._cols, self._col_index = _interval_weights(cols, wide, stride, device)

    def of(self, maps: torch.Tensor) -> torch.Tensor:
        """(M, h, w) -> (R, M)."""
        sums = (self._rows @ maps) @ self._cols.T  # (M, intervals of rows, intervals of columns)
        return sums[:, self._row_index, self._col_index].T.contiguous()


def _interval_weights(
    intervals: Sequence[tuple[int, int]], cells: np.ndarray, stride: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which share of each distinct (start, length) lies in which cell, and each one's index."""
    distinct, index = np.unique(
        np.array(intervals, np.int64).reshape(-1, 2), axis=0, return_inverse=True
    )
    starts = torch.from_numpy(distinct[:, :1]).to(device, torch.float32)
    lengths = torch.from_numpy(distinct[:, 1:]).to(device, torch.float32)
    begins = torch.from_numpy(cells * stride).to(device, torch.float32)[None]
    overlap = torch.minimum(starts + lengths, begins + stride) - torch.maximum(starts, begins)
    return overlap.clamp(min=0) / lengths, torch.from_numpy(index.reshape(-1)).to(device)
