"""One forward pass -> features of each of an image's regions.

Every mean over regions is two small matrix products, one along rows and one along columns, so
that it makes no difference how many regions there are or whether they overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import ForwardPass

GRID_SIDE = 8
"""Cells per side of the grid on which a region's entropy map is pooled."""


@dataclass(frozen=True)
class RegionFeatures:
    """Features of R regions, float32.

    entropy: (R,) mean over the region's pixels, nats.
    margin: (R,) mean of the best minus the second-best class probability; small is uncertain.
    class_probabilities: (R, C) mean over the region's pixels; rows sum to 1.
    embeddings: (R, D) mean encoder features, of unit length.
    class_counts: (R, C) pixels whose most probable class is C; rows sum to the region's pixels.
    entropy_grid: (R, 192) `entropy_grid` of the region's entropy map.
    bald: (R,) mean over the region of how much passes with dropout disagree, nats.
    class_entropy, class_bald: (R, C) mean of each class's probability times entropy, or BALD.
    boundary: (R,) share of pixels whose right or lower neighbour is predicted another class.
    mirror_divergence: (R,) mean symmetric Kullback-Leibler divergence between the prediction and
        that of the mirrored image, nats; NaN where nobody looked twice.
    """

    entropy: np.ndarray
    margin: np.ndarray
    class_probabilities: np.ndarray
    embeddings: np.ndarray
    class_counts: np.ndarray
    entropy_grid: np.ndarray
    bald: np.ndarray
    class_entropy: np.ndarray
    class_bald: np.ndarray
    boundary: np.ndarray
    mirror_divergence: np.ndarray

    def __len__(self) -> int:
        return len(self.entropy)

    def take(self, indices: np.ndarray) -> RegionFeatures:
        """The features of some of the regions."""
        return RegionFeatures(*(getattr(self, field.name)[indices] for field in fields(self)))


def describe(forward: ForwardPass, regions: Sequence[Region]) -> RegionFeatures:
    """The features of `regions`, all of one image, in their order.

    Raises:
        ValueError: if a region does not lie in the image.
    """
    height, width = forward.probabilities.shape[1:]
    for region in regions:
        if not region.is_inside((height, width)):
            raise ValueError(f"{region} is not inside the image of {height} x {width} pixels")
    probabilities = forward.probabilities
    num_classes = len(probabilities)
    with torch.inference_mode():
        uncertainty = uncertainty_maps(probabilities)  # (2, H, W)
        predicted = _likeliest_classes(probabilities)  # (H, W)
        counts, grids = _counts_and_grids(uncertainty[0], predicted, regions, forward)
        pixel_maps = torch.cat([uncertainty, boundary_map(predicted)[None], probabilities])
        means = _region_means(pixel_maps, regions, 1)  # (R, 3 + C)
        cells = _region_means(
            _cell_maps(forward, uncertainty[0]), regions, forward.bald_stride
        )  # (R, 1 + 2 C)
        embeddings = _region_means(forward.embeddings, regions, forward.embedding_stride)  # (R, D)
        lengths = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
        embeddings = embeddings / lengths.clamp(min=1e-12)
        divergence = torch.full((len(regions),), torch.nan)
        if forward.mirrored is not None:
            divergence_map = symmetric_divergence(probabilities, forward.mirrored)[None]
            divergence = _region_means(divergence_map, regions, 1)[:, 0]
    return RegionFeatures(
        entropy=means[:, 0].cpu().numpy(),
        margin=means[:, 1].cpu().numpy(),
        class_probabilities=means[:, 3:].cpu().numpy(),
        embeddings=embeddings.cpu().numpy(),
        class_counts=counts.cpu().numpy(),
        entropy_grid=grids.cpu().numpy(),
        bald=cells[:, 0].cpu().numpy(),
        class_entropy=cells[:, 1 : 1 + num_classes].cpu().numpy(),
        class_bald=cells[:, 1 + num_classes :].cpu().numpy(),
        boundary=means[:, 2].cpu().numpy(),
        mirror_divergence=divergence.cpu().numpy(),
    )


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


