"""One forward pass -> features of each of an image's regions.

A feature is computed where a strategy needs it, and not otherwise. Every mean over regions is two
small matrix products, one along rows and one along columns, so that it makes no difference how many
regions there are or whether they overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.blocks import row_blocks
from ralis_backend.core.features.table import FEATURES, RegionFeatures
from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import ForwardPass

GRID_SIDE = 8
"""Cells per side of the grid on which a region's entropy map is pooled."""


def maps_for(features: Collection[str]) -> frozenset[str]:
    """What a forward pass must offer besides probabilities, for these features."""
    return frozenset(_MAPS[name] for name in features if name in _MAPS)


_MAPS = {
    "bald": "bald",
    "class_bald": "bald",
    "embeddings": "embeddings",
    "mirror_divergence": "mirrored",
}


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
    for region in regions:
        if not region.is_inside((height, width)):
            raise ValueError(f"{region} is not inside the image of {height} x {width} pixels")
    wanted = _wanted(forward, features)
    with torch.inference_mode():
        image = _DescribedRegions(forward, regions)
        values = {name: _COMPUTE[name](image).float().cpu().numpy() for name in wanted}
    return RegionFeatures(len(regions), values)


def _wanted(forward: ForwardPass, features: Collection[str] | None) -> list[str]:
    offered = forward.offered
    if features is None:
        return [name for name in FEATURES if _MAPS.get(name) in (None, *offered)]
    if unknown := sorted(set(features) - set(FEATURES)):
        raise ValueError(f"unknown features {unknown}; expected some of {', '.join(FEATURES)}")
    if missing := sorted(maps_for(features) - offered):
        raise ValueError(
            f"the forward pass holds no {', '.join(missing)}; ask for maps_for(features) when "
            "looking at the image"
        )
    return list(features)


