"""Images and a version of the segmenter -> how useful each region is, and why.

The worker ranks the whole pool once per version, the learner an image that came since. A strategy
says what it needs, and nothing else is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ralis_backend.core import features as region_features
from ralis_backend.core import policy
from ralis_backend.core.acquisition import STRATEGIES, Needs, PoolState, Strategy
from ralis_backend.core.acquisition.selection import occurrence
from ralis_backend.core.features import RegionFeatures, concat
from ralis_backend.core.images import content_of, decode_image
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.core.text import storable
from ralis_backend.online.choosing import ChosenStrategy, RankingConfig, fallback, strategy_for
from ralis_backend.online.seeking import Seeking
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Version

logger = logging.getLogger(__name__)

ALONE = "alone_quantiles"
"""Of a version's metrics: quantiles of what regions of the ranked pool are worth by themselves."""
EXPECTED_ROUNDS = 20
"""How many rounds a project is thought to take, for strategies that change on the way."""
MAX_EXPLAINED = 10_000
"""The best of a pool that get a reason, besides the best of each image: more are not handed out
before the next version ranks."""
_REGIONS_AT_ONCE = 65_536


@dataclass(frozen=True)
class RankedImage:
    """One image's regions in the order of the grid: scores (R,), reasons, predicted mask (H, W).

    pool_scores: quantiles of the ranked pool that the scores compare with; None: with nothing.
    """

    image_size: tuple[int, int]
    scores: np.ndarray
    pool_scores: Sequence[float] | None
    reasons: list[str]
    mask: np.ndarray | None


@dataclass(frozen=True)
class DescribedImage:
    """One image after its forward pass: features of its R regions and the predicted mask.

    content: tells its pixels from others'.
    """

    image_size: tuple[int, int]
    features: RegionFeatures
    mask: np.ndarray
    content: str


@dataclass(frozen=True)
class DescribedPool:
    """A project's described images.

    features: of all R regions. image_sizes: how many of them each image has, in their order.
    is_done: (R,) whether a region is wholly labelled or skipped.
    """

    features: RegionFeatures
    image_sizes: Sequence[int]
    is_done: np.ndarray

    @property
    def candidates(self) -> np.ndarray:
        """(N,) indices of the regions that can still be suggested."""
        return np.flatnonzero(~self.is_done)

    @property
    def image_index(self) -> np.ndarray:
        """(R,) which image each region lies in."""
        return np.repeat(np.arange(len(self.image_sizes)), self.image_sizes)

    def state_set(self, num_regions: int) -> RegionFeatures:
        """Regions of whole images that together look like the pool; no label is needed."""
        starts = np.cumsum([0, *self.image_sizes])
        rows = [np.arange(*pair) for pair in pairwise(starts)]
        means = np.stack([self.features.embeddings[each].mean(axis=0) for each in rows])
        count = num_regions // max(1, min(self.image_sizes)) + 1
        chosen = policy.state_images(means, count)
        return concat([self.features.take(rows[image]) for image in chosen])


def describe_image(
    segmenter: Segmenter, image: np.ndarray, config: RankingConfig, needs: Needs
) -> DescribedImage:
    """One look at an image, for what `needs`.

    Args:
        segmenter: that looks.
        image: (H, W, 3) uint8, as the project's pictures are shown.
        config: how regions are cut.
        needs: what is described.

    Raises:
        ValueError: if what the segmenter says of it is not finite.
        Exception: what the segmenter raises.
    """
    size = (image.shape[0], image.shape[1])
    parts = segmenter.parts(image, needs.maps)
    regions = grid(size, config.region_size)
    features, mask = region_features.describe_parts(parts, size, regions, needs.features)
    for name in features:
        if not np.isfinite(features[name]).all():
            raise ValueError(
                f"the segmenter's {name} of this image is not finite; use an earlier version"
            )
    return DescribedImage(size, features, mask, content_of(image))


