"""Is BALD from one look at an image what many whole passes of the network would say, and how fast?

A segmenter learns from some regions of a dataset. On test images each region's mean BALD is
computed four ways: 20 whole forward passes with dropout in the decoder, one after another (the
naive way), and once more with other masks (how far the naive way agrees with itself); the encoder
once and the decoder 20 times, with the masks of the first (`deep_bald`); and dropout in the last
layer alone (`bald`). All take turns in one process. Which of them knows best where the segmenter
errs is told by the rank correlation with each region's share of wrong pixels.

    OMP_NUM_THREADS=1 python benchmarks/bald.py --dataset ../shared/data/camvid --out bald.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from ralis_backend.core.features import describe
from ralis_backend.core.files import write_json
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.core.segmenter import NUM_DEEP_PASSES, Segmenter, SegmenterSpec, build
from ralis_backend.core.segmenter.dropout import DROPOUT, INNER_DROPOUT
from ralis_backend.offline.datasets import Dataset, Sample
from ralis_backend.offline.scaled import scaled
from ralis_backend.settings import load_settings

REGION_SIZE = (90, 80)


def main() -> None:
    """Train, measure, print and write."""
    options = _options()
    load_settings()
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset)
    region_size = tuple(round(options.image_scale * side) for side in REGION_SIZE)
    segmenter = _trained(dataset, options, region_size)
    images = scaled(dataset.split("test"), options.image_scale)
    step = max(1, len(images) // options.images)
    content = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/bald.py --dataset {options.dataset.name}",
        "dataset": dataset.name,
        "segmenter": "FPN mobilenet_v2",
        **{name: getattr(options, name) for name in ("regions", "updates", "image_scale", "seed")},
        "passes": NUM_DEEP_PASSES,
        "dropout": {"inside the decoder": INNER_DROPOUT, "before the last layer": DROPOUT},
        **_compared(segmenter, images[::step][: options.images], region_size),
        "torch": torch.__version__,
    }
    print(json.dumps(content, indent=1))
    if options.out is not None:
        write_json(options.out, content)


def _trained(
    dataset: Dataset, options: argparse.Namespace, region_size: tuple[int, int]
) -> Segmenter:
    """A segmenter that has learned from randomly drawn regions of the pool."""
    samples = scaled(dataset.split("d_v"), options.image_scale)
    places = [
        (index, region)
        for index, sample in enumerate(samples)
        for region in grid(sample.mask().shape, region_size)
        if (sample.mask()[region.slices] != VOID).any()
    ]
    rng = np.random.default_rng(options.seed)
    chosen = [places[it] for it in rng.permutation(len(places))[: options.regions]]
    labelled = []
    for index in sorted({index for index, _ in chosen}):
        regions = tuple(region for other, region in chosen if other == index)
        mask = np.full(samples[index].mask().shape, VOID, np.uint8)
        for region in regions:
            mask[region.slices] = samples[index].mask()[region.slices]
        labelled.append(LabelledImage(samples[index].image, mask, regions))
    segmenter = build(SegmenterSpec(len(dataset.classes)), seed=options.seed)
    finetune(segmenter, labelled, FinetuneConfig(steps=options.updates), seed=options.seed)
    return segmenter


def _compared(
    segmenter: Segmenter, samples: Sequence[Sample], region_size: tuple[int, int]
) -> dict[str, Any]:
    """Rank correlations over all regions, and medians of seconds per image."""
    found: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {}
    errors = []
    for sample in samples:
        image, truth = sample.image(), sample.mask()
        regions = grid(truth.shape, region_size)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "naive": lambda: _naive(segmenter, image, regions, 0),  # noqa: B023
            "deep": lambda: _described(segmenter, image, regions, "deep_bald"),  # noqa: B023
            "last layer": lambda: _described(segmenter, image, regions, "bald"),  # noqa: B023
            "no BALD": lambda: _described(segmenter, image, regions, "entropy"),  # noqa: B023
            "other masks": lambda: _naive(segmenter, image, regions, 1),  # noqa: B023
        }
        for name, way in ways.items():
            started = time.perf_counter()
            found.setdefault(name, []).append(way())
            seconds.setdefault(name, []).append(time.perf_counter() - started)
        errors.append(_errors(segmenter, image, truth, regions))
    values = {name: np.concatenate(each) for name, each in found.items()}
    error = np.concatenate(errors)
    is_known = ~np.isnan(error)

    def agreement(one: np.ndarray, other: np.ndarray) -> float:
        return round(float(spearmanr(one, other).statistic), 4)

    return {
        "images": len(samples),
        "num_regions": len(error),
        "rank_correlation_with_naive": {
            name: agreement(values[name], values["naive"])
            for name in ("deep", "other masks", "last layer")
        },
        "rank_correlation_with_error": {
            name: agreement(values[name][is_known], error[is_known])
            for name in ("naive", "deep", "last layer", "no BALD")
        },
        "seconds_per_image": {
            name: round(statistics.median(each), 4) for name, each in seconds.items()
        },
        "naive_over_deep": round(
            statistics.median(np.array(seconds["naive"]) / np.array(seconds["deep"])), 2
        ),
        "naive_over_last_layer": round(
            statistics.median(np.array(seconds["naive"]) / np.array(seconds["last layer"])), 2
        ),
    }


def _described(
    segmenter: Segmenter, image: np.ndarray, regions: Sequence[Region], name: str
) -> np.ndarray:
    """(R,) a feature of one look; `no BALD` is the entropy."""
    maps = () if name == "entropy" else (name,)
    values: np.ndarray = describe(segmenter.forward_pass(image, maps), regions, (name,))[name]
    return values


def _naive(
    segmenter: Segmenter, image: np.ndarray, regions: Sequence[Region], seed: int
) -> np.ndarray:
    """(R,) mean BALD of whole passes at the image's size."""
    generator = torch.Generator().manual_seed(seed)
    total = entropy = None
    with _dropping(segmenter.model, generator):
        for _ in range(NUM_DEEP_PASSES):
            p = torch.from_numpy(segmenter.probabilities(image))
            own = torch.special.entr(p).sum(dim=0)
            total = p if total is None else total + p
            entropy = own if entropy is None else entropy + own
    of_mean = torch.special.entr(total / NUM_DEEP_PASSES).sum(dim=0)
    bald = (of_mean - entropy / NUM_DEEP_PASSES).clamp(min=0).numpy()
    return np.array([bald[region.slices].mean() for region in regions])


@contextmanager
def _dropping(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Dropout of channels behind each activation of the decoder, and behind the decoder."""

    def drop(share: float) -> Callable[..., torch.Tensor]:
        def hook(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
            is_kept = torch.rand(output.shape[1], generator=generator) >= share
            return output * (is_kept / (1 - share)).reshape(1, -1, 1, 1)

        return hook

    inner = [each for each in model.decoder.modules() if isinstance(each, nn.ReLU)]
    hooks = [each.register_forward_hook(drop(INNER_DROPOUT)) for each in inner]
    hooks.append(model.decoder.register_forward_hook(drop(DROPOUT)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _errors(
    segmenter: Segmenter, image: np.ndarray, truth: np.ndarray, regions: Sequence[Region]
) -> np.ndarray:
    """(R,) share of annotated pixels that are wrong; NaN where none is annotated."""
    is_wrong = segmenter.probabilities(image).argmax(axis=0) != truth
    is_known = truth != VOID
    return np.array(
        [
            is_wrong[region.slices][is_known[region.slices]].mean()
            if is_known[region.slices].any()
            else np.nan
            for region in regions
        ]
    )


def _options() -> argparse.Namespace:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--regions", type=int, default=144)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
