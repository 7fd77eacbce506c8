"""A version of the segmenter -> the ranking of the whole pool: describe, score, explain, store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from ralis_backend.core.acquisition import Places, PoolState, Strategy, strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.machine import is_accelerator_lost, is_of_machine
from ralis_backend.core.policy.registry import policy_digest
from ralis_backend.core.regions import grid, is_labelled
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.core.text import reason_of, storable
from ralis_backend.online.choosing import FALLBACK, ChosenStrategy, fallback, strategy_for
from ralis_backend.online.hits import MINING, followed
from ralis_backend.online.labels import RegionLabel, covered, labelled_pixels
from ralis_backend.online.learned import learned_pixels
from ralis_backend.online.pictures import Pictures, check_size
from ralis_backend.online.ranking import (
    ALONE,
    DescribedPool,
    describe_image,
    finite,
    pool_state,
    reasons_of,
    score_pool,
    to_explain,
    worths,
)
from ralis_backend.online.same_pictures import SamePictures
from ralis_backend.online.seeking import Seeking, seek
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.attempts import REST
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.tool import Tool
from ralis_backend.online.trust import judge, judge_formula, may_be_refused, standing_verdict
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.described import DescribedRow
from ralis_backend.online.worker.search import Mined, Search, known_of, nothing_found
from ralis_backend.online.worker.spool import FeatureSpool
from ralis_backend.online.worker.sync import NOT_ITS_FAULT, attempt_on, tool_task
from ralis_backend.online.worker.train import Stopped
from ralis_backend.online.worker.weights import usable_segmenter

logger = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]

USED_UP = "used_up"
"""Of a version's metrics: that its ranking found no open region."""


MOST_IN_A_ROW = 3
"""So many images that the segmenter fails on may be to blame themselves."""
MOST_RESTS = 10
"""So often a ranking rests for so many, 25 minutes in all; then it goes on without them."""
MOST_AT_FIRST = 100
"""Then, too, it rests if it could describe none of so many: it would go through the whole pool."""