def score_pool(
    project: Project,
    chosen: ChosenStrategy,
    state: PoolState,
    pool: DescribedPool,
    config: RankingConfig,
) -> tuple[np.ndarray, ChosenStrategy]:
    """(N,) scores of the pool's candidates, and the strategy that gave them."""
    needs, name = chosen.strategy.needs, chosen.strategy.name
    if len(pool.features) < needs.state_regions:
        chosen = fallback(
            project,
            chosen.offers,
            f"policy {name} looks at a state set of {needs.state_regions} regions; the project has "
            f"{len(pool.features)} in all: add images, or choose another strategy",
        )
    elif needs.state_regions:
        state = replace(state, state_set=pool.state_set(needs.state_regions))
    if needs.has_unlabelled_pool:
        counts = pool.features.class_counts[pool.candidates]
        state = replace(state, unlabelled_counts=counts)
    if chosen.strategy.needs.pool_size and config.policy_pool == "training":
        offered = pool.features.select(pool.candidates)
        return scores_from_pools(chosen.strategy, state, offered), chosen
    return scores_of(chosen.strategy, state, pool.features, pool.candidates), chosen


def scores_of(
    chooser: Strategy, state: PoolState, features: RegionFeatures, index: np.ndarray
) -> np.ndarray:
    """(N,) float32 scores of the regions `index`.

    `ValueError` where the strategy gives something else. Block by block where it looks at each
    region alone: memory is bounded, and between two blocks `state.stop` is called.
    """
    if not chooser.is_pointwise:
        return values_of(chooser.scores(state, features.select(index)), len(index))
    scores = np.zeros(len(index), np.float32)
    for start in range(0, len(index), _REGIONS_AT_ONCE):
        part = np.arange(start, min(start + _REGIONS_AT_ONCE, len(index)))
        found = chooser.scores(state.part(part), features.take(index[part]))
        scores[part] = values_of(found, len(part))
        state.stop()
    return scores


def finite(scores: np.ndarray) -> np.ndarray:
    """The same with the lowest score in place of NaN and infinity; `ValueError` if all are."""
    is_finite = np.isfinite(scores)
    if is_finite.all():
        return scores
    if not is_finite.any():
        raise ValueError("none of its scores is finite")
    logger.warning("%d of %d scores are not finite", (~is_finite).sum(), len(scores))
    lowest: np.ndarray = np.where(is_finite, scores, scores[is_finite].min())
    return lowest


def values_of(given: object, count: int) -> np.ndarray:
    """(count,) float32: what a strategy says of so many regions; `ValueError` if it is not that."""
    values = np.asarray(given)
    if values.shape != (count,):
        raise ValueError(f"it gave an array of shape {values.shape}, expected ({count},)")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"it gave values of type {values.dtype}, expected real numbers")
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def worths(worth: np.ndarray, count: int) -> np.ndarray:
    """What a strategy says that regions are worth alone, (count,); `ValueError` if it is not."""
    worth = values_of(worth, count)
    if not np.isfinite(worth).all():
        raise ValueError("it gave values that are not finite")
    return worth


