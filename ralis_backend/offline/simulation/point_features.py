"""A dataset's images -> features of a frozen encoder at points of each region, kept in a cache.

Each region has its own lattice of points, about one for every 8 x 8 pixels. A point's features are
those of the encoder at strides 4, 8, 16 and 32 (the last reduced to 96 numbers), each
standardised.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core import weights
from ralis_backend.core.regions import Region, grid
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec
from ralis_backend.offline.datasets import Dataset, DatasetError, Sample
from ralis_backend.offline.simulation.heads import Points

logger = logging.getLogger(__name__)

POINT_SPACING = 8
NUM_REDUCED = 96
_VERSION = 1
_IMAGES_FOR_STATISTICS = 40


@dataclass(frozen=True)
class RegionPoints:
    """The R regions of a split, in the order of its images and their grids.

    points: P points of each region, `lattice` = (rows, columns) of them.
    embeddings: (R, E) float32, unit length: the encoder's features at stride 16, averaged.
    class_pixels: (R, C + 1) int64 true pixels of each class, void last.
    image_index: (R,) which image of the split each region lies in.
    region_size: (height, width) of a region in pixels.
    """

    points: Points
    lattice: tuple[int, int]
    embeddings: np.ndarray
    class_pixels: np.ndarray
    image_index: np.ndarray
    region_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.points)

    def to(self, device: torch.device) -> RegionPoints:
        """The same with the points on a device."""
        points = Points(self.points.features.to(device), self.points.labels.to(device))
        return RegionPoints(
            points,
            self.lattice,
            self.embeddings,
            self.class_pixels,
            self.image_index,
            self.region_size,
        )

    def take(self, indices: np.ndarray) -> RegionPoints:
        """Some of the regions."""
        chosen = torch.from_numpy(np.asarray(indices, np.int64)).to(self.points.features.device)
        return RegionPoints(
            Points(self.points.features[chosen], self.points.labels[chosen]),
            self.lattice,
            self.embeddings[indices],
            self.class_pixels[indices],
            self.image_index[indices],
            self.region_size,
        )


class PointFeatures:
    """Features of a dataset's splits, computed once.

    Raises a `ValueError` where the encoder's weights cannot be had.

    Args:
        dataset: whose images.
        region_size: (height, width) of a region in pixels; no image may be smaller.
        cache: folder for the computed features, safe to delete.
        encoder, encoder_weights: the frozen encoder, as segmentation-models-pytorch names them.
        device: where the encoder runs.
        report: told what is being done.
    """

    def __init__(
        self,
        dataset: Dataset,
        region_size: tuple[int, int],
        cache: Path,
        *,
        encoder: str = "mobilenet_v2",
        encoder_weights: str | None = "imagenet",
        device: str = "cpu",
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.dataset = dataset
        self.region_size = region_size
        self._cache = cache
        self._spec = SegmenterSpec(len(dataset.classes), "FPN", encoder, encoder_weights)
        self._device = device
        self._report = report
        self._segmenter: Segmenter | None = None
        self._scaling: _Scaling | None = None

    def split(self, name: str) -> RegionPoints:
        """The regions of one split.

        Raises:
            DatasetError: if the split is empty or holds an image smaller than a region.
        """
        samples = self.dataset.split(name)
        if not samples:
            raise DatasetError(
                f"split {name!r} of dataset {self.dataset.name} is empty; name images for it in "
                "splits.json"
            )
        path = self._cache / f"{self.dataset.name}-{name}-{self._digest(samples)}.safetensors"
        if path.is_file():
            try:
                return self._read(path)
            except (weights.WeightsError, KeyError) as error:
                logger.warning("%s is computed anew: %s", path, error)
        computed = self._compute(name, samples)
        self._write(path, computed)
        return computed

    def _digest(self, samples: Sequence[Sample]) -> str:
        facts = [
            _VERSION,
            str(self.dataset.root.resolve()),
            self.region_size,
            self.dataset.class_names,
            (self._spec.encoder, self._spec.encoder_weights),
            [(each.key, each.image_path.stat().st_mtime_ns) for each in samples],
            [each.key for each in self._reference_samples()],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def _read(self, path: Path) -> RegionPoints:
        tensors, metadata = weights.load(path)
        return RegionPoints(
            Points(tensors["features"], tensors["labels"]),
            (metadata["lattice"][0], metadata["lattice"][1]),
            tensors["embeddings"].numpy(),
            tensors["class_pixels"].numpy(),
            tensors["image_index"].numpy(),
            self.region_size,
        )

    @staticmethod
    def _write(path: Path, regions: RegionPoints) -> None:
        tensors = {
            "features": regions.points.features,
            "labels": regions.points.labels,
            "embeddings": torch.from_numpy(regions.embeddings),
            "class_pixels": torch.from_numpy(regions.class_pixels),
            "image_index": torch.from_numpy(regions.image_index),
        }
        weights.save(path, tensors, {"lattice": list(regions.lattice)})

    def _compute(self, name: str, samples: Sequence[Sample]) -> RegionPoints:
        scaling = self._scaling_of_all()
        parts: list[tuple[torch.Tensor, ...]] = []
        lattice = _lattice(self.region_size)
        for number, sample in enumerate(samples, start=1):
            self._report(f"features of {name}: image {number} of {len(samples)}")
            image, mask = sample.image(), sample.mask()
            regions = self._grid(sample, mask.shape)
            stages = self._stages(image)
            rows, cols = _point_positions(regions, lattice)  # (R, P) each, in pixels
            features = scaling.applied(_sampled(stages, rows, cols))
            labels = torch.from_numpy(mask)[rows.long(), cols.long()]  # (R, P)
            raw = _sampled(stages[2:3], rows, cols).mean(dim=1)
            embeddings = raw / torch.linalg.vector_norm(raw, dim=1, keepdim=True).clamp(min=1e-12)
            pixels = torch.stack(
                [_class_pixels(mask, it, len(self.dataset.classes)) for it in regions]
            )
            index = torch.full((len(regions),), number - 1)
            parts.append((features.bfloat16(), labels, embeddings, pixels, index))
        features, labels, embeddings, pixels, index = (
            torch.cat(each) for each in zip(*parts, strict=True)
        )
        return RegionPoints(
            Points(features, labels),
            lattice,
            embeddings.numpy(),
            pixels.numpy(),
            index.numpy(),
            self.region_size,
        )

    def _grid(self, sample: Sample, size: Sequence[int]) -> list[Region]:
        if size[0] < self.region_size[0] or size[1] < self.region_size[1]:
            raise DatasetError(
                f"{sample.image_path} is {size[0]} x {size[1]} pixels, smaller than a region of "
                f"{self.region_size[0]} x {self.region_size[1]}; choose smaller regions"
            )
        return grid((size[0], size[1]), self.region_size)

    def _stages(self, image: np.ndarray) -> list[tuple[torch.Tensor, int]]:
        """The encoder's last four features, (D, h, w) each on the CPU, and their strides."""
        if self._segmenter is None:
            self._segmenter = Segmenter(self._spec, seed=0, device=self._device)
            if self._spec.encoder_weights is not None and not self._segmenter.is_pretrained:
                raise ValueError(
                    f"the {self._spec.encoder_weights} weights of {self._spec.encoder} could not "
                    "be had; features of random weights would say nothing. Give the machine "
                    "access to the Hugging Face hub once, set HF_HUB_CACHE, or set "
                    "RALIS_ENCODER_WEIGHTS=none if you mean it"
                )
        segmenter = self._segmenter
        with torch.inference_mode():
            pixels = segmenter.normalised(image)[None]
            down, right = -pixels.shape[2] % segmenter.stride, -pixels.shape[3] % segmenter.stride
            padded = functional.pad(pixels, (0, right, 0, down), mode="replicate")
            features = segmenter.model.encoder(padded.to(memory_format=torch.channels_last))
        return [(it[0].float().cpu(), padded.shape[2] // it.shape[2]) for it in features[-4:]]

    def _reference_samples(self) -> list[Sample]:
        """Images whose features set the scale: no label is needed of them."""
        samples = [it for split in ("d_s", "d_t", "d_v") for it in self.dataset.split(split)]
        step = max(1, len(samples) // _IMAGES_FOR_STATISTICS)
        return samples[::step]

    def _scaling_of_all(self) -> _Scaling:
        if self._scaling is None:
            drawn = []
            for number, sample in enumerate(self._reference_samples(), start=1):
                self._report(f"scale of the features: image {number}")
                image = sample.image()
                rows, cols = _point_positions(
                    self._grid(sample, image.shape[:2]), _lattice(self.region_size)
                )
                drawn.append(
                    [_sampled([it], rows, cols).flatten(0, 1) for it in self._stages(image)]
                )
            self._scaling = _Scaling.of([torch.cat(each) for each in zip(*drawn, strict=True)])
        return self._scaling


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


def _lattice(region_size: tuple[int, int]) -> tuple[int, int]:
    rows, cols = (max(1, round(side / POINT_SPACING)) for side in region_size)
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