class _SegmenterFails(Exception):
    """It does, on an image that was read: that image, the segmenter or the machine is at fault.

    Its traceback holds the image and all that the segmenter has made of it: not to be kept.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(reason_of(error))
        self.is_of_machine = is_of_machine(error)


@dataclass(frozen=True)
class _Failed:
    """An image on which the segmenter fails, and why."""

    image: Image
    why: str
    is_of_machine: bool


@dataclass(frozen=True)
class _Scored:
    """A pool's ranking: (R,) scores, reasons of those that may be handed out, who ranked.

    trust: the verdict on the wanted strategy, if it was tested.
    manner: what it looks for now, in words. alone: what (N,) candidates are worth by themselves,
        with which images compare that come later; None: as their scores, or nothing to compare.
    mined: the same of the class that is sought; None: none is.
    """

    scores: np.ndarray
    reasons: Mapping[int, str]
    chosen: ChosenStrategy
    trust: Mapping[str, Any] | None = None
    manner: str | None = None
    alone: np.ndarray | None = None
    mined: Mined | None = None


def _earned(project: Project, chosen: ChosenStrategy, trust: Mapping[str, Any]) -> ChosenStrategy:
    """A strategy that may rank, else the best one that may and why.

    A trained policy must be trusted; a formula may rank as long as it is not refused.
    """
    name, verdict = chosen.strategy.name, trust["verdict"]
    if verdict == "trusted" or (verdict != "not trusted" and not chosen.strategy.is_trained):
        return chosen
    kind = "policy" if chosen.strategy.is_trained else "strategy"
    note = f"{kind} {name}, {verdict}: {trust['note']}"
    return fallback(
        project,
        chosen.offers,
        note if chosen.note is None else f"{chosen.note}; {note}",
        f"in place of {name}: {verdict}",
        trust.get("instead", FALLBACK),
    )


class Ranker:
    """Ranks one project's pool under one version."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store = store
        self._tool = tool
        self._config = config
        self._search = Search(store, tool, config)

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
            RuntimeError: if the segmenter or the machine fails, whatever the image.
            ValueError: if none can be read, as while a host is down: what was published stays.
            ToolUnavailable: if the tool does not answer; trying again later may help.
        """

        def stop() -> None:
            if should_stop():
                raise Stopped(f"ranking of project {project.tool_id} was interrupted")

        started = time.monotonic()
        ranking = self._config.ranking
        usable = usable_segmenter(self._store, project, version, ranking)
        if usable.damage:  # another version is in use now; what is due for it comes next
            return
        segmenter = usable.segmenter
        images = self._store.images.of(project.id)
        labels = self._store.labels.of(project.id)
        learned = learned_pixels(self._store, project, version, labels)
        chosen = strategy_for(project, version, learned, ranking, segmenter.offers)
        trust = None
        if self._config.trust_rounds and may_be_refused(version, chosen.strategy):
            report({"state": "testing the strategy"})
            trust = self._trust(project, chosen.strategy, stop)
            chosen = _earned(project, chosen, trust)
        seeking = self._seeking(project, version, labels, learned, segmenter)
        chosen = replace(chosen, beside=seeking.features if seeking else frozenset())
        metrics: dict[str, Any] = {}
        is_used_up = True
        with FeatureSpool(self._store.blobs.root / "spool" / str(project.id)) as spool:
            described = self._describe(
                project, version, images, labels, segmenter, chosen, spool, report, stop
            )
            if images and not described and project.published_version is not None:
                raise ValueError(
                    f"none of {len(images)} images can be read; `ralis doctor --project "
                    f"{project.tool_id}` says why"
                )
            if described:
                pool = self._pool(described, spool.features(), labels)
                state = self._state(project, version, described, pool, labels, stop)
                scored = self._score(project, pool, state, chosen, report, stop)
                scored = replace(scored, trust=scored.trust or trust)
                if seeking is not None:
                    state = self._search.state(project, seeking, described, pool, labels, state)
                    mined = self._search.mined(project, seeking, pool, state, report, stop)
                    known = known_of(project, seeking.wish, labels, described)
                    scored = replace(scored, mined=replace(mined, known=known))
                self._keep(version, described, scored)
                metrics = _metrics(version, scored, pool.candidates)
                is_used_up = not len(pool.candidates)
            elif seeking is not None:
                known = known_of(project, seeking.wish, labels, described)
                metrics[MINING] = replace(nothing_found(seeking), known=known).to_json()
        seconds = round(time.monotonic() - started, 2)
        if is_used_up or USED_UP in version.metrics:
            metrics[USED_UP] = is_used_up
        metrics["seconds"] = {**version.metrics.get("seconds", {}), "rank": seconds}
        self._store.versions.change(version.id, ranked_at=now(), metrics=metrics)
        logger.info(
            "project %s: %s ranked %d of %d images in %.0f s",
            project.tool_id,
            version.name,
            len(described),
            len(images),
            seconds,
        )

    def _seeking(
        self,
        project: Project,
        version: Version,
        labels: Sequence[RegionLabel],
        learned: np.ndarray,
        segmenter: Segmenter,
    ) -> Seeking | None:
        """Who looks for the class that is wished for; None without a wish, or while it rests."""
        wish = followed(self._store, project)
        if wish is None:
            return None
        ranking, offers = self._config.ranking, segmenter.offers
        return seek(project, version, wish, labels, learned, ranking, offers)

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
    ) -> list[DescribedRow]:
        """The images that can be read; one on which only the segmenter fails is left out as well.

        Raises:
            RuntimeError: if it is the segmenter, or the machine, that fails: none can be described,
                or so many in a row fail for want of memory, at first.
        """
        pool: list[DescribedRow] = []
        num_rests = self._store.attempts.count(project.id, REST, "rank")
        may_rest = num_rests < MOST_RESTS
        if not may_rest:  # those that it fails on may all be in front: otherwise at each try
            images = Random(f"{version.number} {num_rests}").sample(images, len(images))
        failed: list[_Failed] = []  # since the last one that was described
        painted = {label.image_id for label in labels if not label.is_skipped}
        for index, image in enumerate(images, start=1):
            stop()
            if not image.may_be_tried(now()):
                continue
            size = image.size if image.id in painted else None
            try:
                described = self._describe_one(
                    project, version, image, size, segmenter, chosen, spool
                )
            except _SegmenterFails as failure:
                failed.append(_Failed(image, str(failure), failure.is_of_machine))
                is_lost = is_accelerator_lost(failure)  # it would fail on all others
                if is_lost and not may_rest:
                    self._leave_out(project, failed[-1:])
                if is_lost or _is_of_step(failed, may_rest, is_first=not pool):
                    raise self._rest(project, version, failed) from failure
            else:
                if described is not None:
                    self._leave_out(project, failed)
                    failed = []
                    pool.append(described)
            percent = round(100 * index / len(images), 1)
            report({"state": "ranking", "ranked_version": version.name, "percent": percent})
        if failed and not pool:
            raise self._rest(project, version, failed)
        self._leave_out(project, failed)
        self._store.attempts.forget(project.id, REST)
        return pool

    def _rest(self, project: Project, version: Version, failed: Sequence[_Failed]) -> RuntimeError:
        """Count it; why no image is blamed for these."""
        self._store.attempts.begin(project.id, REST, "rank")
        tasks = ", ".join(str(each.image.task_id) for each in failed)
        return RuntimeError(
            f"{version.name} cannot look at images (task {tasks}): {failed[-1].why}"
        )

    def _describe_one(
        self,
        project: Project,
        version: Version,
        image: Image,
        size_of_labels: tuple[int, int] | None,
        segmenter: Segmenter,
        chosen: ChosenStrategy,
        spool: FeatureSpool,
    ) -> DescribedRow | None:
        """None of an image that cannot be read, which is noted.

        `_SegmenterFails` of one that can, but for which the segmenter fails.
        """
        try:
            with self._store.attempts.trying(*attempt_on(image)):
                pictures = Pictures(self._store, project, self._tool.image)
                pixels = pictures.pixels(tool_task(image))
                if size_of_labels is not None:
                    check_size(pixels.shape[:2], size_of_labels)
                try:
                    result = describe_image(
                        segmenter, pixels, self._config.ranking, chosen.described
                    )
                except Exception as error:
                    raise _SegmenterFails(error) from error
        except (*NOT_ITS_FAULT, _SegmenterFails):
            raise
        except Exception as error:
            self._note(project, image, error)
            return None
        spool.append(result.features)
        found = (result.image_size, result.content)
        if (image.size, image.content) != found or image.error is not None:
            self._store.images.seen(image.id, *found)
        if image.num_failures:
            self._store.images.change(image.id, num_failures=0)
        mask_key = None
        if version.weights_key is not None:  # an untrained segmenter's mask would only mislead
            mask_key = self._store.rankings.put_mask(version, image.id, result.mask)
        num_regions = len(result.features)
        return DescribedRow(image, result.image_size, num_regions, mask_key, result.content)

    def _leave_out(self, project: Project, failed: Sequence[_Failed]) -> None:
        """Note them with their images, since others were described."""
        for failure in failed:
            self._note(project, failure.image, RuntimeError(failure.why))

    def _note(self, project: Project, image: Image, error: Exception) -> None:
        """A bad image is left out; the operator finds why in log, doctor and report."""
        logger.warning("project %s, task %s: %s", project.tool_id, image.task_id, error)
        self._store.images.fail(image.id, error)

    def _pool(
        self, pool: Sequence[DescribedRow], features: RegionFeatures, labels: Sequence[RegionLabel]
    ) -> DescribedPool:
        shown = SamePictures.of({each.image.id: each.content for each in pool}, labels)
        # A double is not left out: what is done counts as labelled, and near it nothing is new.
        is_done = [
            is_labelled(mask, region)
            for described in pool
            for mask in [covered(described.size, shown.labels(described.image.id))]
            for region in grid(described.size, self._config.ranking.region_size)
        ]
        sizes = [described.num_regions for described in pool]
        return DescribedPool(features, sizes, np.array(is_done, bool))

    def _places(self, pool: Sequence[DescribedRow]) -> Places:
        centers = [
            np.array([region.center_in_regions for region in regions], np.float32)
            for described in pool
            for regions in [grid(described.size, self._config.ranking.region_size)]
        ]
        index = np.repeat(np.arange(len(pool)), [described.num_regions for described in pool])
        return Places(index, np.concatenate(centers))

    # Score and explain

    def _state(
        self,
        project: Project,
        version: Version,
        described: Sequence[DescribedRow],
        pool: DescribedPool,
        labels: Sequence[RegionLabel],
        stop: Callable[[], None],
    ) -> PoolState:
        """What every strategy is told of the project."""
        is_embedded = "embeddings" in pool.features
        places = self._places(described)
        state = pool_state(
            project,
            labelled_pixels(labels, len(project.classes), project.removed_classes),
            pool.features.embeddings[pool.is_done] if is_embedded else None,
            2 * self._config.ranking.regions_per_round,
            self._config.ranking,
            version.number,
            stop,
        )
        done = places.take(pool.is_done)
        return replace(state, places=places.take(pool.candidates), labelled_places=done)

    def _score(
        self,
        project: Project,
        pool: DescribedPool,
        state: PoolState,
        chosen: ChosenStrategy,
        report: Report,
        stop: Callable[[], None],
    ) -> _Scored:
        candidates = pool.candidates
        scores = np.zeros(len(pool.is_done), np.float32)
        if not len(candidates):
            return _Scored(scores, {}, chosen)
        trust = None
        if chosen.strategy.is_trained and self._config.trust_rounds:
            report({"state": "testing the policy"})
            trust = self._trust(project, chosen.strategy, stop, state, pool)
            chosen = _earned(project, chosen, trust)
        offered_scores, chosen = self._scored(project, chosen, state, pool)
        scores[pool.is_done] = offered_scores.min() - 1
        scores[candidates] = offered_scores
        explained = to_explain(
            offered_scores, pool.image_index[candidates], self._config.suggestions_per_image
        )
        reasons = reasons_of(
            chosen, state.part(explained), pool.features.take(candidates[explained]), project
        )
        by_region = dict(zip(candidates[explained].tolist(), reasons, strict=True))
        manner = _manner(chosen, state, pool)
        return _Scored(scores, by_region, chosen, trust, manner, _alone(chosen, state, pool))

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
        wanted: Strategy,
        stop: Callable[[], None],
        state: PoolState | None = None,
        pool: DescribedPool | None = None,
    ) -> dict[str, Any]:
        """The standing verdict on a strategy, or a new one where enough was labelled since.

        A trained policy is told of the project's state and pool.
        """
        num_labels = self._store.labels.count(project.id)
        verdicts = [it.metrics.get("trust") for it in self._store.versions.all(project.id)]
        digest = policy_digest(wanted.name, self._config.ranking.policies_dir)
        period = self._config.trust_period
        standing = standing_verdict(verdicts, wanted.name, num_labels, period, digest)
        if standing is not None:
            return standing
        logger.info("project %s: %s is tested on the labels", project.tool_id, wanted.name)
        place, config = (self._store, self._tool.image, project), self._config
        if state is None or pool is None:
            entry = judge_formula(*place, wanted, config.ranking, config.replay, stop)
        else:
            candidates = pool.features.select(pool.candidates)
            entry = judge(*place, wanted, state, candidates, config.ranking, config.replay, stop)
        return {**entry, "labels": num_labels}

    # Store

    def _keep(self, version: Version, pool: Sequence[DescribedRow], scored: _Scored) -> None:
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
                None if scored.mined is None else scored.mined.part(start, stop),
            )
            start = stop
        self._store.versions.change(version.id, strategy=scored.chosen.strategy.name)


def _is_of_step(failed: Sequence[_Failed], may_rest: bool, *, is_first: bool) -> bool:
    """Whether so many in a row tell of the segmenter or the machine.

    Args:
        failed: in a row.
        may_rest: whether the ranking has not rested so often for such that it is to go on.
        is_first: whether nothing was described before them.
    """
    if not may_rest:
        return is_first and len(failed) >= MOST_AT_FIRST
    return len(failed) >= MOST_IN_A_ROW and (is_first or failed[-1].is_of_machine)


def _alone(chosen: ChosenStrategy, state: PoolState, pool: DescribedPool) -> np.ndarray | None:
    """(N,) what the candidates are worth by themselves, where their scores are not that.

    None where the strategy does not say it, or breaks in saying it.
    """
    if chosen.strategy.is_pointwise:
        return None
    try:
        parts = []
        for rows, part in pool.features.select(pool.candidates).blocks():
            worth = chosen.strategy.alone(state.part(np.arange(rows.start, rows.stop)), part)
            if worth is None:
                return None
            parts.append(worths(worth, rows.stop - rows.start))
            state.stop()
        found: np.ndarray = np.concatenate(parts)
        return found
    except (Stopped, MemoryError):
        raise
    except Exception as error:
        logger.warning(
            "%s does not say what regions are worth alone: %s", chosen.strategy.name, error
        )
        return None


def _quantiles(scores: np.ndarray) -> list[float]:
    """101 of them, to six digits: what regions are worth alone may be very small numbers."""
    return [float(f"{value:.6g}") for value in np.quantile(scores, np.linspace(0, 1, 101))]


def _manner(chosen: ChosenStrategy, state: PoolState, pool: DescribedPool) -> str | None:
    """What the strategy looks for now; None where it says nothing, or breaks in saying it."""
    try:
        manner = chosen.strategy.manner(state, pool.features.select(pool.candidates))
        return None if manner is None else storable(str(manner))
    except (Stopped, MemoryError):
        raise
    except Exception as error:
        logger.warning("%s does not say what it looks for: %s", chosen.strategy.name, error)
        return None


def _metrics(version: Version, scored: _Scored, candidates: np.ndarray) -> dict[str, Any]:
    """What is kept with the version; None only where an earlier ranking of it said something."""
    mining = None if scored.mined is None else scored.mined.to_json()
    said = {
        "strategy_note": scored.chosen.note,
        "trust": scored.trust,
        "manner": scored.manner,
        MINING: mining,
    }
    metrics: dict[str, Any] = {
        name: value for name, value in said.items() if value or name in version.metrics
    }
    if len(candidates):
        metrics["score_quantiles"] = _quantiles(scored.scores[candidates])
    if scored.alone is not None or ALONE in version.metrics:
        metrics[ALONE] = None if scored.alone is None else _quantiles(scored.alone)
    return metrics