def scores_from_pools(chooser: Strategy, state: PoolState, actions: RegionFeatures) -> np.ndarray:
    """(R,) float32: as in training, the best of each of `state.count` random pools come first.

    The pools also stand for the unlabelled set. Where there are too few regions for pools of
    the size in training, they are smaller.
    """
    num_pools = min(state.count, len(actions))
    if num_pools == 0:
        return np.zeros(0, np.float32)
    pool_size = min(chooser.needs.pool_size, len(actions) // num_pools)
    drawn = state.rng.choice(len(actions), num_pools * pool_size, replace=False)
    asked = replace(state, unlabelled_counts=actions.class_counts[drawn])
    scores = values_of(chooser.scores(asked, actions), len(actions)).copy()
    pools = drawn.reshape(num_pools, pool_size)
    picked = pools[np.arange(num_pools), scores[pools].argmax(axis=1)]
    scores[picked] += scores.max() - scores.min() + 1
    return scores


def to_explain(scores: np.ndarray, image_index: np.ndarray, per_image: int) -> np.ndarray:
    """Which regions get a reason: those that may be handed out under this ranking.

    Args:
        scores: (N,) of the candidates.
        image_index: (N,) the image of each.
        per_image: best regions of each image.

    Returns:
        Indices into `scores`: the best `per_image` of each image, and the best `MAX_EXPLAINED`.
    """
    order = np.argsort(-scores, kind="stable")
    is_best_of_image = occurrence(image_index[order]) < per_image
    is_best = np.arange(len(order)) < MAX_EXPLAINED
    return np.sort(order[is_best | is_best_of_image])


def reasons_of(
    chooser: ChosenStrategy | Seeking,
    state: PoolState,
    regions: RegionFeatures,
    project: Project,
) -> list[str]:
    """Why each of these regions is worth labelling; a strategy that cannot say it still ranks."""
    try:
        reasons = list(chooser.reasons(state, regions, project.class_names))
        if len(reasons) != len(regions):
            raise ValueError(f"it gave {len(reasons)} for {len(regions)} regions")
        return [storable(str(reason)) for reason in reasons]
    except Exception as error:
        name = "nobody" if chooser.strategy is None else chooser.strategy.name
        logger.warning("project %s: %s gives no reasons: %s", project.tool_id, name, error)
        return [f"chosen by {name}"] * len(regions)


def pool_state(
    project: Project,
    pixels: np.ndarray,
    embeddings: np.ndarray | None,
    count: int,
    config: RankingConfig,
    version: int,
    stop: Callable[[], None] = lambda: None,
) -> PoolState:
    """What a strategy is told of the project; its random numbers depend on seed and version."""
    rng = np.random.default_rng([config.seed, version])
    progress = min(1.0, version / EXPECTED_ROUNDS)
    return PoolState(
        pixels,
        embeddings,
        count,
        rng,
        progress=progress,
        background=project.background_class,
        removed_classes=project.removed_classes,
        stop=stop,
    )


def rank_image(
    store: Store,
    project: Project,
    version: Version | None,
    content: bytes,
    config: RankingConfig,
    labelled: np.ndarray,
    learned: np.ndarray,
    decode: Callable[[bytes], np.ndarray] = decode_image,
) -> RankedImage:
    """Rank one image on the spot, without the rest of the pool.

    Args:
        store: where the segmenter's weights lie.
        project: gives the classes and the strategy.
        version: of the segmenter; None before the first. The nearest usable one before it ranks
            where its weights are missing or damaged.
        content: the image file.
        config: how regions are cut and ranked.
        labelled: (L, C + 1) pixels of each class in the project's labelled regions, void last.
        learned: (C,) of those that the version has learned from.
        decode: file -> (H, W, 3) uint8, as the project's pictures are shown.
    """
    usable = load_segmenter(
        store, project, version, config.spec, seed=config.seed, device=config.device
    )
    segmenter, version = usable.segmenter, usable.version
    wanted = strategy_for(project, version, learned, config, segmenter.offers)
    chosen = _without_pool(wanted, version)
    described = describe_image(segmenter, decode(content), config, chosen.described)
    features, needs = described.features, chosen.strategy.needs
    state = pool_state(
        project,
        labelled,
        features.embeddings[:0] if "embeddings" in needs.features else None,
        len(features),
        config,
        version.number if version else 0,
    )
    is_trained = version is not None and version.weights_key is not None
    strategy, pool_scores = chosen.strategy, None
    if version is not None and version.strategy == strategy.name:
        pool_scores = version.metrics.get("score_quantiles" if strategy.is_pointwise else ALONE)
    scores = None if pool_scores is None else _alone(strategy, state, features)
    return RankedImage(
        described.image_size,
        values_of(strategy.scores(state, features), len(features)) if scores is None else scores,
        None if scores is None else pool_scores,
        reasons_of(chosen, state, features, project),
        described.mask if is_trained else None,
    )


def _alone(strategy: Strategy, state: PoolState, features: RegionFeatures) -> np.ndarray | None:
    """(R,) what regions are worth alone; None where the strategy does not say it, or breaks."""
    try:
        found = strategy.alone(state, features)
        return None if found is None else worths(found, len(features))
    except Exception as error:
        logger.warning("%s does not say what regions are worth alone: %s", strategy.name, error)
        return None


def _without_pool(chosen: ChosenStrategy, version: Version | None) -> ChosenStrategy:
    """What ranks one image: a policy that looks at a pool cannot, nor one that is not trusted.

    Where the trust gate gave the ranking to another, that one ranks what comes later, too.
    """
    chooser = chosen.strategy
    ranked_by = "" if version is None else version.strategy or ""
    tested = (version.metrics.get("trust") if version else None) or {}
    if tested.get("policy") == chooser.name and ranked_by in STRATEGIES:
        return ChosenStrategy(STRATEGIES[ranked_by], offers=chosen.offers)
    is_trusted = version is not None and version.strategy == chooser.name
    looks_at_pool = chooser.needs.state_regions or chooser.needs.has_unlabelled_pool
    if looks_at_pool or (chooser.is_trained and not is_trusted):
        return ChosenStrategy(chosen.heuristic, offers=chosen.offers)
    return chosen


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
