"""Images ranked per second, and what that costs on top of the network's bare forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.scenes import scenes
from benchmarks.gpu.timing import Setting, timed
from ralis_backend.core.acquisition import PoolState, Strategy, select
from ralis_backend.core.features import concat, describe, predicted_mask
from ralis_backend.core.policy.registry import find_strategy
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec
from ralis_backend.core.segmenter.smp import SmpSegmenter

PRECISIONS = {"f32": False, "bf16": True}
"""Name -> whether the forward pass runs under autocast."""
STRATEGIES = ("entropy", "default")
NUM_PICKS = 24


@dataclass(frozen=True)
class Case:
    """image_size, region_size: (height, width). num_images: ranked together, as one pool."""

    image_size: tuple[int, int]
    num_classes: int
    region_size: tuple[int, int]
    num_images: int


CAMVID = Case((360, 480), 11, (90, 80), 16)
CITYSCAPES = Case((1024, 2048), 19, (128, 128), 4)
TINY = Case((64, 96), 3, (32, 32), 1)


def ranking(case: Case, setting: Setting) -> dict[str, Any]:
    """Times of the bare forward pass and of ranking, by precision and strategy."""
    case = TINY if setting.is_tiny else case
    spec = SegmenterSpec(case.num_classes, encoder_weights=None)
    segmenter = SmpSegmenter(spec, device=setting.device)
    images = [image for image, _ in scenes(case.num_images, case.image_size, case.num_classes)]
    return {
        "image_size": case.image_size,
        "classes": case.num_classes,
        "regions_per_image": len(grid(case.image_size, case.region_size)),
        "segmenter": f"{spec.architecture} {spec.encoder}, random weights",
        "max_pixels_per_pass": segmenter.max_pixels_per_pass,
    } | {
        name: _at_precision(segmenter, images, case, is_bf16, setting)
        for name, is_bf16 in PRECISIONS.items()
    }


def _at_precision(
    segmenter: Segmenter, images: Sequence[np.ndarray], case: Case, is_bf16: bool, setting: Setting
) -> dict[str, Any]:
    bare = timed(_bare(segmenter, case, is_bf16), setting)
    measured: dict[str, Any] = {"bare_forward": _per_image(bare, len(images))}
    for name in STRATEGIES:
        chosen = find_strategy(name, Path("policies"), (), case.region_size)
        times = timed(_ranks(segmenter, images, case, chosen, is_bf16), setting)
        measured[name] = {
            "strategy": chosen.name,
            **_per_image(times, len(images)),
            "overhead_percent": round(100 * (times["wall_ms"] / bare["wall_ms"] - 1), 1),
        }
    return measured


def _per_image(times: dict[str, float], num_images: int) -> dict[str, float]:
    per_image = {name: round(times[name] / num_images, 3) for name in times if name != "calls"}
    rate = round(1000 * num_images / times["wall_ms"], 2)
    return {"images_per_s": rate, **per_image, "calls": times["calls"]}


def _bare(segmenter: Segmenter, case: Case, is_bf16: bool) -> Callable[[], object]:
    """The network alone, one image after another, on pixels that are on the device already."""
    height, width = (-(-side // segmenter.stride) * segmenter.stride for side in case.image_size)
    pixels = torch.zeros(1, 3, height, width, device=segmenter.device)
    pixels = pixels.to(memory_format=torch.channels_last)

    def call() -> None:
        with torch.inference_mode(), _precision(segmenter, is_bf16):
            for _ in range(case.num_images):
                segmenter.model(pixels)

    return call


def _ranks(
    segmenter: Segmenter,
    images: Sequence[np.ndarray],
    case: Case,
    strategy: Strategy,
    is_bf16: bool,
) -> Callable[[], object]:
    """Everything from decoded images to the regions that are suggested, and predicted masks.

    Nothing is computed that the strategy does not need, as when a project is ranked.
    """
    needs = strategy.needs
    regions = grid(case.image_size, case.region_size)
    labelled = np.ones((NUM_PICKS, case.num_classes + 1), np.int64)
    image_ids = np.arange(len(images)).repeat(len(regions))

    def call() -> np.ndarray:
        described = []
        for image in images:
            with _precision(segmenter, is_bf16):
                forward = segmenter.forward_pass(image, needs.maps)
            described.append(describe(forward, regions, needs.features))
            predicted_mask(forward)
        features = concat(described)
        rng = np.random.default_rng(0)
        embeddings = features.embeddings[:0] if "embeddings" in needs.features else None
        state = PoolState(labelled, embeddings, NUM_PICKS, rng)
        return select(strategy.scores(state, features), image_ids, NUM_PICKS)

    return call


def _precision(segmenter: Segmenter, is_bf16: bool) -> torch.autocast:
    return torch.autocast(segmenter.device.type, torch.bfloat16, enabled=is_bf16)
