"""A stored ranking -> the regions of one image to hand out, always the same for one version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ralis_backend.core.images import mask_from_png
from ralis_backend.core.regions import Region, grid, grid_size, is_labelled
from ralis_backend.online.hits import Sought, num_in_share, shared
from ralis_backend.online.labels import RegionLabel, covered, without_classes
from ralis_backend.online.ranking import usefulness
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project, Ranking, Version
from ralis_backend.online.tool import ImageSuggestion, SuggestedRegion


class RankingMisfit(ValueError):
    """A stored ranking is one of other regions: image or region size changed since."""


def read_mask(store: Store, image: Image, ranking: Ranking) -> np.ndarray | None:
    """(H, W) uint8, the mask predicted with a ranking; None where nothing was predicted.

    Raises:
        ValueError: if its file is damaged, or of another size than the image.
        OSError: if it cannot be read.
    """
    if ranking.mask_key is None:
        return None
    mask = mask_from_png(store.blobs.get(ranking.mask_key))
    if mask.shape != image.size:
        raise ValueError(f"the predicted mask has {mask.shape} pixels, the image {image.size}")
    return mask


def to_paint(mask: np.ndarray, project: Project) -> np.ndarray:
    """What of a predicted (H, W) mask is drawn for annotators, VOID elsewhere.

    Not the background: it would cover the picture, and they leave it unpainted.
    """
    background = project.background_class
    return mask if background is None else without_classes(mask, [background])


def suggest_image(
    store: Store,
    version: Version,
    image: Image,
    ranking: Ranking,
    labels: Sequence[RegionLabel],
    region_size: tuple[int, int],
    count: int,
    mask: np.ndarray | None,
    sought: Callable[[], Sought | None] = lambda: None,
) -> ImageSuggestion:
    """The `count` regions of a ranked image most worth labelling, with the predicted mask.

    Args:
        store: remembers what is handed out, so that an annotation can be matched with it.
        version: the one that the ranking belongs to.
        image: must have a size.
        ranking: of this image; its scores are only read where nothing was handed out yet.
        labels: of this image.
        region_size: (height, width) in pixels.
        count: regions at most.
        mask: (H, W) uint8, what the version predicts; None without a prediction.
        sought: gives what of the ranking is for a class that is looked for; asked likewise.

    Raises:
        RankingMisfit: if the ranking was made for other regions.
    """
    if image.size is None:
        raise ValueError(f"task {image.task_id} has a ranking but no image size")
    handed_out = store.queue.handed_out(image.id, version.number)
    if handed_out is None:
        whole = store.rankings.with_scores(ranking)
        scores = np.frombuffer(whole.scores, "<f4")
        if len(scores) != grid_size(image.size, region_size):
            raise RankingMisfit(
                f"the ranking of task {image.task_id} has {len(scores)} regions, its grid "
                f"{grid_size(image.size, region_size)}; the worker ranks it again"
            )
        is_covered = covered(image.size, labels)
        chosen = best_regions(
            image.size,
            region_size,
            scores,
            whole.reasons,
            is_covered,
            count,
            version.metrics.get("score_quantiles"),
        )
        found = None if whole.mined_scores is None else sought()
        if found is not None and whole.mined_scores is not None:
            mined = best_regions(
                image.size,
                region_size,
                np.frombuffer(whole.mined_scores, "<f4"),
                whole.mined_reasons or [""] * len(scores),
                is_covered,
                num_in_share(found.share, count, found.count),
                found.quantiles,
            )
            chosen = with_mined(chosen, mined, found)[:count]
        regions = keep_suggestion(store, image.id, version.number, chosen)
    else:
        regions = _from_json(handed_out)
    return image_suggestion(image.task_id, image.size, regions, mask, version.name)


def best_regions(
    image_size: tuple[int, int],
    region_size: tuple[int, int],
    scores: np.ndarray,
    reasons: Sequence[str],
    is_covered: np.ndarray,
    count: int,
    pool_scores: Sequence[float] | None,
    most: float = 1.0,
) -> list[SuggestedRegion]:
    """The `count` best regions of one image that are not wholly labelled, best first.

    Args:
        image_size: (height, width) in pixels.
        region_size: likewise.
        scores: (R,) in the order of the grid, higher first.
        reasons: R sentences.
        is_covered: (H, W) bool.
        count: regions at most.
        pool_scores: what usefulness is measured against; the image's own scores if None.
        most: usefulness of the best region that there can be.
    """
    regions = grid(image_size, region_size)
    useful = most * usefulness(scores, None if pool_scores is None else np.asarray(pool_scores))
    order = [
        int(index)
        for index in np.argsort(-scores, kind="stable")
        if not is_labelled(is_covered, regions[index])
    ]
    return [
        SuggestedRegion(regions[index], rank, float(useful[index]), reasons[index])
        for rank, index in enumerate(order[:count], start=1)
    ]


def with_mined(
    others: Sequence[SuggestedRegion], mined: Sequence[SuggestedRegion], sought: Sought
) -> list[SuggestedRegion]:
    """An image's suggestions with those for the class that is sought among them, best first."""
    found = [replace(it, strategy=sought.strategy, wish_id=sought.wish_id) for it in mined]
    regions = {it.region for it in found}
    rest = [it for it in others if it.region not in regions]
    in_order = shared(found, rest, sought.share)
    return [replace(it, rank=rank) for rank, it in enumerate(in_order, start=1)]


def keep_suggestion(
    store: Store, image_id: int, version: int, regions: Sequence[SuggestedRegion]
) -> list[SuggestedRegion]:
    """Remember what is handed out; another request may have been first, then its regions."""
    return _from_json(store.queue.hand_out(image_id, version, [_to_json(it) for it in regions]))


def image_suggestion(
    task_id: int,
    image_size: tuple[int, int],
    regions: Sequence[SuggestedRegion],
    mask: np.ndarray | None,
    version: str,
) -> ImageSuggestion:
    """Regions and mask as one answer, as useful as its best region."""
    best = max((suggested.usefulness for suggested in regions), default=0.0)
    return ImageSuggestion(task_id, image_size, tuple(regions), mask, version, best)


def _to_json(suggested: SuggestedRegion) -> dict[str, Any]:
    return {
        **asdict(suggested.region),
        "rank": suggested.rank,
        "usefulness": suggested.usefulness,
        "reason": suggested.reason,
        **({} if suggested.wish_id is None else _mined(suggested)),
    }


def _mined(suggested: SuggestedRegion) -> dict[str, Any]:
    return {"strategy": suggested.strategy, "wish": suggested.wish_id}


def _from_json(entries: Sequence[Mapping[str, Any]]) -> list[SuggestedRegion]:
    return [
        SuggestedRegion(
            Region(entry["row"], entry["col"], entry["height"], entry["width"]),
            entry["rank"],
            entry["usefulness"],
            entry["reason"],
            entry.get("strategy"),
            entry.get("wish"),
        )
        for entry in entries
    ]
