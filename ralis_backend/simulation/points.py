"""Images -> features of a frozen encoder at points of each region.

Each region has its own lattice of points, about one for every 8 x 8 pixels. A point's features are
those of the encoder at strides 4, 8, 16 and 32 (the last reduced to 96 numbers), each
standardised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import SegmenterSpec, build
from ralis_backend.simulation.heads import Points

POINT_SPACING = 8
NUM_REDUCED = 96


@dataclass(frozen=True)
class RegionPoints:
    """The R regions of a split, in the order of its images and their grids.

    points: P points of each region, `lattice` = (rows, columns) of them.
    embeddings: (R, E) float32, unit length: the encoder's features at stride 16, averaged.
    class_pixels: (R, C + 1) int64 true pixels of each class, void last.
    image_index: (R,) which image of the split each region lies in.
    region_size: (height, width) of a region in pixels.
    places: (R, 2) float32, row and column of each region's centre, in regions.
    mirrored: features of the same points as seen in the mirrored image; None where nobody asked.
    background, removed_classes: as in `PoolState`; scores leave the background out.
    """

    points: Points
    lattice: tuple[int, int]
    embeddings: np.ndarray
    class_pixels: np.ndarray
    image_index: np.ndarray
    region_size: tuple[int, int]
    places: np.ndarray
    mirrored: torch.Tensor | None = None
    background: int | None = None
    removed_classes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.points)

    def to(self, device: torch.device) -> RegionPoints:
        """The same with the points on a device."""
        points = Points(self.points.features.to(device), self.points.labels.to(device))
        mirrored = None if self.mirrored is None else self.mirrored.to(device)
        return replace(self, points=points, mirrored=mirrored)

    def take(self, indices: np.ndarray) -> RegionPoints:
        """Some of the regions."""
        chosen = torch.from_numpy(np.asarray(indices, np.int64)).to(self.points.features.device)
        return replace(
            self,
            points=Points(self.points.features[chosen], self.points.labels[chosen]),
            embeddings=self.embeddings[indices],
            class_pixels=self.class_pixels[indices],
            image_index=self.image_index[indices],
            places=self.places[indices],
            mirrored=None if self.mirrored is None else self.mirrored[chosen],
        )


class PointEncoder:
    """A frozen encoder that looks at points of regions.

    Args:
        spec: whose encoder and initial weights; its number of classes is that of the labels.
        device: where it runs.

    Raises:
        ValueError: if the encoder's weights cannot be had.
    """

    def __init__(self, spec: SegmenterSpec, device: str = "cpu") -> None:
        self._segmenter = build(spec, device=device)
        if self._segmenter.lacks_weights:
            raise ValueError(
                f"the {spec.encoder_weights} weights of {spec.encoder} could not "
                "be had; features of random weights would say nothing. Give the machine "
                "access to the Hugging Face hub once, set HF_HUB_CACHE, or set "
                "RALIS_ENCODER_WEIGHTS=none if you mean it"
            )
        self._num_classes = spec.num_classes
        self._scaling: _Scaling | None = None

    def fit(self, images: Iterable[tuple[np.ndarray, Sequence[Region]]]) -> None:
        """Set the scale of the features by regions of some images; no label is needed of them."""
        drawn = []
        for image, regions in images:
            rows, cols = _point_positions(regions, _lattice(regions))
            drawn.append([_sampled([it], rows, cols).flatten(0, 1) for it in self._stages(image)])
        self._scaling = _Scaling.of([torch.cat(each) for each in zip(*drawn, strict=True)])

    def points(
        self,
        images: Iterable[tuple[np.ndarray, np.ndarray, Sequence[Region]]],
        look_twice: bool = False,
    ) -> RegionPoints:
        """The regions of some images, all of one size.

        Args:
            images: (H, W, 3) uint8 RGB, (H, W) uint8 mask, and regions, of each.
            look_twice: look at the mirrored images as well.

        Raises:
            RuntimeError: if `fit` was not called before.
        """
        if self._scaling is None:
            raise RuntimeError("call fit first: the features have no scale yet")
        parts: list[tuple[torch.Tensor, ...]] = []
        mirrored: list[torch.Tensor] = []
        for number, (image, mask, regions) in enumerate(images):
            lattice, region_size = _lattice(regions), (regions[0].height, regions[0].width)
            stages = self._stages(image)
            rows, cols = _point_positions(regions, lattice)  # (R, P) each, in pixels
            features = self._scaling.applied(_sampled(stages, rows, cols))
            if look_twice:
                others = _sampled(self._stages(image[:, ::-1]), rows, image.shape[1] - cols)
                mirrored.append(self._scaling.applied(others).bfloat16())
            labels = torch.from_numpy(mask)[rows.long(), cols.long()]  # (R, P)
            raw = _sampled(stages[-2:-1], rows, cols).mean(dim=1)
            embeddings = raw / torch.linalg.vector_norm(raw, dim=1, keepdim=True).clamp(min=1e-12)
            pixels = torch.stack([_class_pixels(mask, it, self._num_classes) for it in regions])
            index = torch.full((len(regions),), number)
            places = torch.tensor([it.center_in_regions for it in regions])
            parts.append((features.bfloat16(), labels, embeddings, pixels, index, places))
        features, labels, embeddings, pixels, index, places = (
            torch.cat(each) for each in zip(*parts, strict=True)
        )
        return RegionPoints(
            Points(features, labels),
            lattice,
            embeddings.numpy(),
            pixels.numpy(),
            index.numpy(),
            region_size,
            places.numpy(),
            torch.cat(mirrored) if look_twice else None,
        )

    def _stages(self, image: np.ndarray) -> list[tuple[torch.Tensor, int]]:
        """The encoder's features, (D, h, w) each on the CPU, and their strides."""
        return [(each.cpu(), stride) for each, stride in self._segmenter.stages(image)]


