"""Images and a version of the segmenter -> how useful each region is.

A pure function of the images, the segmenter and what is labelled: the worker ranks the whole
pool once per version, the learner an image that came since.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from ralis_backend.core.acquisition import STRATEGIES, PoolState, Strategy, strategy
from ralis_backend.core.features import RegionFeatures, concat, describe, predicted_mask
from ralis_backend.core.images import decode_image
from ralis_backend.core.policy import RalisPolicy, state_images
from ralis_backend.core.policy.registry import find_strategy, is_learned
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import DEFAULT_SPEC, Segmenter, SegmenterSpec
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import ProjectStore, RegionLabel
from ralis_backend.online.store.tables import Project, Version

logger = logging.getLogger(__name__)

COLD_START = "k-center"
RARITY = "rarity"
EXPECTED_ROUNDS = 20
"""How many rounds a project is thought to take, for strategies that change on the way."""
FALLBACK = "bald-rarity"
"""The best strategy that nobody has to train: ranks where a trained policy cannot."""


@dataclass(frozen=True)
class RankingConfig:
    """How a project's images are cut and ranked.

    `region_size` is (height, width) in pixels; `strategy` the name of a strategy of
    `core/acquisition` or of a trained policy in `policies_dir`, used after the cold start. A policy
    compares candidates with the `whole` unlabelled pool, or picks from random pools as in
    `training`. `spec` is the segmenter; its classes are the project's.
    """

    strategy: str = "default"
    policies_dir: Path = Path("policies")
    policy_pool: Literal["whole", "training"] = "whole"
    region_size: tuple[int, int] = (128, 128)
    regions_per_round: int = 24
    spec: SegmenterSpec = DEFAULT_SPEC
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class RankedImage:
    """One image's regions in the order of the grid: scores (R,), reasons, predicted mask (H, W).

    is_comparable: whether the scores compare with those of the ranked pool.
    """

    image_size: tuple[int, int]
    scores: np.ndarray
    is_comparable: bool
    reasons: list[str]
    mask: np.ndarray | None


@dataclass(frozen=True)
class DescribedImage:
    """One image after its forward pass: features of its R regions and the predicted mask."""

    image_size: tuple[int, int]
    features: RegionFeatures
    mask: np.ndarray


def describe_image(
    segmenter: Segmenter, content: bytes, config: RankingConfig, look_twice: bool = False
) -> DescribedImage:
    """One forward pass over an image file; `ValueError` if it is no readable image.

    `look_twice` as in `Segmenter.forward_pass`.
    """
    image = decode_image(content)
    size = (image.shape[0], image.shape[1])
    forward = segmenter.forward_pass(image, look_twice)
    features = describe(forward, grid(size, config.region_size))
    return DescribedImage(size, features, predicted_mask(forward))


@dataclass(frozen=True)
class Pool:
    """A project's described images.

    features: of all R regions. image_sizes: how many of them each image has, in their order.
    is_done: (R,) whether a region is wholly labelled or skipped.
    """

    features: RegionFeatures
    image_sizes: Sequence[int]
    is_done: np.ndarray

    @property
    def candidates(self) -> RegionFeatures:
        """Features of the regions that can still be suggested."""
        return self.features.take(np.flatnonzero(~self.is_done))

    def state_set(self, num_regions: int) -> RegionFeatures:
        """Regions of whole images that together look like the pool; no label is needed."""
        starts = np.cumsum([0, *self.image_sizes])
        rows = [np.arange(*pair) for pair in pairwise(starts)]
        means = np.stack([self.features.embeddings[each].mean(axis=0) for each in rows])
        count = num_regions // max(1, min(self.image_sizes)) + 1
        chosen = state_images(means, count)
        return concat([self.features.take(rows[image]) for image in chosen])


@dataclass(frozen=True)
class Choice:
    """The strategy that ranks a project now; `note` says why it is not the wanted one.

    `aside`: the same in a few words, for annotators.
    """

    strategy: Strategy
    note: str | None = None
    aside: str | None = None

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Why region `index` is worth labelling, for annotators."""
        text = self.strategy.reason(state, actions, index, class_names)
        return text if self.aside is None else f"{text} ({self.aside})"


