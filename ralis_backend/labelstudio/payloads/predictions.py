"""Suggestions -> Label Studio's predictions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads.label_config import LabelConfig
from ralis_backend.labelstudio.payloads.masks import mask_to_results, region_to_result, result_id
from ralis_backend.online.tool import CropPrediction, ImageSuggestion, SuggestedRegion

_OURS = re.compile(r"ralis-(v[0-9]{1,9})")

MAX_STROKES = 10
"""Masks as results of one task: beyond that the browser gets slow (8 s for 10, 23 s for 30)."""

PREDICTIONS_PER_CALL = 200
NUMBERS_PER_CALL = 8_000_000
"""Of brush RLE, up to five bytes of JSON each: Label Studio takes 250 MB in a request."""


def model_version(version: str) -> str:
    """`ralis-v3` of `v3`: how Label Studio tells our predictions from those of others."""
    return f"ralis-{version}"


def version_of(model_version: object) -> str | None:
    """`v3` of `ralis-v3`; None for the model versions of others."""
    found = _OURS.fullmatch(model_version) if isinstance(model_version, str) else None
    return found[1] if found else None


def is_ours(model_version: object) -> bool:
    """Whether predictions of this model version are ours: the others are left alone."""
    return version_of(model_version) is not None


def score(usefulness: float) -> float:
    """Label Studio shows the lowest score first, so the most useful gets the lowest."""
    return round(1.0 - min(1.0, max(0.0, float(usefulness))), 6)


def crop_prediction(
    prediction: CropPrediction, class_names: Sequence[str], config: LabelConfig, version: str
) -> dict[str, Any]:
    """What a region's task is pre-filled with; `config` is that of the regions project."""
    results: list[dict[str, Any]] = []
    if prediction.mask is not None:
        results = mask_to_results(
            prediction.mask,
            class_names,
            config,
            key=f"{version}/{prediction.task_id}",
            scale=prediction.scale,
            suggested_in=[Region(0, 0, *prediction.mask.shape)],
        )
    return {
        "task": prediction.task_id,
        "model_version": version,
        "score": score(prediction.usefulness),
        "result": results,
    }


def image_prediction(
    suggestion: ImageSuggestion, class_names: Sequence[str], config: LabelConfig, version: str
) -> dict[str, Any]:
    """What a whole image is answered with.

    Locked rectangles first, where the config has a control for them, then the masks inside, each
    with its rectangle as parent. Without the control all boxes stand in each mask's meta. Where
    there would be too many strokes for the browser, the regions share one per class.
    """
    key = f"{version}/{suggestion.task_id}"
    results = []
    if config.region_control is not None:
        results = [
            region_to_result(
                suggested.region,
                config,
                suggestion.image_size,
                key=f"{key}/{suggested.rank}",
                score=score(suggested.usefulness),
                text=_text(suggestion, suggested),
            )
            for suggested in suggestion.regions
        ]
    if suggestion.mask is not None:
        strokes = _strokes_by_region(suggestion, suggestion.mask, class_names, config, key)
        if len(strokes) > MAX_STROKES and config.control_type != "polygonlabels":
            strokes = _merged_strokes(suggestion, suggestion.mask, class_names, config, key)
        results += strokes
    return {
        "model_version": version,
        "score": score(suggestion.usefulness),
        "result": results,
    }


def batches(payloads: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Predictions, as many per call as Label Studio takes, made when their turn comes."""
    part: list[Mapping[str, Any]] = []
    num_numbers = 0
    for payload in payloads:
        part.append(payload)
        num_numbers += sum(map(_num_numbers, payload["result"]))
        if len(part) == PREDICTIONS_PER_CALL or num_numbers > NUMBERS_PER_CALL:
            yield part
            part, num_numbers = [], 0
    if part:
        yield part


def _num_numbers(result: Mapping[str, Any]) -> int:
    """Of brush RLE; a bitmask's characters take a fifth of what a number may."""
    value = result["value"]
    return len(value.get("rle", ())) + len(value.get("imageDataURL", "")) // 5


def _strokes_by_region(
    suggestion: ImageSuggestion,
    mask: np.ndarray,
    class_names: Sequence[str],
    config: LabelConfig,
    key: str,
) -> list[dict[str, Any]]:
    strokes = []
    for suggested in suggestion.regions:
        region = suggested.region
        region_key = f"{key}/{suggested.rank}"
        meta: dict[str, Any] = {"text": _text(suggestion, suggested)}
        extra: dict[str, Any] = {"meta": meta}
        if config.region_control is None:
            meta["regions"] = _boxes(suggestion)
        else:
            extra["parentID"] = result_id(region_key)
        strokes += mask_to_results(
            mask[region.slices],
            class_names,
            config,
            key=f"{region_key}/mask",
            offset=(region.row, region.col),
            image_size=suggestion.image_size,
            extra=extra,
            suggested_in=[region],
        )
    return strokes


def _merged_strokes(
    suggestion: ImageSuggestion,
    mask: np.ndarray,
    class_names: Sequence[str],
    config: LabelConfig,
    key: str,
) -> list[dict[str, Any]]:
    """One stroke per class for all regions."""
    inside = np.full(mask.shape, VOID, np.uint8)
    for suggested in suggestion.regions:
        inside[suggested.region.slices] = mask[suggested.region.slices]
    extra = {"meta": {"regions": _boxes(suggestion)}} if config.region_control is None else {}
    return mask_to_results(
        inside,
        class_names,
        config,
        key=f"{key}/mask",
        extra=extra,
        suggested_in=[suggested.region for suggested in suggestion.regions],
    )


def _boxes(suggestion: ImageSuggestion) -> list[dict[str, int]]:
    return [asdict(suggested.region) for suggested in suggestion.regions]


def _text(suggestion: ImageSuggestion, suggested: SuggestedRegion) -> list[str]:
    place = f"Region {suggested.rank} of {len(suggestion.regions)}"
    return [place, suggested.reason] if suggested.reason else [place]
