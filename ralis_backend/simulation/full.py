"""The full simulation: the segmenter itself, trained and measured on whole images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from ralis_backend.core.acquisition import Places
from ralis_backend.core.features import (
    FEATURES,
    RegionFeatures,
    concat,
    describe,
    maps_for,
    predicted_mask,
)
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage, unlabelled
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec, build
from ralis_backend.simulation import Truth

PAPER_FINETUNE = FinetuneConfig(
    batch_size=32,
    crop_size=(224, 224),
    optimizer="sgd",
    learning_rate=1e-3,
    momentum=0.95,
    head_multiplier=1.0,
    weight_decay=1e-4,
    schedule="constant",
    warmup=0.0,
    scale_range=(1.0, 1.0),
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    rarity_share=0.0,
    class_weight_power=0.0,
)
"""As the RALIS paper trains for CamVid; ours places crops at random around a region."""

_IMAGES_IN_MEMORY = 400


class LabelledSample(Protocol):
    """An image whose labels are all known; hashable."""

    def image(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB."""

    def mask(self) -> np.ndarray:
        """(H, W) uint8 class indices, VOID where not annotated."""

    def __hash__(self) -> int:
        """Decoded images are kept by it."""


class FullSimulation:
    """A segmenter on whole images; slow: every look at the pool is a forward pass per image.

    Args:
        pool: images whose regions may be labelled.
        state_set: images that make up the state.
        reward_set: images on which the segmenter is measured.
        spec: the segmenter.
        region_size: (height, width) in pixels.
        first: how f_0 is trained.
        config: how each training call trains.
        besides: what every training learns from besides labels, see `finetune`.
        device: as torch names it.
        background: index of the class that people leave unpainted; None: there is none.

    Raises:
        ValueError: if a set is empty.
    """

    def __init__(
        self,
        pool: Sequence[LabelledSample],
        state_set: Sequence[LabelledSample],
        reward_set: Sequence[LabelledSample],
        spec: SegmenterSpec,
        region_size: tuple[int, int],
        *,
        first: FinetuneConfig | None = None,
        config: FinetuneConfig = PAPER_FINETUNE,
        besides: Sequence[str] = (),
        device: str = "cpu",
        background: int | None = None,
    ) -> None:
        for name, samples in (("pool", pool), ("state set", state_set), ("reward set", reward_set)):
            if not samples:
                raise ValueError(f"the {name} has no image; it needs at least one")
        self._load = lru_cache(_IMAGES_IN_MEMORY)(lambda sample: sample.image())
        self._region_size = region_size
        self._pool, self._state_set, self._reward_set = (
            [self._labelled(sample) for sample in samples]
            for samples in (pool, state_set, reward_set)
        )
        self._place = [
            (image, region) for image, it in enumerate(self._pool) for region in it.regions
        ]
        self._spec, self._device = spec, device
        self.background = background
        self.removed_classes: tuple[int, ...] = ()
        self._first = first or FinetuneConfig()
        self._config = config
        self._besides = tuple(besides)
        self._started: tuple[tuple[int, int], Segmenter] | None = None
        self._described: dict[int, RegionFeatures] = {}
        self.num_classes = spec.num_classes
        self.num_state_regions = sum(len(it.regions) for it in self._state_set)
        self.places = Places(
            np.array([image for image, _ in self._place]),
            np.array([it.center_in_regions for _, it in self._place], np.float32),
        )
        self.class_pixels = np.stack([self._class_pixels(*place) for place in self._place])
        self.segmenter = build(spec, device=device)

    def begin(self, labelled: np.ndarray, num_updates: int, seed: int) -> None:
        """A new segmenter that has learned from these regions; from the state set if none."""
        self._described.clear()
        key = (num_updates, seed)
        if not len(labelled) and self._started is not None and self._started[0] == key:
            self.segmenter = self._started[1].copy()
            return
        self.segmenter = build(self._spec, seed=seed, device=self._device)
        images = self._learned_from(labelled) if len(labelled) else self._state_set
        config = replace(self._first, steps=num_updates)
        finetune(self.segmenter, images, config, seed=seed, besides=self._besides)
        if not len(labelled):
            self._started = (key, self.segmenter.copy())

    def learn(
        self, label_sets: Sequence[np.ndarray], num_updates: int | None, seed: int
    ) -> np.ndarray:
        """See `Simulation.learn`."""
        if num_updates is None:
            num_updates = -(-len(label_sets[0]) // self._config.batch_size)
        config = replace(self._config, steps=num_updates)
        trained, matrices = [], []
        for regions in label_sets:
            copy = self.segmenter.copy()
            images = self._learned_from(regions)
            finetune(copy, images, config, seed=seed, besides=self._besides)
            matrices.append(evaluate(copy, self._reward_set))
            trained.append(copy)
        self.segmenter = trained[0]
        self._described.clear()
        return np.stack(matrices)

    def evaluate(self) -> np.ndarray:
        """(C, C) confusion matrix over every pixel of the reward set."""
        return evaluate(self.segmenter, self._reward_set)

    def describe(
        self, regions: np.ndarray, features: Collection[str] | None = None
    ) -> RegionFeatures:
        """Features of these regions of the pool; one forward pass for each image among them."""
        wanted = self._wanted(features)
        if not len(regions):
            return self._image_features(0, wanted).take(np.zeros(0, np.int64))
        starts = np.cumsum([0, *(len(it.regions) for it in self._pool)])
        parts = [
            self._image_features(image, wanted).take(np.array([index - starts[image]]))
            for index in regions
            for image in [self._place[int(index)][0]]
        ]
        return concat(parts)

    def class_counts(self, regions: np.ndarray) -> np.ndarray:
        """(R, C) predicted pixels of each class."""
        return self.describe(regions, ("class_counts",)).class_counts

    def embeddings(self, regions: np.ndarray) -> np.ndarray:
        """(R, E) mean features of the encoder as it is now."""
        return self.describe(regions, ("embeddings",)).embeddings

    def describe_state(self, features: Collection[str] | None = None) -> RegionFeatures:
        """Features of the state set's regions."""
        wanted = self._wanted(features)
        return concat([self._look(it, wanted) for it in self._state_set])

    def reveal(self, regions: np.ndarray) -> Truth:
        """What only someone who knows the labels can say of these regions of the pool."""
        error = np.zeros(len(regions), np.float32)
        class_bald = np.zeros((len(regions), self.num_classes), np.float32)
        places = [self._place[int(index)] for index in regions]
        for image in sorted({image for image, _ in places}):
            it = self._pool[image]
            forward = self.segmenter.forward_pass(it.load(), ("bald",))
            predicted = predicted_mask(forward)
            if forward.bald is None:
                raise ValueError("this segmenter offers no BALD, which the truth is told with")
            bald = forward.bald.cpu().numpy().repeat(forward.bald_stride, axis=0)
            bald = bald.repeat(forward.bald_stride, axis=1)
            for row, (of_image, region) in enumerate(places):
                if of_image != image:
                    continue
                true = it.mask[region.slices]
                is_known = true != VOID
                is_wrong = (predicted[region.slices] != true) & is_known
                error[row] = is_wrong.sum() / max(1, is_known.sum())
                sums = np.bincount(true.ravel(), bald[region.slices].ravel(), minlength=256)
                class_bald[row] = sums[: self.num_classes] / true.size
        return Truth(self.class_pixels[regions], error, class_bald)

    def _wanted(self, features: Collection[str] | None) -> tuple[str, ...]:
        """Names of features; if None all that the segmenter offers at one look."""
        if features is None:
            offered = self.segmenter.offers - {"mirrored"}
            return tuple(name for name in FEATURES if maps_for((name,)) <= offered)
        return tuple(features)

    def _image_features(self, image: int, wanted: tuple[str, ...]) -> RegionFeatures:
        """Of an image of the pool; what was described before is not described again."""
        known = self._described.get(image)
        if known is None or not set(wanted) <= set(known):
            more = wanted if known is None else tuple(dict.fromkeys((*known, *wanted)))
            known = self._described[image] = self._look(self._pool[image], more)
        return RegionFeatures(len(known), {name: known[name] for name in wanted})

    def _look(self, image: LabelledImage, wanted: tuple[str, ...]) -> RegionFeatures:
        forward = self.segmenter.forward_pass(image.load(), maps_for(wanted))
        return describe(forward, image.regions, wanted)

    def _labelled(self, sample: LabelledSample) -> LabelledImage:
        mask = sample.mask()
        regions = tuple(grid((mask.shape[0], mask.shape[1]), self._region_size))
        return LabelledImage(lambda: self._load(sample), mask, regions)

    def _learned_from(self, labelled: np.ndarray) -> list[LabelledImage]:
        """The images of these regions; where that may help, the others of the pool without any."""
        chosen = self._chosen(labelled)
        if not self._besides:
            return chosen
        with_labels = {self._place[int(index)][0] for index in labelled}
        others = [it for image, it in enumerate(self._pool) if image not in with_labels]
        return chosen + [unlabelled(it.load, it.mask.shape) for it in others]

    def _chosen(self, regions: np.ndarray) -> list[LabelledImage]:
        """The images of these regions, everything else in their masks VOID."""
        by_image: dict[int, list[Region]] = defaultdict(list)
        for index in regions:
            image, region = self._place[int(index)]
            by_image[image].append(region)
        chosen = []
        for image, wanted in by_image.items():
            mask = np.full_like(self._pool[image].mask, VOID)
            for region in wanted:
                mask[region.slices] = self._pool[image].mask[region.slices]
            chosen.append(LabelledImage(self._pool[image].load, mask, tuple(wanted)))
        return chosen

    def _class_pixels(self, image: int, region: Region) -> np.ndarray:
        pixels = np.bincount(self._pool[image].mask[region.slices].ravel(), minlength=VOID + 1)
        return np.append(pixels[: self.num_classes], pixels[VOID])
