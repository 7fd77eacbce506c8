"""Images and a version of the segmenter -> how useful each region is.

A pure function of the images, the segmenter and what is labelled: the worker ranks the whole
pool once per version, the learner an image that came since.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ralis_backend.core.acquisition import PoolState, Strategy, strategy
from ralis_backend.core.features import RegionFeatures, describe, predicted_mask
from ralis_backend.core.images import decode_image
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec
from ralis_backend.online.store import ProjectStore, RegionLabel
from ralis_backend.online.tables import Project, Version

logger = logging.getLogger(__name__)

COLD_START = "k-center"
COVERAGE = "coverage"


@dataclass(frozen=True)
class RankingConfig:
    """How a project's images are cut and ranked.

    `region_size` is (height, width) in pixels; `strategy` the name of a strategy of
    `core/acquisition`, used after the cold start.
    """

    strategy: str = "entropy"
    region_size: tuple[int, int] = (128, 128)
    regions_per_round: int = 24
    architecture: str = "FPN"
    encoder: str = "mobilenet_v2"
    encoder_weights: str | None = "imagenet"
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class RankedImage:
    """One image's regions in the order of the grid: scores (R,), reasons, predicted mask (H, W)."""

    image_size: tuple[int, int]
    scores: np.ndarray
    reasons: list[str]
    mask: np.ndarray | None


@dataclass(frozen=True)
class DescribedImage:
    """One image after its forward pass: features of its R regions and the predicted mask."""

    image_size: tuple[int, int]
    features: RegionFeatures
    mask: np.ndarray


def load_segmenter(
    store: ProjectStore, project: Project, version: Version | None, config: RankingConfig
) -> Segmenter:
    """The segmenter of a version; before the first, one with a random head.

    Its head is brought to the project's number of classes where labels were added since.
    """
    num_classes = max(1, len(project.classes))
    if version is None or version.weights_key is None:
        spec = SegmenterSpec(
            num_classes, config.architecture, config.encoder, config.encoder_weights
        )
        return Segmenter(spec, seed=config.seed, device=config.device)
    segmenter = Segmenter.load(store.blobs.path(version.weights_key), device=config.device)
    if segmenter.num_classes != num_classes:
        segmenter = segmenter.resized(num_classes)
    return segmenter


def describe_image(segmenter: Segmenter, content: bytes, config: RankingConfig) -> DescribedImage:
    """One forward pass over an image file; `ValueError` if it is no readable image."""
    image = decode_image(content)
    size = (image.shape[0], image.shape[1])
    forward = segmenter.forward_pass(image)
    features = describe(forward, grid(size, config.region_size))
    return DescribedImage(size, features, predicted_mask(forward))


def strategy_for(
    project: Project, version: Version | None, labels: Sequence[RegionLabel], config: RankingConfig
) -> Strategy:
    """The strategy that ranks a project now.

    Cold start: without a trained segmenter an entropy means nothing, so the first round is
    spread over the images' looks; while the first version has not seen every class, regions
    that probably hold rare ones come first; then the configured strategy. `random` needs no
    cold start.
    """
    wanted = project.strategy or config.strategy
    if wanted == "random":
        return strategy(wanted)
    if version is None or version.weights_key is None:
        return strategy(COLD_START)
    pixels = labelled_pixels(labels, len(project.classes))
    is_active = np.array([entry["is_active"] for entry in project.classes], bool)
    if version.parent in (None, 0) and (pixels[is_active] == 0).any():
        return strategy(COVERAGE)
    return strategy(wanted)


def labelled_pixels(labels: Sequence[RegionLabel], num_classes: int) -> np.ndarray:
    """Labelled pixels of each class, (C,) int64."""
    pixels = np.zeros(num_classes, np.int64)
    for label in labels:
        pixels[: len(label.pixels)] += label.pixels
    return pixels


def pool_state(
    pixels: np.ndarray, embeddings: np.ndarray, count: int, config: RankingConfig, version: int
) -> PoolState:
    """What a strategy is told of the project; its random numbers depend on seed and version."""
    rng = np.random.default_rng([config.seed, version])
    return PoolState(pixels, embeddings, count, rng)


def rank_image(
    store: ProjectStore,
    project: Project,
    version: Version | None,
    content: bytes,
    config: RankingConfig,
    labels: Sequence[RegionLabel],
) -> RankedImage:
    """Rank one image on the spot, without the rest of the pool.

    Args:
        store: where the segmenter's weights lie.
        project: gives the classes and the strategy.
        version: of the segmenter; None before the first.
        content: the image file.
        config: how regions are cut and ranked.
        labels: of the whole project.
    """
    segmenter = load_segmenter(store, project, version, config)
    described = describe_image(segmenter, content, config)
    features = described.features
    chooser = strategy_for(project, version, labels, config)
    state = pool_state(
        labelled_pixels(labels, len(project.classes)),
        features.embeddings[:0],
        len(features),
        config,
        version.number if version else 0,
    )
    scores = chooser.scores(state, features)
    is_trained = version is not None and version.weights_key is not None
    reasons = [
        chooser.reason(state, features, index, project.class_names) for index in range(len(scores))
    ]
    return RankedImage(
        described.image_size, scores, reasons, described.mask if is_trained else None
    )


def usefulness(scores: np.ndarray, pool_scores: np.ndarray | None = None) -> np.ndarray:
    """Scores as their share of smaller ones in the pool, in [0, 1]; the highest first.

    Label Studio shows the number, so it must mean the same in every strategy.

    Args:
        scores: (R,) float, any range.
        pool_scores: (M,) what they are compared with; `scores` themselves if None.
    """
    ordered = np.sort(scores if pool_scores is None else pool_scores)
    if len(ordered) == 0:
        return np.zeros(len(scores))
    return np.asarray(np.searchsorted(ordered, scores, side="right") / len(ordered))
