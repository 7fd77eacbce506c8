"""A dataset's images -> features of a frozen encoder at points of each region, kept in a cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ralis_backend.core import weights
from ralis_backend.core.regions import Region, grid
from ralis_backend.core.segmenter import DEFAULT_SPEC, SegmenterSpec
from ralis_backend.core.segmenter.registry import encoder_facts, encoder_spec
from ralis_backend.offline.datasets import Dataset, DatasetError, Sample, digest_of
from ralis_backend.simulation.heads import Points
from ralis_backend.simulation.points import PointEncoder, RegionPoints

logger = logging.getLogger(__name__)

REFERENCE_SPLITS = ("d_s", "d_t", "d_v")
"""Whose images set the scale of all features: no label is needed of them."""

_VERSION = 3
_IMAGES_FOR_STATISTICS = 40


class PointFeatures:
    """Features of a dataset's splits, computed once.

    Raises a `ValueError` where the encoder's weights cannot be had.

    Args:
        dataset: whose images.
        region_size: (height, width) of a region in pixels; no image may be smaller.
        cache: folder for the computed features, safe to delete.
        spec: whose encoder; its classes are the dataset's.
        device: where the encoder runs.
        report: told what is being done.
    """

    def __init__(
        self,
        dataset: Dataset,
        region_size: tuple[int, int],
        cache: Path,
        *,
        spec: SegmenterSpec = DEFAULT_SPEC,
        device: str = "cpu",
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.dataset = dataset
        self.region_size = region_size
        self._cache = cache
        self._spec = encoder_spec(spec).for_classes(len(dataset.classes))
        self._device = device
        self._report = report
        self._encoder: PointEncoder | None = None

    def split(self, name: str, look_twice: bool = False) -> RegionPoints:
        """The regions of one split.

        Args:
            name: of the split.
            look_twice: with features of the mirrored images, for strategies that compare.

        Raises:
            DatasetError: if the split is empty or holds an image smaller than a region.
        """
        samples = self.dataset.split(name)
        if not samples:
            raise DatasetError(
                f"split {name!r} of dataset {self.dataset.name} is empty; name images for it in "
                "splits.json"
            )
        kind = f"{name}-mirrored" if look_twice else name
        path = self._cache / f"{self.dataset.name}-{kind}-{self._digest(samples)}.safetensors"
        if path.is_file():
            try:
                return self._read(path)
            except (weights.WeightsError, KeyError) as error:
                logger.warning("%s is computed anew: %s", path, error)
        computed = self._compute(name, samples, look_twice)
        self._write(path, computed)
        return computed

    def _digest(self, samples: Sequence[Sample]) -> str:
        facts = [
            _VERSION,
            self.region_size,
            self.dataset.class_names,
            list(encoder_facts(self._spec).values()),
            digest_of(samples),
            self._reference_digest,
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
            tensors["places"].numpy(),
            tensors.get("mirrored"),
        )

    @staticmethod
    def _write(path: Path, regions: RegionPoints) -> None:
        tensors = {
            "features": regions.points.features,
            "labels": regions.points.labels,
            "embeddings": torch.from_numpy(regions.embeddings),
            "class_pixels": torch.from_numpy(regions.class_pixels),
            "image_index": torch.from_numpy(regions.image_index),
            "places": torch.from_numpy(regions.places),
        }
        if regions.mirrored is not None:
            tensors["mirrored"] = regions.mirrored
        weights.save(path, tensors, {"lattice": list(regions.lattice)})

    def _compute(self, name: str, samples: Sequence[Sample], look_twice: bool) -> RegionPoints:
        encoder = self._fitted_encoder()

        def images() -> Iterator[tuple[np.ndarray, np.ndarray, list[Region]]]:
            for number, sample in enumerate(samples, start=1):
                self._report(f"features of {name}: image {number} of {len(samples)}")
                mask = sample.mask()
                yield sample.image(), mask, self._grid(sample, mask.shape)

        return encoder.points(images(), look_twice)

    def _grid(self, sample: Sample, size: Sequence[int]) -> list[Region]:
        if size[0] < self.region_size[0] or size[1] < self.region_size[1]:
            raise DatasetError(
                f"{sample.image_path} is {size[0]} x {size[1]} pixels, smaller than a region of "
                f"{self.region_size[0]} x {self.region_size[1]}; choose smaller regions"
            )
        return grid((size[0], size[1]), self.region_size)

    @cached_property
    def _reference_digest(self) -> str:
        return digest_of(replace(each, mask_path=None) for each in self._reference_samples())

    def _reference_samples(self) -> list[Sample]:
        samples = [it for split in REFERENCE_SPLITS for it in self.dataset.split(split)]
        step = max(1, len(samples) // _IMAGES_FOR_STATISTICS)
        return samples[::step]

    def _fitted_encoder(self) -> PointEncoder:
        if self._encoder is None:

            def images() -> Iterator[tuple[np.ndarray, list[Region]]]:
                for number, sample in enumerate(self._reference_samples(), start=1):
                    self._report(f"scale of the features: image {number}")
                    image = sample.image()
                    yield image, self._grid(sample, image.shape[:2])

            encoder = PointEncoder(self._spec, self._device)
            encoder.fit(images())
            self._encoder = encoder
        return self._encoder