def strategy_for(
    project: Project, version: Version | None, labels: Sequence[RegionLabel], config: RankingConfig
) -> Choice:
    """The strategy that ranks a project now.

    Cold start: without a trained segmenter an entropy means nothing, so the first round is
    spread over the images' looks; while the first version has not seen every class, regions
    that probably hold rare ones come first; then the configured strategy. `random` needs no
    cold start. A policy that does not fit the project is replaced by the best heuristic,
    with a note.
    """
    wanted = project.strategy or config.strategy
    if wanted == "random":
        return Choice(strategy(wanted))
    if version is None or version.weights_key is None:
        return Choice(strategy(COLD_START))
    pixels = labelled_pixels(labels, len(project.classes)).sum(axis=0)[:-1]
    is_active = np.array([entry["is_active"] for entry in project.classes], bool)
    if version.parent in (None, 0) and (pixels[is_active] == 0).any():
        return Choice(strategy(RARITY))
    try:
        return Choice(
            find_strategy(wanted, config.policies_dir, project.class_names, config.region_size)
        )
    except ValueError as error:
        return fallback(project, str(error))


def score_pool(
    project: Project, choice: Choice, state: PoolState, pool: Pool, config: RankingConfig
) -> tuple[np.ndarray, Choice]:
    """(R,) scores of the pool's candidates, and the strategy that gave them."""
    chooser = choice.strategy
    if not isinstance(chooser, RalisPolicy):
        return chooser.scores(state, pool.candidates), choice
    num_wanted = chooser.spec.num_state_regions
    if len(pool.features) < num_wanted:
        choice = fallback(
            project,
            f"policy {chooser.name} looks at a state set of {num_wanted} regions; the project has "
            f"{len(pool.features)} in all: add images, or choose another strategy",
        )
        return choice.strategy.scores(state, pool.candidates), choice
    state = replace(state, state_set=pool.state_set(num_wanted))
    if config.policy_pool == "training":
        return chooser.scores_from_pools(state, pool.candidates), choice
    return chooser.scores(state, pool.candidates), choice


def fallback(project: Project, note: str, aside: str | None = None) -> Choice:
    """The best heuristic instead of the wanted strategy, said in the log as well."""
    logger.warning("project %s is ranked by %s: %s", project.uid, FALLBACK, note)
    return Choice(strategy(FALLBACK), note, aside)


def labelled_pixels(labels: Sequence[RegionLabel], num_classes: int) -> np.ndarray:
    """(L, C + 1) int64 labelled pixels of each class in each labelled region, void last."""
    painted = [label for label in labels if not label.is_skipped]
    pixels = np.zeros((len(painted), num_classes + 1), np.int64)
    for row, label in zip(pixels, painted, strict=True):
        row[: len(label.pixels)] += label.pixels
        row[-1] = label.region.height * label.region.width - sum(label.pixels)
    return pixels


def looks_twice(project: Project, config: RankingConfig) -> bool:
    """Whether the wanted strategy needs to see every image mirrored as well."""
    wanted = STRATEGIES.get(project.strategy or config.strategy)
    return wanted is not None and wanted.looks_twice


def pool_state(
    pixels: np.ndarray, embeddings: np.ndarray, count: int, config: RankingConfig, version: int
) -> PoolState:
    """What a strategy is told of the project; its random numbers depend on seed and version."""
    rng = np.random.default_rng([config.seed, version])
    progress = min(1.0, version / EXPECTED_ROUNDS)
    return PoolState(pixels, embeddings, count, rng, progress=progress)


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
    segmenter = load_segmenter(
        store, project, version, config.spec, seed=config.seed, device=config.device
    )
    described = describe_image(segmenter, content, config, looks_twice(project, config))
    features = described.features
    choice = strategy_for(project, version, labels, config)
    state = pool_state(
        labelled_pixels(labels, len(project.classes)),
        features.embeddings[:0],
        len(features),
        config,
        version.number if version else 0,
    )
    # one image is no pool to look at, and a policy that did not rank the pool is not trusted
    is_trusted = version is not None and version.strategy == choice.strategy.name
    if isinstance(choice.strategy, RalisPolicy) or (is_learned(choice.strategy) and not is_trusted):
        choice = Choice(strategy(FALLBACK))
    scores = choice.strategy.scores(state, features)
    is_trained = version is not None and version.weights_key is not None
    reasons = [
        choice.strategy.reason(state, features, index, project.class_names)
        for index in range(len(scores))
    ]
    chosen = choice.strategy
    return RankedImage(
        described.image_size,
        scores,
        chosen.is_pointwise and version is not None and version.strategy == chosen.name,
        reasons,
        described.mask if is_trained else None,
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
