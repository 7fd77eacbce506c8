"""Brush masks written and read by this backend and by Label Studio's SDK, as JSON.

Both take turns in one process, so that a busy machine slows down both; a ratio is the median over
the turns of the SDK's time divided by ours in the same turn. Every stream is checked to be the same
bytes, and every mask to be the same pixels.

    OMP_NUM_THREADS=1 python benchmarks/brush_rle.py --out benchmarks/results/brush_rle.json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle

from ralis_backend.core.files import write_json
from ralis_backend.labelstudio.payloads.brush_rle import decode, encode

REQUIRED_RATIO = 3.0  # of the full-size set, both ways


def main() -> int:
    """Measure, write and print; 1 if the full-size set is not fast enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    cases = {
        "blobs, 1920x1080, 19 classes": (_class_masks(rng, 1080, 1920, 19), options.turns),
        "blobs, 128x128, 4 classes": (_class_masks(rng, 128, 128, 4), 5 * options.turns),
        "white noise, 480x270, 1 mask": ([_noise(rng, 270, 480)], options.turns),
    }
    figures = {name: _compare(masks, turns) for name, (masks, turns) in cases.items()}
    report = {
        "seed": options.seed,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cpus": os.cpu_count(),
        "required_ratio": REQUIRED_RATIO,
        "cases": figures,
    }
    print(json.dumps(report, indent=2))
    if options.out is not None:
        write_json(options.out, report)

    full = next(iter(figures.values()))
    slow = [way for way in ("encode", "decode") if full[way]["ratio"] < REQUIRED_RATIO]
    if slow:
        print(f"{' and '.join(slow)}: less than {REQUIRED_RATIO} times faster", file=sys.stderr)
    return 1 if slow else 0


def _class_masks(
    rng: np.random.Generator, height: int, width: int, num_classes: int
) -> list[np.ndarray]:
    """One 0/255 mask per class of a picture of blobs, some large and some small."""
    best, classes = np.full((height, width), -np.inf), np.zeros((height, width), int)
    for index in range(num_classes):
        blob = min(height, width) / (6 + 4 * (index % 5))
        coarse = rng.standard_normal((round(height / blob) + 3, round(width / blob) + 3))
        level = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        # Outlines as ragged as those of a segmenter or of a brush.
        level = level + cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 3) * 0.3
        classes[level > best] = index
        best = np.maximum(best, level)
    return [np.where(classes == index, 255, 0).astype(np.uint8) for index in range(num_classes)]


def _noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.where(rng.random((height, width)) < 0.5, 255, 0).astype(np.uint8)


def _sdk_decode(rle: list[int], height: int, width: int) -> np.ndarray:
    return decode_rle(rle).reshape(height, width, 4)[:, :, 3]


def _compare(masks: list[np.ndarray], turns: int) -> dict[str, Any]:
    height, width = masks[0].shape
    streams = [encode(mask) for mask in masks]
    if streams != [mask2rle(mask) for mask in masks]:
        raise AssertionError("the streams differ from the SDK's")
    for mask, rle in zip(masks, streams, strict=True):
        np.testing.assert_array_equal(decode(rle, height, width), mask)
        np.testing.assert_array_equal(_sdk_decode(rle, height, width), mask)
    return {
        "masks": len(masks),
        "bytes": sum(map(len, streams)),
        "encode": _ratio(
            lambda: [encode(mask) for mask in masks],
            lambda: [mask2rle(mask) for mask in masks],
            turns,
        ),
        "decode": _ratio(
            lambda: [decode(rle, height, width) for rle in streams],
            lambda: [_sdk_decode(rle, height, width) for rle in streams],
            turns,
        ),
    }


def _ratio(ours: Callable[[], Any], sdk: Callable[[], Any], turns: int) -> dict[str, float]:
    """Median seconds of both, and the median ratio of the SDK's to ours."""
    pairs = [(_seconds(ours), _seconds(sdk)) for _ in range(turns)]
    return {
        "ours_s": round(statistics.median(pair[0] for pair in pairs), 5),
        "sdk_s": round(statistics.median(pair[1] for pair in pairs), 5),
        "ratio": round(statistics.median(pair[1] / pair[0] for pair in pairs), 2),
    }


def _seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