class _DescribedRegions:
    """The regions of one image; what several features share is computed once."""

    def __init__(self, forward: ForwardPass, regions: Sequence[Region]) -> None:
        self.forward = forward
        self.regions = regions
        self._means: dict[tuple[int, int, int], _RegionMeans] = {}

    @cached_property
    def entropy(self) -> torch.Tensor:
        """(H, W) nats."""
        return entropy_map(self.forward.probabilities)

    @cached_property
    def of_size(self) -> list[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """The regions of each size: their positions, and the rows and columns of their pixels."""
        device, groups = self.device, []
        for size in dict.fromkeys((region.height, region.width) for region in self.regions):
            index = [i for i, it in enumerate(self.regions) if (it.height, it.width) == size]
            row = torch.tensor([self.regions[position].row for position in index], device=device)
            col = torch.tensor([self.regions[position].col for position in index], device=device)
            rows = (row[:, None] + torch.arange(size[0], device=device))[:, :, None]
            cols = (col[:, None] + torch.arange(size[1], device=device))[:, None, :]
            groups.append((index, rows, cols))
        return groups

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.forward.probabilities.device

    @cached_property
    def bald(self) -> torch.Tensor:
        """(h, w) cells of the probabilities' image."""
        if self.forward.bald is None:
            raise ValueError("the forward pass holds no bald")
        return self.forward.bald

    @cached_property
    def pooled(self) -> torch.Tensor:
        """(C, h, w) probabilities in the cells of the BALD map."""
        return self.in_cells(self.forward.probabilities)

    def in_cells(self, maps: torch.Tensor) -> torch.Tensor:
        """(M, H, W) -> (M, h, w): means over the cells of the BALD map."""
        stride = self.forward.bald_stride
        return functional.avg_pool2d(maps[None], stride, ceil_mode=True)[0]

    def means(self, maps: torch.Tensor, stride: int) -> torch.Tensor:
        """(M, h, w) maps, a cell for each stride x stride pixels -> (R, M) means over regions."""
        key = (maps.shape[1], maps.shape[2], stride)
        if key not in self._means:
            self._means[key] = _RegionMeans(self.regions, (key[0], key[1]), stride, maps.device)
        return self._means[key].of(maps)


def _entropy(image: _DescribedRegions) -> torch.Tensor:
    return image.means(image.entropy[None], 1)[:, 0]


def _margin(image: _DescribedRegions) -> torch.Tensor:
    return image.means(margin_map(image.forward.probabilities)[None], 1)[:, 0]


def _class_probabilities(image: _DescribedRegions) -> torch.Tensor:
    return image.means(image.forward.probabilities, 1)


def _embeddings(image: _DescribedRegions) -> torch.Tensor:
    if image.forward.embeddings is None:
        raise ValueError("the forward pass holds no embeddings")
    means: torch.Tensor = image.means(
        image.forward.embeddings, image.forward.embedding_stride
    )  # (R, D)
    lengths = torch.linalg.vector_norm(means, dim=1, keepdim=True)
    return torch.div(means, lengths.clamp(min=1e-12))


def _class_counts(image: _DescribedRegions) -> torch.Tensor:
    predicted, num_classes = image.forward.predicted, len(image.forward.probabilities)
    counts = torch.zeros(len(image.regions), num_classes, device=predicted.device)
    for index, rows, cols in image.of_size:
        counts[index] = class_counts(predicted[rows, cols], num_classes)
    return counts


def _entropy_grid(image: _DescribedRegions) -> torch.Tensor:
    grids = torch.zeros(len(image.regions), 3 * GRID_SIDE**2, device=image.entropy.device)
    for index, rows, cols in image.of_size:
        grids[index] = entropy_grid(image.entropy[rows, cols])
    return grids


def _bald(image: _DescribedRegions) -> torch.Tensor:
    height, width = (
        -(-side // image.forward.bald_stride) for side in image.forward.probabilities.shape[1:]
    )
    return image.means(image.bald[None, :height, :width], image.forward.bald_stride)[:, 0]


def _class_entropy(image: _DescribedRegions) -> torch.Tensor:
    entropy = image.in_cells(image.entropy[None])
    return image.means(image.pooled * entropy, image.forward.bald_stride)


def _class_bald(image: _DescribedRegions) -> torch.Tensor:
    height, width = image.pooled.shape[1:]
    return image.means(image.pooled * image.bald[:height, :width], image.forward.bald_stride)


def _boundary(image: _DescribedRegions) -> torch.Tensor:
    return image.means(boundary_map(image.forward.predicted)[None], 1)[:, 0]


def _mirror_divergence(image: _DescribedRegions) -> torch.Tensor:
    if image.forward.mirrored is None:
        raise ValueError("the forward pass holds no mirrored")
    divergence = symmetric_divergence(image.forward.probabilities, image.forward.mirrored)
    return image.means(divergence[None], 1)[:, 0]


_COMPUTE: dict[str, Callable[[_DescribedRegions], torch.Tensor]] = {
    "entropy": _entropy,
    "margin": _margin,
    "class_probabilities": _class_probabilities,
    "embeddings": _embeddings,
    "class_counts": _class_counts,
    "entropy_grid": _entropy_grid,
    "bald": _bald,
    "class_entropy": _class_entropy,
    "class_bald": _class_bald,
    "boundary": _boundary,
    "mirror_divergence": _mirror_divergence,
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
    """Means over regions of maps of one size, as two matrix products."""

    def __init__(
        self, regions: Sequence[Region], size: tuple[int, int], stride: int, device: torch.device
    ) -> None:
        rows = [(region.row, region.height) for region in regions]
        cols = [(region.col, region.width) for region in regions]
        self._rows, self._row_index = _interval_weights(rows, size[0], stride, device)
        self._cols, self._col_index = _interval_weights(cols, size[1], stride, device)

    def of(self, maps: torch.Tensor) -> torch.Tensor:
        """(M, h, w) -> (R, M)."""
        sums = (self._rows @ maps) @ self._cols.T  # (M, intervals of rows, intervals of columns)
        return sums[:, self._row_index, self._col_index].T.contiguous()


def _interval_weights(
    intervals: Sequence[tuple[int, int]], num_cells: int, stride: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which share of each distinct (start, length) lies in which cell, and each one's index."""
    distinct, index = np.unique(
        np.array(intervals, np.int64).reshape(-1, 2), axis=0, return_inverse=True
    )
    starts = torch.from_numpy(distinct[:, :1]).to(device, torch.float32)
    lengths = torch.from_numpy(distinct[:, 1:]).to(device, torch.float32)
    cells = torch.arange(num_cells, device=device, dtype=torch.float32)[None] * stride
    overlap = torch.minimum(starts + lengths, cells + stride) - torch.maximum(starts, cells)
    return overlap.clamp(min=0) / lengths, torch.from_numpy(index.reshape(-1)).to(device)
