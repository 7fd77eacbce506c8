"""How far does a gradient from scores of whole maps point where that of cross-entropy does?

Of a network that knows a few regions: the cosine between both, over all weights and the same crops,
by the cells in which actions are drawn, the number of maps, and how scores become advantages. No
training; it tells why a setting learns or does not.

    python benchmarks/reward_gradients.py --dataset ../shared/data/camvid \
        --segmenter .cache/rewards/camvid/start-0.safetensors \
        --out benchmarks/results/rewards/gradients-camvid.json
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.files import write_json
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import Crops, LabelledImage
from ralis_backend.core.learning.rewards.actions import (
    SAMPLERS,
    cell_logits,
    log_probabilities,
    on_pixels,
)
from ralis_backend.core.learning.rewards.advantages import (
    CREDITS,
    synchronised,
)
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.loss import policy_loss
from ralis_backend.core.learning.rewards.scores import correct_pixels, mean_ious
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import Segmenter, load
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.scaled import scaled

STRIDES = (32, 16, 8, 4, 1)
PLAIN = RewardConfig(kl_weight=0, entropy_weight=0)


def main() -> None:
    """Measure and write."""
    options = _options()
    torch.set_num_threads(1)
    dataset = Dataset.open(options.dataset)
    segmenter = load(options.segmenter)
    config = FinetuneConfig(batch_size=4, crop_size=(options.crop, options.crop), rarity_share=0)
    crops = Crops(_images(dataset, options.image_scale), config, len(dataset.classes),
                  np.random.default_rng(options.seed))  # fmt: skip
    found: dict[str, list[float]] = {}
    for batch in range(options.batches):
        pixels, masks = crops.batch()
        for name, cosine in _cosines(segmenter, pixels, masks, options.seed + batch).items():
            found.setdefault(name, []).append(cosine)
    results = [
        {"gradient": name, "cosine": round(float(np.mean(values)), 4),
         "std": round(float(np.std(values)), 4)}
        for name, values in found.items()
    ]  # fmt: skip
    for result in results:
        print(f"{result['gradient']}: {result['cosine']:.3f}", flush=True)
    write_json(
        options.out,
        {"dataset": dataset.name, "batches": options.batches, "crop": options.crop,
         "image_scale": options.image_scale, "seed": options.seed, "cosines": results},
    )  # fmt: skip


def _cosines(
    segmenter: Segmenter, pixels: np.ndarray, masks: np.ndarray, seed: int
) -> dict[str, float]:
    """Of each gradient with cross-entropy's, by its name."""
    targets = torch.from_numpy(masks).long()
    logits = segmenter.logits(segmenter.normalised(pixels))
    loss = functional.cross_entropy(logits, targets, ignore_index=VOID)
    wanted = _gradient(segmenter, loss)
    generator = torch.Generator().manual_seed(seed)

    def cosine(sampler: str, credit: str, stride: int, num_maps: int) -> float:
        cell = SAMPLERS[sampler].policy_stride(stride)
        log_policy = cell_logits(logits, cell).log_softmax(dim=1)
        known = log_policy.detach()
        actions = SAMPLERS[sampler].draw(known, num_maps, stride, generator)
        maps = on_pixels(actions, cell, (targets.shape[1], targets.shape[2]))
        if credit == "pixel":
            rewards = correct_pixels(maps, targets)
            advantages = synchronised(rewards.values, rewards.is_known)
        else:
            scores = mean_ious(maps, targets, segmenter.num_classes)
            is_compared = (actions != actions[0]).any(dim=0)
            advantages = synchronised(CREDITS[credit](actions, scores), is_compared)
        old = log_probabilities(known, actions)
        loss = policy_loss(log_policy, actions, advantages, old, None, PLAIN)
        return float(functional.cosine_similarity(_gradient(segmenter, loss), wanted, dim=0))

    settings = [("pooled", "pixel", 1, 16), *product(SAMPLERS, CREDITS, STRIDES, (16,))]
    settings += product(("pooled",), ("psd",), STRIDES, (4, 64))
    return {
        f"{sampler}, {credit}, stride {stride}, {num_maps} maps": cosine(
            sampler, credit, stride, num_maps
        )
        for sampler, credit, stride, num_maps in settings
    }


def _gradient(segmenter: Segmenter, loss: torch.Tensor) -> torch.Tensor:
    weights = list(segmenter.model.parameters())
    gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return torch.cat([each.flatten() for each in gradients if each is not None])


def _images(dataset: Dataset, scale: float) -> list[LabelledImage]:
    images = []
    for sample in scaled(dataset.split("d_v"), scale):
        mask = sample.mask()
        images.append(LabelledImage(sample.image, mask, (Region(0, 0, *mask.shape),)))
    return images


def _options() -> argparse.Namespace:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--segmenter", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--image-scale", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
