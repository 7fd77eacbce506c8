"""A described pool and a wish -> where its class is likely: scores, reasons, and who gave them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ralis_backend.core.acquisition import PoolState, Strategy
from ralis_backend.core.acquisition.mining import Similarity
from ralis_backend.core.policy.registry import policy_digest
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.online.hits import MINING, mined_regions, still_wanted
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.ranking import DescribedPool, finite, reasons_of, scores_of, to_explain
from ralis_backend.online.same_pictures import SamePictures
from ralis_backend.online.seeking import Seeking
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Wish
from ralis_backend.online.tool import Tool
from ralis_backend.online.trust import judge_miner, standing_verdict
from ralis_backend.online.wanted import class_pixels
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.described import DescribedRow
from ralis_backend.online.worker.train import Stopped

logger = logging.getLogger(__name__)

TYPICAL_SHARE = 0.75
"""Of an example image's regions, so many are left out: those most like the mean of the pool, which
are what every image shows."""

NOTHING_LEFT = (
    "every region of the images that can be read is labelled: there is nothing to look through; "
    "add images"
)

MOST_PARTS = 500
"""Regions that are labelled in part and shown as examples: those with most of the class."""

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Mined:
    """What a search has found.

    wish_id: what it was for.
    scores: (R,) float32 of the pool's regions, higher first; None: nobody could look.
    reasons: of those that may be handed out, by their index.
    strategy: that gave the scores.
    note: why it is another one than wanted, or why nobody looks.
    trust: the verdict on a trained miner, if one is wanted.
    quantiles: (101,) of the scores of what can still be suggested.
    known: of the class, where nobody could look, see `known_of`.
    """

    wish_id: int
    scores: np.ndarray | None
    reasons: Mapping[int, str]
    strategy: str | None
    note: str | None
    trust: Mapping[str, Any] | None = None
    quantiles: Sequence[float] = ()
    known: Mapping[str, Any] | None = None

    def part(self, start: int, stop: int) -> tuple[np.ndarray, list[str]] | None:
        """Scores and reasons of one image's regions; None where nobody could look."""
        if self.scores is None:
            return None
        reasons = [self.reasons.get(index, "") for index in range(start, stop)]
        return self.scores[start:stop], reasons

    def to_json(self) -> dict[str, Any]:
        """What is kept with the version, see `online/hits`."""
        return {
            "wish": self.wish_id,
            "strategy": self.strategy,
            "note": self.note,
            "trust": self.trust,
            "score_quantiles": list(self.quantiles),
            **({} if self.scores is not None else {"known": self.known}),
        }


def nothing_found(seeking: Seeking) -> Mined:
    """Nobody could look, or there was nothing to look through; it is not tried again at once."""
    return Mined(seeking.wish.id, None, {}, None, seeking.note)


def known_of(
    project: Project,
    wish: Wish,
    labels: Sequence[RegionLabel],
    described: Sequence[DescribedRow],
) -> dict[str, Any]:
    """What is known of a wish's class, as JSON: `hits.may_look_again` asks whether it is more.

    Args:
        project: whose wish it is.
        wish: that is followed.
        labels: of the project.
        described: the images that could be read.
    """
    readable = {row.image.id for row in described}
    return {
        "is_shown": class_pixels(project, labels, wish.class_name) > 0,
        "unread": [it["image"] for it in wish.examples if it["image"] not in readable],
    }


def _check_shown(miner: Strategy, state: PoolState, target: int) -> None:
    """Raise `ValueError` where a miner that goes by looks knows of none.

    It would rank by the probability of a class that the version may not have learned.
    """
    pixels = state.embedded_pixels
    is_shown = pixels is not None and pixels[:, target].any()
    has_examples = state.examples is not None and len(state.examples) > 0
    if miner.name.partition(":")[0] == Similarity.name and not is_shown and not has_examples:
        raise ValueError(
            "no labelled region shows the class, and there is no example of it: paint one region, "
            "or name an example"
        )


