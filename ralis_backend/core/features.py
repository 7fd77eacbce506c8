"""One forward pass -> features of each of an image's regions.

Every mean over regions is two small matrix products, one along rows and one along columns, so
that it makes no difference how many regions there are or whether they overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import ForwardPass


@dataclass(frozen=True)
class RegionFeatures:
    """Features of R regions, float32.

    entropy: (R,) mean over the region's pixels, nats.
    margin: (R,) mean of the best minus the second-best class probability; small is uncertain.
    class_probabilities: (R, C) mean over the region's pixels; rows sum to 1.
    embeddings: (R, D) mean encoder features, of unit length.
    """

    entropy: np.ndarray
    margin: np.ndarray
    class_probabilities: np.ndarray
    embeddings: np.ndarray

    def __len__(self) -> int:
        return len(self.entropy)

    def take(self, indices: np.ndarray) -> RegionFeatures:
        """The features of some of the regions."""
        return RegionFeatures(
            self.entropy[indices],
            self.margin[indices],
            self.class_probabilities[indices],
            self.embeddings[indices],
        )


def describe(forward: ForwardPass, regions: Sequence[Region]) -> RegionFeatures:
    """The features of `regions`, all of one image, in their order.

    Raises:
        ValueError: if a region does not lie in the image.
    """
    height, width = forward.probabilities.shape[1:]
    for region in regions:
        if not region.is_inside((height, width)):
            raise ValueError(f"{region} is not inside the image of {height} x {width} pixels")
    with torch.inference_mode():
        pixel_maps = torch.cat([uncertainty_maps(forward.probabilities), forward.probabilities])
        means = _region_means(pixel_maps, regions, 1)  # (R, 2 + C)
        embeddings = _region_means(forward.embeddings, regions, forward.embedding_stride)  # (R, D)
        lengths = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
        embeddings = embeddings / lengths.clamp(min=1e-12)
    return RegionFeatures(
        entropy=means[:, 0].cpu().numpy(),
        margin=means[:, 1].cpu().numpy(),
        class_probabilities=means[:, 2:].cpu().numpy(),
        embeddings=embeddings.cpu().numpy(),
    )


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
    mask: np.ndarray = forward.probabilities.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return mask


def uncertainty_maps(probabilities: torch.Tensor) -> torch.Tensor:
    """(C, H, W) probabilities -> (2, H, W): each pixel's entropy in nats, and its margin."""
    entropy = torch.zeros_like(probabilities[0])
    best, second = torch.zeros_like(entropy), torch.zeros_like(entropy)
    for probability in probabilities:  # class by class: faster than sorting each pixel's classes
        entropy += torch.special.entr(probability)
        second = torch.maximum(second, torch.minimum(best, probability))
        best = torch.maximum(best, probability)
    return torch.stack([entropy, best - second])


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