def _cell_maps(forward: ForwardPass, entropy: torch.Tensor) -> torch.Tensor:
    """(1 + 2 C, h, w) cells: BALD, then each class's probability times entropy, and times BALD."""
    stride = forward.bald_stride
    pixels = torch.cat([entropy[None], forward.probabilities])
    pooled = functional.avg_pool2d(pixels[None], stride, ceil_mode=True)[0]
    height, width = pooled.shape[1:]
    bald = torch.zeros_like(pooled[0])
    if forward.bald is not None:
        bald = forward.bald[:height, :width]
    return torch.cat([bald[None], pooled[1:] * pooled[0], pooled[1:] * bald])


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


def concat(features: Sequence[RegionFeatures]) -> RegionFeatures:
    """The regions of several images, one after another.

    Raises:
        ValueError: if there is nothing to join.
    """
    if not features:
        raise ValueError("no features to join; describe at least one image first")
    return RegionFeatures(
        **{
            field.name: np.concatenate([getattr(each, field.name) for each in features])
            for field in fields(RegionFeatures)
        }
    )


def predicted_mask(forward: ForwardPass) -> np.ndarray:
    """(H, W) uint8: each pixel's most probable class."""
    mask: np.ndarray = _likeliest_classes(forward.probabilities).cpu().numpy()
    return mask


def uncertainty_maps(probabilities: torch.Tensor) -> torch.Tensor:
    """(C, H, W) probabilities -> (2, H, W): each pixel's entropy in nats, and its margin."""
    entropy = torch.zeros_like(probabilities[0])
    best, second = torch.zeros_like(entropy), torch.zeros_like(entropy)
    for probability in probabilities:  # class by class: faster than sorting each pixel's classes
        logarithm = probability.clamp(min=1e-30).log_()  # half the time of special.entr
        entropy.addcmul_(probability, logarithm, value=-1)
        second = torch.maximum(second, torch.minimum(best, probability))
        best = torch.maximum(best, probability)
    return torch.stack([entropy, best - second])


def _likeliest_classes(probabilities: torch.Tensor) -> torch.Tensor:
    """(C, H, W) -> (H, W) uint8, the first of equals; several times faster than argmax."""
    best = probabilities[0]
    classes = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for index, probability in enumerate(probabilities[1:], start=1):
        is_better = (probability > best).view(torch.uint8)
        classes = torch.maximum(classes, is_better * index)  # a later class has a larger index
        best = torch.maximum(best, probability)
    return classes


def _counts_and_grids(
    entropy: torch.Tensor, predicted: torch.Tensor, regions: Sequence[Region], forward: ForwardPass
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, C) class counts and (R, 192) entropy grids; regions of one size go together."""
    num_classes, device = len(forward.probabilities), entropy.device
    counts = torch.zeros(len(regions), num_classes, device=device)
    grids = torch.zeros(len(regions), 3 * GRID_SIDE**2, device=device)
    for height, width in {(region.height, region.width) for region in regions}:
        index = [
            position
            for position, region in enumerate(regions)
            if (region.height, region.width) == (height, width)
        ]
        row = torch.tensor([regions[position].row for position in index], device=device)
        col = torch.tensor([regions[position].col for position in index], device=device)
        rows = (row[:, None] + torch.arange(height, device=device))[:, :, None]
        cols = (col[:, None] + torch.arange(width, device=device))[:, None, :]
        counts[index] = class_counts(predicted[rows, cols], num_classes)
        grids[index] = entropy_grid(entropy[rows, cols])
    return counts, grids


def _region_means(maps: torch.Tensor, regions: Sequence[Region], stride: int) -> torch.Tensor:
    """(M, h, w) maps, a cell for each stride x stride pixels -> (R, M) means over regions."""
    rows = [(region.row, region.height) for region in regions]
    cols = [(region.col, region.width) for region in regions]
    row_weights, row_index = _interval_weights(rows, maps.shape[1], stride, maps.device)
    col_weights, col_index = _interval_weights(cols, maps.shape[2], stride, maps.device)
    sums = (row_weights @ maps) @ col_weights.T  # (M, intervals of rows, intervals of columns)
    return sums[:, row_index, col_index].T.contiguous()


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