class Search:
    """Looks for one class in pools that were described for it."""

    def __init__(self, store: Store, tool: Tool, config: WorkerConfig) -> None:
        self._store, self._tool, self._config = store, tool, config

    def state(
        self,
        project: Project,
        seeking: Seeking,
        described: Sequence[DescribedRow],
        pool: DescribedPool,
        labels: Sequence[RegionLabel],
        state: PoolState,
    ) -> PoolState:
        """What a miner is told besides: what labelled regions and examples of the class look like.

        Args:
            project: whose regions are searched.
            seeking: what for.
            described: the images of the pool, in its order.
            pool: that is searched.
            labels: of the project.
            state: what any strategy is told.
        """
        wanted = still_wanted(seeking.wish, len(mined_regions(labels, seeking.wish)))
        state = replace(state, count=max(state.count, wanted or 0))
        if "embeddings" not in seeking.features:
            return state
        pixels = self._embedded_pixels(project, described, pool, labels)
        size = self._config.ranking.region_size
        examples = example_embeddings(seeking.wish.examples, described, pool, size)
        target = project.class_names.index(seeking.target)
        if not pixels[:, target].any():
            parts = self._painted_in_part(project, described, pool, labels, target)
            examples = np.concatenate([examples, parts])
        return replace(state, embedded_pixels=pixels, examples=examples)

    def mined(
        self,
        project: Project,
        seeking: Seeking,
        pool: DescribedPool,
        state: PoolState,
        report: Report,
        stop: Callable[[], None],
    ) -> Mined:
        """Scores of a pool's regions by the miner, or by one that can rank where it breaks."""
        if seeking.strategy is None:
            return nothing_found(seeking)
        if not len(pool.candidates):
            return nothing_found(replace(seeking, note=_joined([seeking.note, NOTHING_LEFT])))
        seeking, trust = self._earned(project, seeking, pool, state, report, stop)
        notes = [seeking.note]
        for miner in filter(None, (seeking.strategy, *seeking.rivals)):
            try:
                _check_shown(miner, state, project.class_names.index(seeking.target))
                found = self._scored(miner, pool, state)
            except (Stopped, MemoryError):
                raise
            except Exception as error:
                notes.append(f"{miner.name} failed: {error}")
                logger.warning("project %s: %s", project.tool_id, notes[-1])
                continue
            looks = replace(seeking, strategy=miner, note=_joined(notes))
            return replace(self._explained(project, looks, pool, state, found), trust=trust)
        return nothing_found(replace(seeking, note=_joined(notes)))

    def _earned(
        self,
        project: Project,
        seeking: Seeking,
        pool: DescribedPool,
        state: PoolState,
        report: Report,
        stop: Callable[[], None],
    ) -> tuple[Seeking, dict[str, Any] | None]:
        """A trained miner where it is trusted, else the best of its rivals; and the verdict.

        Where there is too little to test, the first of the rivals looks.
        """
        miner = seeking.strategy
        if miner is None or not miner.is_trained or not self._config.trust_rounds:
            return seeking, None
        report({"state": "testing the policy"})
        trust = self._trust(project, seeking, miner, pool, state, stop)
        if trust["verdict"] == "trusted":
            return seeking, trust
        is_told = trust["verdict"] == "not trusted"
        rivals = sorted(seeking.rivals, key=lambda it: is_told and it.name != trust["best"])
        note = _joined([seeking.note, f"{miner.name}, {trust['verdict']}: {trust['note']}"])
        aside = seeking.aside or f"in place of {miner.name}: {trust['verdict']}"
        first, *others = rivals
        return replace(seeking, strategy=first, rivals=others, note=note, aside=aside), trust

    def _trust(
        self,
        project: Project,
        seeking: Seeking,
        miner: Strategy,
        pool: DescribedPool,
        state: PoolState,
        stop: Callable[[], None],
    ) -> dict[str, Any]:
        """The standing verdict on a miner, or a new one where enough was labelled since."""
        num_labels = self._store.labels.count(project.id)
        versions = self._store.versions.all(project.id)
        verdicts = [(version.metrics.get(MINING) or {}).get("trust") for version in versions]
        digest = policy_digest(miner.name, self._config.ranking.policies_dir)
        period = self._config.trust_period
        standing = standing_verdict(verdicts, miner.name, num_labels, period, digest)
        if standing is not None:
            return standing
        logger.info("project %s: miner %s is tested on the labels", project.tool_id, miner.name)
        entry = judge_miner(
            self._store,
            self._tool.image,
            project,
            miner,
            seeking.rivals,
            project.class_names.index(seeking.target),
            state,
            pool.features.select(pool.candidates),
            self._config.ranking,
            self._config.mining,
            stop,
        )
        return {**entry, "labels": num_labels}

    def _scored(self, miner: Strategy, pool: DescribedPool, state: PoolState) -> np.ndarray:
        """(N,) finite scores of the candidates."""
        return finite(scores_of(miner, state, pool.features, pool.candidates))

    def _explained(
        self,
        project: Project,
        seeking: Seeking,
        pool: DescribedPool,
        state: PoolState,
        offered: np.ndarray,
    ) -> Mined:
        candidates = pool.candidates
        scores = np.full(len(pool.is_done), offered.min() - 1, np.float32)
        scores[candidates] = offered
        explained = to_explain(
            offered, pool.image_index[candidates], self._config.suggestions_per_image
        )
        reasons = reasons_of(
            seeking, state.part(explained), pool.features.take(candidates[explained]), project
        )
        return Mined(
            seeking.wish.id,
            scores,
            dict(zip(candidates[explained].tolist(), reasons, strict=True)),
            None if seeking.strategy is None else seeking.strategy.name,
            seeking.note,
            quantiles=np.quantile(offered, np.linspace(0, 1, 101)).round(5).tolist(),
        )

    def _embedded_pixels(
        self,
        project: Project,
        described: Sequence[DescribedRow],
        pool: DescribedPool,
        labels: Sequence[RegionLabel],
    ) -> np.ndarray:
        """(L', C + 1) labelled pixels of each class in the done regions, void last."""
        shown = SamePictures.of({row.image.id: row.content for row in described}, labels)
        masks = LabelMasks(self._store, project)
        size, num_classes = self._config.ranking.region_size, len(project.classes)
        starts = np.cumsum([0, *pool.image_sizes])
        rows = []
        for row, (start, end) in zip(described, pairwise(starts), strict=True):
            is_done = pool.is_done[start:end]
            if is_done.any():
                regions = [
                    it for it, done in zip(grid(row.size, size), is_done, strict=True) if done
                ]
                of_image = shown.labels(row.image.id)
                rows += pixels_of_regions(masks, row.size, of_image, regions, num_classes)
        return np.array(rows, np.int64).reshape(len(rows), num_classes + 1)

    def _painted_in_part(
        self,
        project: Project,
        described: Sequence[DescribedRow],
        pool: DescribedPool,
        labels: Sequence[RegionLabel],
        target: int,
    ) -> np.ndarray:
        """(E, D) float32: regions that show a class though no label is of all of them.

        Boxes on whole images may lie anywhere, and the size of regions may have changed since.
        """
        shown = SamePictures.of({row.image.id: row.content for row in described}, labels)
        masks = LabelMasks(self._store, project)
        size, num_classes = self._config.ranking.region_size, len(project.classes)
        counts = np.zeros(len(pool.is_done), np.int64)
        starts = np.cumsum([0, *pool.image_sizes])
        for row, (start, end) in zip(described, pairwise(starts), strict=True):
            of_image = shown.labels(row.image.id)
            if any(sum(label.pixels[target : target + 1]) for label in of_image):
                regions = grid(row.size, size)
                pixels = pixels_of_regions(masks, row.size, of_image, regions, num_classes)
                counts[start:end] = [each[target] for each in pixels]
        most = np.argsort(-counts, kind="stable")[: min(MOST_PARTS, np.count_nonzero(counts))]
        return np.asarray(pool.features.embeddings[np.sort(most)], np.float32)


