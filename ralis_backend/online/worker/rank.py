"""A version of the segmenter -> the ranking of the whole pool."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ralis_backend.core.acquisition import Places, PoolState, Strategy
from ralis_backend.core.features import RegionFeatures, concat
from ralis_backend.core.policy.registry import is_learned
from ralis_backend.core.regions import grid, is_labelled
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.ranking import (
    Choice,
    Pool,
    describe_image,
    fallback,
    labelled_pixels,
    looks_twice,
    pool_state,
    score_pool,
    strategy_for,
)
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import ProjectStore, RegionLabel, now
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.suggesting import covered, labels_by_image
from ralis_backend.online.tool import Tool, ToolUnavailable
from ralis_backend.online.trust import judge
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.sync import tool_task
from ralis_backend.online.worker.train import Stopped

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Described:
    """One image of the pool after its forward pass; the predicted mask lies in the store."""

    image: Image
    size: tuple[int, int]
    features: RegionFeatures
    mask_key: str | None


def _earned(project: Project, choice: Choice, trust: Mapping[str, Any]) -> Choice:
    """The policy where it is trusted, else the best heuristic and why."""
    if trust["verdict"] == "trusted":
        return choice
    name = choice.strategy.name
    return fallback(
        project,
        f"policy {name}, {trust['verdict']}: {trust['note']}",
        f"in place of {name}: {trust['verdict']}",
    )


class Ranker:
    """Ranks one project's pool under one version."""

    def __init__(self, store: ProjectStore, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config

    def rank(
        self,
        project: Project,
        version: Version,
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """One forward pass per image, then one score per region; stored by image.

        An image that cannot be read is left out and noted with its row; the others are ranked.

        Raises:
            Stopped: if it was asked to stop.
            ToolUnavailable: if the tool does not answer; trying again later may help.
        """
        started = time.monotonic()
        images = self._store.images(project.id)
        pool = self._describe(project, version, images, report, should_stop)
        metrics = self._score(project, version, pool, report, should_stop) if pool else {}
        seconds = round(time.monotonic() - started, 2)
        metrics["seconds"] = {**version.metrics.get("seconds", {}), "rank": seconds}
        self._store.change_version(version.id, ranked_at=now(), metrics=metrics)
        logger.info(
            "project %s: %s ranked %d of %d images in %.0f s",
            project.uid,
            version.name,
            len(pool),
            len(images),
            seconds,
        )

    def _describe(
        self,
        project: Project,
        version: Version,
        images: Sequence[Image],
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> list[_Described]:
        ranking = self._config.ranking
        segmenter = load_segmenter(
            self._store, project, version, ranking.spec, seed=ranking.seed, device=ranking.device
        )
        pool = []
        for index, image in enumerate(images, start=1):
            if should_stop():
                raise Stopped(f"ranking of project {project.uid} was interrupted")
            described = self._describe_one(project, version, image, segmenter)
            if described is not None:
                pool.append(described)
            percent = round(100 * index / len(images), 1)
            report({"state": "ranking", "ranked_version": version.name, "percent": percent})
        return pool

    def _describe_one(
        self, project: Project, version: Version, image: Image, segmenter: Segmenter
    ) -> _Described | None:
        try:
            content = self._tool.image(tool_task(image))
            config = self._config.ranking
            result = describe_image(segmenter, content, config, looks_twice(project, config))
        except ToolUnavailable:
            raise
        except Exception as error:
            # A bad image is left out; the operator finds why in log, doctor and report.
            logger.warning("project %s, task %s: %s", project.uid, image.task_id, error)
            self._store.change_image(image.id, error=str(error))
            return None
        if image.size != result.image_size or image.error is not None:
            height, width = result.image_size
            self._store.change_image(image.id, height=height, width=width, error=None)
        mask_key = None
        if version.weights_key is not None:  # an untrained segmenter's mask would only mislead
            mask_key = self._store.put_predicted_mask(version, image.id, result.mask)
        return _Described(image, result.image_size, result.features, mask_key)

    def _score(
        self,
        project: Project,
        version: Version,
        pool: Sequence[_Described],
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> dict[str, Any]:
        config = self._config.ranking
        labels = self._store.labels(project.id)
        is_done = self._is_done(pool, labels_by_image(labels))  # (R,) over the whole pool
        features = concat([described.features for described in pool])
        candidates = np.flatnonzero(~is_done)
        choice = strategy_for(project, version, labels, config)
        scores = np.zeros(len(is_done), np.float32)
        reasons = [""] * len(is_done)
        trust = None
        if len(candidates):
            state = pool_state(
                labelled_pixels(labels, len(project.classes)),
                features.embeddings[is_done],
                2 * config.regions_per_round,
                config,
                version.number,
            )
            places = self._places(pool)
            state = replace(
                state, places=places.take(candidates), labelled_places=places.take(is_done)
            )
            offered = features.take(candidates)
            sizes = [len(described.features) for described in pool]
            if is_learned(choice.strategy) and self._config.trust_rounds:
                report({"state": "testing the policy"})
                trust = self._trust(project, choice.strategy, state, offered, should_stop)
                choice = _earned(project, choice, trust)
            offered_scores, choice = score_pool(
                project, choice, state, Pool(features, sizes, is_done), config
            )
            scores[is_done] = offered_scores.min() - 1
            scores[candidates] = offered_scores
            for position, index in enumerate(candidates):
                reasons[index] = choice.reason(state, offered, position, project.class_names)
        start = 0
        for described in pool:
            part = slice(start, start + len(described.features))
            self._store.put_ranking(
                version, described.image.id, scores[part], reasons[part], described.mask_key
            )
            start = part.stop
        self._store.change_version(version.id, strategy=choice.strategy.name)
        said = {"strategy_note": choice.note, "trust": trust}
        # None only where an earlier ranking of this version said something
        metrics: dict[str, Any] = {
            name: value for name, value in said.items() if value or name in version.metrics
        }
        if len(candidates):
            quantiles = np.quantile(scores[candidates], np.linspace(0, 1, 101))
            metrics["score_quantiles"] = [round(float(value), 5) for value in quantiles]
        return metrics

    def _trust(
        self,
        project: Project,
        policy: Strategy,
        state: PoolState,
        candidates: RegionFeatures,
        should_stop: Callable[[], bool],
    ) -> dict[str, Any]:
        """The standing verdict on a policy, or a new one where enough was labelled since."""
        num_labels = self._store.count_labels(project.id)
        standing: list[dict[str, Any]] = [
            entry
            for version in self._store.versions(project.id)
            if (entry := version.metrics.get("trust")) and entry["policy"] == policy.name
        ]
        period = self._config.trust_rounds * self._config.ranking.regions_per_round
        last = max(standing, key=lambda entry: int(entry["labels"]), default=None)
        is_decided = last is not None and last["verdict"] in ("trusted", "not trusted")
        if last is not None and is_decided and num_labels < last["labels"] + period:
            return last

        def stop() -> None:
            if should_stop():
                raise Stopped(f"ranking of project {project.uid} was interrupted")

        logger.info("project %s: policy %s is tested on the labels", project.uid, policy.name)
        entry = judge(
            self._store,
            self._tool.image,
            project,
            policy,
            state,
            candidates,
            self._config.ranking,
            self._config.replay,
            stop,
        )
        return {**entry, "labels": num_labels}

    def _places(self, pool: Sequence[_Described]) -> Places:
        centers = [
            (image, *region.center_in_regions)
            for image, described in enumerate(pool)
            for region in grid(described.size, self._config.ranking.region_size)
        ]
        table = np.array(centers, np.float32)
        return Places(table[:, 0].astype(np.int64), table[:, 1:])

    def _is_done(
        self, pool: Sequence[_Described], labels: Mapping[int, Sequence[RegionLabel]]
    ) -> np.ndarray:
        """Which regions of the pool are wholly labelled or skipped, (R,) bool."""
        return np.array(
            [
                is_labelled(mask, region)
                for described in pool
                for mask in [covered(described.size, labels.get(described.image.id, []))]
                for region in grid(described.size, self._config.ranking.region_size)
            ],
            bool,
        )
