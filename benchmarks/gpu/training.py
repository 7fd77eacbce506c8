"""Updates of the segmenter per second, as the worker trains it."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu.scenes import scenes
from benchmarks.gpu.timing import Setting
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import SegmenterSpec, build

CASES = {
    "default": FinetuneConfig(),
    "batch 16 of 384x384": FinetuneConfig(batch_size=16, crop_size=(384, 384)),
}
TINY = {"tiny": FinetuneConfig(batch_size=2, crop_size=(32, 32))}
NUM_CLASSES = 11
IMAGE_SIZE, REGION_SIZE = (360, 480), (90, 80)
_MAX_STEPS, _WARM_UPS = 400, 10


def training(setting: Setting) -> dict[str, Any]:
    """Steps and crops per second of each case; under bfloat16 autocast where there is CUDA."""
    regions = tuple(grid(IMAGE_SIZE, REGION_SIZE))
    images = [
        LabelledImage(partial(np.asarray, image), mask, regions)
        for image, mask in scenes(2 if setting.is_tiny else 10, IMAGE_SIZE, NUM_CLASSES)
    ]
    cases = TINY if setting.is_tiny else CASES
    return {name: _trained(images, config, setting) for name, config in cases.items()}


def _trained(
    images: list[LabelledImage], config: FinetuneConfig, setting: Setting
) -> dict[str, Any]:
    segmenter = build(SegmenterSpec(NUM_CLASSES, encoder_weights=None), device=setting.device)
    warm_ups, max_steps = (1, 3) if setting.is_tiny else (_WARM_UPS, _MAX_STEPS)
    ends: list[float] = []  # of each step; its loss has left the device by then

    def is_enough() -> bool:
        return len(ends) > warm_ups + 1 and ends[-1] - ends[warm_ups - 1] > setting.seconds

    summary = finetune(
        segmenter,
        images,
        FinetuneConfig(**{**vars(config), "steps": max_steps}),
        seed=0,
        on_progress=lambda _: ends.append(time.perf_counter()),
        should_stop=is_enough,
    )
    rate = (len(ends) - warm_ups) / (ends[-1] - ends[warm_ups - 1])
    return {
        "batch_size": config.batch_size,
        "crop_size": config.crop_size,
        "steps": len(ends),
        "steps_per_s": round(rate, 2),
        "crops_per_s": round(rate * config.batch_size, 1),
        "final_loss": round(summary.final_loss, 4),
    }