@dataclass(frozen=True)
class _Scaling:
    """(D, D') projection of the deepest stage, and mean and deviation of every feature."""

    projection: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def of(cls, stages: Sequence[torch.Tensor]) -> _Scaling:
        deepest = stages[-1].double()
        centred = deepest - deepest.mean(dim=0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        projection = vectors[:, torch.argsort(values, descending=True)[:NUM_REDUCED]].float()
        joined = torch.cat([*stages[:-1], stages[-1] @ projection], dim=1)
        return cls(projection, joined.mean(dim=0), joined.std(dim=0).clamp(min=1e-6))

    def applied(self, features: torch.Tensor) -> torch.Tensor:
        """(..., D) all stages joined -> (..., D') standardised, cut to 6 deviations."""
        split = features.shape[-1] - len(self.projection)
        joined = torch.cat([features[..., :split], features[..., split:] @ self.projection], dim=-1)
        return ((joined - self.mean) / self.deviation).clamp(-6, 6)


def _lattice(regions: Sequence[Region]) -> tuple[int, int]:
    sides = regions[0].height, regions[0].width
    rows, cols = (max(1, round(side / POINT_SPACING)) for side in sides)
    return rows, cols


def _point_positions(
    regions: Sequence[Region], lattice: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of the points' centres in pixels, (R, P) each."""
    height, width = regions[0].height, regions[0].width
    down = (torch.arange(lattice[0]) + 0.5) * height / lattice[0]
    right = (torch.arange(lattice[1]) + 0.5) * width / lattice[1]
    row = torch.tensor([it.row for it in regions])[:, None] + down.repeat_interleave(lattice[1])
    col = torch.tensor([it.col for it in regions])[:, None] + right.repeat(lattice[0])
    return row, col


def _sampled(
    stages: Sequence[tuple[torch.Tensor, int]], rows: torch.Tensor, cols: torch.Tensor
) -> torch.Tensor:
    """(D, h, w) maps and their strides -> (R, P, sum of D), interpolated at the points."""
    sampled = []
    for features, stride in stages:
        size = torch.tensor(features.shape[1:]) * stride  # of the padded image
        place = torch.stack([2 * cols / size[1] - 1, 2 * rows / size[0] - 1], dim=-1)  # (R, P, 2)
        values = functional.grid_sample(
            features[None], place[None], padding_mode="border", align_corners=False
        )  # (1, D, R, P)
        sampled.append(values[0].permute(1, 2, 0))
    return torch.cat(sampled, dim=-1)


def _class_pixels(mask: np.ndarray, region: Region, num_classes: int) -> torch.Tensor:
    pixels = np.bincount(mask[region.slices].ravel(), minlength=256)
    return torch.from_numpy(np.append(pixels[:num_classes], pixels[num_classes:].sum()))