def pixels_of_regions(
    masks: LabelMasks,
    image_size: tuple[int, int],
    labels: Sequence[RegionLabel],
    regions: Sequence[Region],
    num_classes: int,
) -> list[np.ndarray]:
    """(C + 1,) labelled pixels of each class, void last, in each of an image's regions.

    As they were counted where one label alone is of that very region; else from the masks.
    """
    painted = [label for label in labels if not label.is_skipped]
    num_of_region = Counter(label.region for label in painted)
    counted = {it.region: masks.pixels(it) for it in painted if num_of_region[it.region] == 1}
    whole: np.ndarray | None = None
    found = []
    for region in regions:
        pixels = np.zeros(num_classes + 1, np.int64)
        if region in counted:
            pixels[: len(counted[region])] = counted[region]
        else:
            whole = masks.whole(image_size, labels) if whole is None else whole
            patch = whole[region.slices]
            pixels[:-1] = np.bincount(patch[patch != VOID], minlength=num_classes)[:num_classes]
        pixels[-1] = region.height * region.width - pixels[:-1].sum()
        found.append(pixels)
    return found


def example_embeddings(
    examples: Sequence[Mapping[str, Any]],
    described: Sequence[DescribedRow],
    pool: DescribedPool,
    region_size: tuple[int, int],
) -> np.ndarray:
    """(E, D) float32: what the examples of a wish look like.

    Of a region that one; of a whole image the quarter of its regions that is least like the mean
    of the pool, since the others show what every image shows. Images that could not be described
    are left out.
    """
    embeddings = pool.features.embeddings
    starts = np.cumsum([0, *pool.image_sizes])
    place = {row.image.id: index for index, row in enumerate(described)}
    mean = embeddings.mean(axis=0)
    found: list[np.ndarray] = [np.zeros((0, len(mean)), np.float32)]
    for example in examples:
        if example["image"] not in place:
            continue
        index = place[example["image"]]
        of_image = np.asarray(embeddings[starts[index] : starts[index + 1]])
        if example["region"] is None:
            found.append(of_image[least_typical(of_image, mean)])
        else:
            regions = grid(described[index].size, region_size)
            found.append(of_image[[nearest(regions, Region(*example["region"]))]])
    joined: np.ndarray = np.concatenate(found).astype(np.float32)
    return joined


def least_typical(embeddings: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Indices of those of (R, D) embeddings that are least like the (D,) mean, one at least."""
    count = max(1, len(embeddings) - int(TYPICAL_SHARE * len(embeddings)))
    return np.argsort(embeddings @ mean, kind="stable")[:count]


def nearest(regions: Sequence[Region], other: Region) -> int:
    """Which of the regions lies nearest to another one, by their centres."""
    centers = np.array([_center(region) for region in regions])
    return int(np.linalg.norm(centers - _center(other), axis=1).argmin())


def _center(region: Region) -> tuple[float, float]:
    return region.row + region.height / 2, region.col + region.width / 2


def _joined(notes: Sequence[str | None]) -> str | None:
    return "; ".join(filter(None, notes)) or None
