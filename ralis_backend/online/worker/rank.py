"""A version of the segmenter -> the ranking of the whole pool: describe, score, explain, store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ralis_backend.core.acquisition import Places, PoolState, Strategy, strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.regions import grid, is_labelled
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.choosing import ChosenStrategy, fallback, strategy_for
from ralis_backend.online.labels import RegionLabel, covered, labelled_pixels, labels_by_image
from ralis_backend.online.pictures import Pictures
from ralis_backend.online.ranking import (
    DescribedPool,
    describe_image,
    pool_state,
    score_pool,
    to_explain,
)
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.tool import Tool
from ralis_backend.online.trust import judge
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import check_size
from ralis_backend.online.worker.spool import FeatureSpool
from ralis_backend.online.worker.sync import NOT_ITS_FAULT, attempt_on, tool_task
from ralis_backend.online.worker.train import Stopped
from ralis_backend.online.worker.weights import usable_segmenter

logger = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class _Described:
    """One image after its forward pass: features are in the spool, the mask in the store."""

    image: Image
    size: tuple[int, int]
    num_regions: int
    mask_key: str | None


@dataclass(frozen=True)
class _Scored:
    """A pool's ranking: (R,) scores, reasons of those that may be handed out, who ranked.

    trust: the verdict on the wanted policy, if it is one.
    """

    scores: np.ndarray
    reasons: Mapping[int, str]
    chosen: ChosenStrategy
    trust: Mapping[str, Any] | None = None


def _earned(project: Project, chosen: ChosenStrategy, trust: Mapping[str, Any]) -> ChosenStrategy:
    """The policy where it is trusted, else the best heuristic and why."""
    if trust["verdict"] == "trusted":
        return chosen
    name = chosen.strategy.name
    return fallback(
        project,
        chosen.offers,
        f"policy {name}, {trust['verdict']}: {trust['note']}",
        f"in place of {name}: {trust['verdict']}",
    )


class Ranker:
    """Ranks one project's pool under one version."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config

    def rank(
        self,
        project: Project,
        version: Version,
        report: Report,
        should_stop: Callable[[], bool],
    ) -> None:
        """One look at each image, then one score per region; stored by image.

        An image that cannot be read is left out and noted with its row; the others are ranked.

        Raises:
            Stopped: if it was asked to stop.
            ToolUnavailable: if the tool does not answer; trying again later may help.
        """

        def stop() -> None:
            if should_stop():
                raise Stopped(f"ranking of project {project.uid} was interrupted")

        started = time.monotonic()
        ranking = self._config.ranking
        usable = usable_segmenter(self._store, project, version, ranking)
        if usable.damage:  # another version is in use now; what is due for it comes next
            return
        segmenter = usable.segmenter
        images = self._store.images.of(project.id)
        labels = self._store.labels.of(project.id)
        chosen = strategy_for(project, version, labels, ranking, segmenter.offers)
        metrics: dict[str, Any] = {}
        with FeatureSpool(self._store.blobs.root / "spool" / str(project.id)) as spool:
            described = self._describe(
                project, version, images, labels, segmenter, chosen, spool, report, stop
            )
            if described:
                pool = self._pool(described, spool.features(), labels)
                scored = self._score(
                    project, version, pool, self._places(described), labels, chosen, report, stop
                )
                self._keep(version, described, scored)
                metrics = _metrics(version, scored, pool.candidates)
        seconds = round(time.monotonic() - started, 2)
        metrics["seconds"] = {**version.metrics.get("seconds", {}), "rank": seconds}
        self._store.versions.change(version.id, ranked_at=now(), metrics=metrics)
        logger.info(
            "project %s: %s ranked %d of %d images in %.0f s",
            project.uid,
            version.name,
            len(described),
            len(images),
            seconds,
        )

    # Describe

    def _describe(
        self,
        project: Project,
        version: Version,
        images: Sequence[Image],
        labels: Sequence[RegionLabel],
        segmenter: Segmenter,
        chosen: ChosenStrategy,
        spool: FeatureSpool,
        report: Report,
        stop: Callable[[], None],
    ) -> list[_Described]:
        pool = []
        painted = {label.image_id for label in labels if not label.is_skipped}
        for index, image in enumerate(images, start=1):
            stop()
            if not image.may_be_tried(now()):
                continue
            size = image.size if image.id in painted else None
            described = self._describe_one(project, version, image, size, segmenter, chosen, spool)
            if described is not None:
                pool.append(described)
            percent = round(100 * index / len(images), 1)
            report({"state": "ranking", "ranked_version": version.name, "percent": percent})
        return pool

    def _describe_one(
        self,
        project: Project,
        version: Version,
        image: Image,
        size_of_labels: tuple[int, int] | None,
        segmenter: Segmenter,
        chosen: ChosenStrategy,
        spool: FeatureSpool,
    ) -> _Described | None:
        try:
            with self._store.attempts.trying(*attempt_on(image)):
                content = self._tool.image(tool_task(image))
                result = describe_image(
                    segmenter,
                    content,
                    self._config.ranking,
                    chosen.described,
                    Pictures(self._store, project, self._tool.image).decode,
                )
            if size_of_labels is not None:
                check_size(result.image_size, size_of_labels)
        except NOT_ITS_FAULT:
            raise
        except Exception as error:
            # A bad image is left out; the operator finds why in log, doctor and report.
            logger.warning("project %s, task %s: %s", project.uid, image.task_id, error)
            self._store.images.fail(image.id, str(error))
            return None
        spool.append(result.features)
        if image.size != result.image_size or image.error is not None:
            self._store.images.seen(image.id, result.image_size)
        mask_key = None
        if version.weights_key is not None:  # an untrained segmenter's mask would only mislead
            mask_key = self._store.rankings.put_mask(version, image.id, result.mask)
        return _Described(image, result.image_size, len(result.features), mask_key)

    def _pool(
        self, pool: Sequence[_Described], features: RegionFeatures, labels: Sequence[RegionLabel]
    ) -> DescribedPool:
        by_image = labels_by_image(labels)
        is_done = [
            is_labelled(mask, region)
            for described in pool
            for mask in [covered(described.size, by_image.get(described.image.id, []))]
            for region in grid(described.size, self._config.ranking.region_size)
        ]
        sizes = [described.num_regions for described in pool]
        return DescribedPool(features, sizes, np.array(is_done, bool))

    def _places(self, pool: Sequence[_Described]) -> Places:
        centers = [
            np.array([region.center_in_regions for region in regions], np.float32)
            for described in pool
            for regions in [grid(described.size, self._config.ranking.region_size)]
        ]
        index = np.repeat(np.arange(len(pool)), [described.num_regions for described in pool])
        return Places(index, np.concatenate(centers))

    # Score and explain

    def _score(
        self,
        project: Project,
        version: Version,
        pool: DescribedPool,
        places: Places,
        labels: Sequence[RegionLabel],
        chosen: ChosenStrategy,
        report: Report,
        stop: Callable[[], None],
    ) -> _Scored:
        config, candidates = self._config.ranking, pool.candidates
        scores = np.zeros(len(pool.is_done), np.float32)
        if not len(candidates):
            return _Scored(scores, {}, chosen)
        needs_embeddings = "embeddings" in chosen.described.features
        state = pool_state(
            labelled_pixels(labels, len(project.classes)),
            pool.features.embeddings[pool.is_done] if needs_embeddings else None,
            2 * config.regions_per_round,
            config,
            version.number,
            stop,
        )
        state = replace(
            state, places=places.take(candidates), labelled_places=places.take(pool.is_done)
        )
        trust = None
        if chosen.strategy.is_trained and self._config.trust_rounds:
            report({"state": "testing the policy"})
            trust = self._trust(project, chosen.strategy, state, pool, stop)
            chosen = _earned(project, chosen, trust)
        offered_scores, chosen = self._scored(project, chosen, state, pool)
        scores[pool.is_done] = offered_scores.min() - 1
        scores[candidates] = offered_scores
        explained = to_explain(
            offered_scores, pool.image_index[candidates], self._config.suggestions_per_image
        )
        reasons = _reasons(
            chosen, state.part(explained), pool.features.take(candidates[explained]), project
        )
        by_region = dict(zip(candidates[explained].tolist(), reasons, strict=True))
        return _Scored(scores, by_region, chosen, trust)

    def _scored(
        self, project: Project, chosen: ChosenStrategy, state: PoolState, pool: DescribedPool
    ) -> tuple[np.ndarray, ChosenStrategy]:
        """(N,) finite scores; where the strategy breaks, those of one that can rank."""
        try:
            scores, scored_by = score_pool(project, chosen, state, pool, self._config.ranking)
            return finite(scores), scored_by
        except (Stopped, MemoryError):
            raise
        except Exception as error:
            note = f"strategy {chosen.strategy.name} failed: {error}"
            instead = fallback(project, chosen.offers, note)
            if not instead.strategy.needs.features.issubset(pool.features):
                instead = replace(instead, strategy=strategy("random"))
            scores, scored_by = score_pool(project, instead, state, pool, self._config.ranking)
            return finite(scores), scored_by

    def _trust(
        self,
        project: Project,
        policy: Strategy,
        state: PoolState,
        pool: DescribedPool,
        stop: Callable[[], None],
    ) -> dict[str, Any]:
        """The standing verdict on a policy, or a new one where enough was labelled since."""
        num_labels = self._store.labels.count(project.id)
        standing: list[dict[str, Any]] = [
            entry
            for version in self._store.versions.all(project.id)
            if (entry := version.metrics.get("trust")) and entry["policy"] == policy.name
        ]
        period = self._config.trust_rounds * self._config.ranking.regions_per_round
        last = max(standing, key=lambda entry: int(entry["labels"]), default=None)
        is_decided = last is not None and last["verdict"] in ("trusted", "not trusted")
        if last is not None and is_decided and num_labels < last["labels"] + period:
            return last
        logger.info("project %s: policy %s is tested on the labels", project.uid, policy.name)
        entry = judge(
            self._store,
            self._tool.image,
            project,
            policy,
            state,
            pool.features.select(pool.candidates),
            self._config.ranking,
            self._config.replay,
            stop,
        )
        return {**entry, "labels": num_labels}

    # Store

    def _keep(self, version: Version, pool: Sequence[_Described], scored: _Scored) -> None:
        start = 0
        for described in pool:
            stop = start + described.num_regions
            reasons = [scored.reasons.get(index, "") for index in range(start, stop)]
            self._store.rankings.put(
                version,
                described.image.id,
                scored.scores[start:stop],
                reasons,
                described.mask_key,
            )
            start = stop
        self._store.versions.change(version.id, strategy=scored.chosen.strategy.name)


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


def _reasons(
    chosen: ChosenStrategy, state: PoolState, regions: RegionFeatures, project: Project
) -> list[str]:
    """Why each of these regions is worth labelling; a strategy that cannot say it still ranks."""
    try:
        return chosen.reasons(state, regions, project.class_names)
    except Exception as error:
        name = chosen.strategy.name
        logger.warning("project %s: %s gives no reasons: %s", project.uid, name, error)
        return [f"chosen by {name}"] * len(regions)


def _metrics(version: Version, scored: _Scored, candidates: np.ndarray) -> dict[str, Any]:
    """What is kept with the version; None only where an earlier ranking of it said something."""
    said = {"strategy_note": scored.chosen.note, "trust": scored.trust}
    metrics: dict[str, Any] = {
        name: value for name, value in said.items() if value or name in version.metrics
    }
    if len(candidates):
        quantiles = np.quantile(scored.scores[candidates], np.linspace(0, 1, 101))
        metrics["score_quantiles"] = [round(float(value), 5) for value in quantiles]
    return metrics
