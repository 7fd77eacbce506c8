"""A dataset and how it is played, in a form that travels between processes -> the arena."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ralis_backend.core.learning.registry import PAINT, besides_paint
from ralis_backend.core.regions import VOID, grid
from ralis_backend.core.segmenter import DEFAULT_SPEC, SegmenterSpec
from ralis_backend.core.segmenter.registry import encoder_facts
from ralis_backend.offline.datasets import Dataset, DatasetError, Sample, evenly_spaced
from ralis_backend.offline.point_features import REFERENCE_SPLITS, PointFeatures
from ralis_backend.offline.scaled import scaled
from ralis_backend.simulation.arena import FastArena
from ralis_backend.simulation.full_arena import RECIPE, FullArena
from ralis_backend.simulation.heads import HeadConfig

FIDELITIES = ("fast", "full")


@dataclass(frozen=True)
class ArenaConfig:
    """What is played on, and by which segmenter.

    dataset: labelled completely.
    region_size: (height, width) in pixels.
    fidelity: `fast`, heads on a frozen encoder's features, or `full`, the segmenter itself.
    pool, measured_on: splits.
    class_weight_power: the loss of a class is weighted by its frequency to minus this.
    cache: folder for encoder features.
    spec: the segmenter; its classes are the dataset's.
    test_images: of the full fidelity: so many images of the split, evenly spaced; None: all.
    image_scale: of the full fidelity: images and regions are shown at this scale.
    learner: of the full fidelity: what segmenters learn from, see `besides_paint`.
    device: as torch names it.
    looks_twice: whether a strategy asks what the segmenter says of the mirrored images.
    """

    dataset: Dataset
    region_size: tuple[int, int]
    fidelity: str = "fast"
    pool: str = "d_v"
    measured_on: str = "test"
    class_weight_power: float = 0.0
    cache: Path = Path(".cache/points")
    spec: SegmenterSpec = DEFAULT_SPEC
    test_images: int | None = None
    image_scale: float = 1.0
    learner: str = PAINT
    device: str = "cpu"
    looks_twice: bool = False

    def facts(self) -> dict[str, Any]:
        """What is labelled, what is measured on, which classes and which files these are."""
        splits = {"pool": self.pool, "measured_on": self.measured_on}
        played = (self.pool, "d_s", self.measured_on)
        scale = REFERENCE_SPLITS if self.fidelity == "fast" else ()
        digest = self.dataset.files_digest((*played, *scale))
        return {
            **splits,
            "files_sha256": digest[:12],
            "images": self.dataset.split_sizes((*played, *scale)),
            "classes": list(self.dataset.class_names),
        }

    def test_samples(self) -> list[Sample]:
        """The images that segmenters are measured on."""
        return evenly_spaced(self.dataset.split(self.measured_on), self.test_images)


def check_arena(config: ArenaConfig) -> None:
    """Refuse a dataset that cannot be played on, before anything takes long.

    Raises:
        DatasetError: if a split is empty or nothing in it is annotated, or an image is smaller
            than a region.
        ValueError: if an option is unknown or does not fit the fidelity.
    """
    if config.fidelity not in FIDELITIES:
        raise ValueError(f"fidelity '{config.fidelity}' is unknown; choose fast or full")
    if config.fidelity == "fast" and (config.test_images is not None or config.image_scale != 1):
        raise ValueError(
            "--test-images and --image-scale lower the cost of --fidelity full; the fast one "
            "always measures on every image at full size: leave them out"
        )
    if besides_paint(config.learner) and config.fidelity == "fast":
        raise ValueError(
            f"learner {config.learner!r} needs --fidelity full: the fast one has an encoder that "
            "does not learn"
        )
    if not 0 < config.image_scale <= 1:
        raise ValueError(f"image_scale is {config.image_scale}, expected above 0, at most 1")
    num_classes = len(config.dataset.classes)
    for split, must_be_annotated in (
        (config.pool, True),
        ("d_s", False),
        (config.measured_on, True),
    ):
        samples = config.dataset.split(split)
        if not samples:
            raise DatasetError(
                f"split {split!r} of dataset {config.dataset.name} is empty; name images for it "
                "in splits.json"
            )
        is_annotated = {id(it): _check_sample(it, config, num_classes) for it in samples}
        if must_be_annotated and not any(is_annotated.values()):
            raise DatasetError(
                f"no pixel of split {split!r} of dataset {config.dataset.name} is annotated: all "
                f"of its {len(samples)} masks are void; complete them, or name other images in "
                "splits.json"
            )
        drawn = config.test_samples() if split == config.measured_on else samples
        if must_be_annotated and not any(is_annotated[id(it)] for it in drawn):
            raise DatasetError(
                f"no pixel of the {len(drawn)} images of split {split!r} that --test-images "
                f"{config.test_images} measures on is annotated; measure on more of the "
                f"{len(samples)}"
            )


def open_arena(
    config: ArenaConfig, report: Callable[[str], None] = lambda _: None
) -> FastArena | FullArena:
    """The arena; features of the fast one are computed where they are not cached."""
    dataset = config.dataset
    if config.fidelity == "full":
        return _full_arena(config)
    features = PointFeatures(
        dataset,
        config.region_size,
        config.cache,
        spec=config.spec,
        device=config.device,
        report=report,
    )
    return FastArena(
        dataset.name,
        replace(features.split(config.pool, config.looks_twice), background=dataset.background),
        features.split("d_s"),
        features.split(config.measured_on),
        HeadConfig(class_weight_power=config.class_weight_power),
        config.device,
        config.facts() | {"region_size": config.region_size} | encoder_facts(config.spec),
    )


def _full_arena(config: ArenaConfig) -> FullArena:
    dataset, scale = config.dataset, config.image_scale
    return FullArena(
        dataset.name,
        scaled(dataset.split(config.pool), scale),
        scaled(dataset.split("d_s"), scale),
        scaled(config.test_samples(), scale),
        config.spec.for_classes(len(dataset.classes)),
        _scaled_size(config.region_size, scale),
        replace(RECIPE, class_weight_power=config.class_weight_power),
        besides_paint(config.learner),
        config.device,
        config.facts(),
        dataset.background,
    )


def _check_sample(sample: Sample, config: ArenaConfig, num_classes: int) -> bool:
    """Whether anything in its mask is annotated."""
    mask = sample.mask()
    height, width = config.region_size
    if mask.shape[0] < height or mask.shape[1] < width:
        raise DatasetError(
            f"{sample.image_path} is {mask.shape[0]} x {mask.shape[1]} pixels (height x width), "
            f"smaller than a region of {height} x {width}; choose smaller regions, as "
            f"--region-size {min(height, mask.shape[0])}x{min(width, mask.shape[1])}, or enlarge "
            "the image and its mask"
        )
    scale = config.image_scale
    small = _scaled_size((mask.shape[0], mask.shape[1]), scale)
    regions = grid(small, _scaled_size(config.region_size, scale))
    if len(regions) != len(grid((mask.shape[0], mask.shape[1]), config.region_size)):
        raise ValueError(
            f"image_scale {scale} cuts {sample.image_path} into {len(regions)} regions, another "
            "number than at full size; choose a scale at which regions keep whole sides, as 0.5"
        )
    return bool((mask[mask != VOID] < num_classes).any())


def _scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
