"""One query step of RALIS: ours, and the authors' algorithm as `benchmarks/query_step.py` tells it.

A step describes the candidates and the state set, compares their class histograms, and lets the
query network choose one region of each pool. The authors' code itself is not needed: `authors`
expresses anew what that file says of it: two forward passes over each image, gradients tracked,
regions one by one, divergences row by row on the CPU, and the network's state branch run for each
pool. The network's layers and weights are ours on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import query_step as whole
from benchmarks.gpu.scenes import scenes
from benchmarks.gpu.timing import Setting, timed
from ralis_backend.core.acquisition import PoolState
from ralis_backend.core.features import class_counts, concat, describe, entropy_grid
from ralis_backend.core.features.ralis import FLOOR, NUM_BINS, class_histograms, region_length
from ralis_backend.core.policy import QueryNetwork, network_inputs
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec, build

Step = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""State (S, D_state), actions (K, N, D_action), chosen index of each pool (K,)."""

FEATURES = ("class_counts", "entropy_grid")
"""What the query network's inputs are made of."""


@dataclass(frozen=True)
class Case:
    """image_size, region_size: (height, width). num_pools, pool_size: K and N."""

    image_size: tuple[int, int] = whole.IMAGE_SIZE
    region_size: tuple[int, int] = whole.REGION_SIZE
    num_pools: int = whole.NUM_POOLS
    pool_size: int = whole.POOL_SIZES[0]
    num_labelled: int = whole.NUM_LABELLED[1]
    num_state_images: int = whole.NUM_STATE_IMAGES


TINY = Case((64, 96), (32, 32), 3, 4, 5, 1)


@dataclass(frozen=True)
class Inputs:
    """What a step looks at.

    images, state_images: (H, W, 3) uint8; the regions of `images` in their order are the pools.
    labelled: (L, C + 1) int64 pixels of each class, void last, in each labelled region.
    """

    images: list[np.ndarray]
    state_images: list[np.ndarray]
    labelled: np.ndarray


def query_step(setting: Setting) -> dict[str, Any]:
    """Times of both, their ratio, and how far their numbers agree."""
    case = TINY if setting.is_tiny else Case()
    inputs, regions = inputs_of(case), grid(case.image_size, case.region_size)
    spec = SegmenterSpec(whole.NUM_CLASSES, encoder_weights=None)
    segmenter = build(spec, device=setting.device)
    network = network_of(case.num_state_images * len(regions), setting.device)
    ours_ms = timed(lambda: ours(inputs, case, segmenter, network), setting)
    authors_ms = timed(lambda: authors(inputs, case, segmenter, network), setting)
    return {
        "pools": case.num_pools,
        "pool_size": case.pool_size,
        "labelled": case.num_labelled,
        "images": len(inputs.images) + len(inputs.state_images),
        "image_size": case.image_size,
        "ours": ours_ms,
        "authors_algorithm": authors_ms,
        "authors_algorithm_is": "expressed anew from benchmarks/query_step.py, not their code",
        "ratio": round(authors_ms["wall_ms"] / ours_ms["wall_ms"], 2),
        **agreement(
            ours(inputs, case, segmenter, network), authors(inputs, case, segmenter, network)
        ),
    }


def ours(inputs: Inputs, case: Case, segmenter: Segmenter, network: QueryNetwork) -> Step:
    """As `RalisPolicy` and the worker do it: an image at a time, then everything at once."""
    regions = grid(case.image_size, case.region_size)
    candidates, state_set = (
        concat([describe(segmenter.forward_pass(image), regions, FEATURES) for image in images])
        for images in (inputs.images, inputs.state_images)
    )
    rng = np.random.default_rng(0)
    pool = PoolState(inputs.labelled, None, case.num_pools, rng, state_set)
    with torch.inference_mode():
        state, actions = network_inputs(pool, candidates, "faithful", segmenter.device)
        pools = actions.reshape(case.num_pools, case.pool_size, -1)
        summary = network.summarise(state[None]).expand(case.num_pools, -1)
        chosen = network.action_values(summary, pools).argmax(dim=1)
    return state.cpu(), pools.cpu(), chosen.cpu()


def authors(inputs: Inputs, case: Case, segmenter: Segmenter, network: QueryNetwork) -> Step:
    """The same step, with what `ours` leaves out: see the head of this file."""
    state, candidates = (
        torch.cat([_region_vectors(image, case, segmenter) for image in images])
        for images in (inputs.state_images, inputs.images)
    )
    histograms = candidates[:, : whole.NUM_CLASSES + 1].detach().double().cpu().numpy()
    divergences = [
        torch.from_numpy(_divergence_histograms(histograms, references))
        for references in (np.where(inputs.labelled == 0, FLOOR, inputs.labelled), histograms)
    ]
    actions = torch.cat([candidates, *(each.to(candidates) for each in divergences)], dim=1)
    pools = actions.reshape(case.num_pools, case.pool_size, -1)
    chosen = network(state.expand(case.num_pools, -1, -1), pools).argmax(dim=1)
    return state.detach().cpu(), pools.detach().cpu(), chosen.cpu()


def _region_vectors(image: np.ndarray, case: Case, segmenter: Segmenter) -> torch.Tensor:
    """(R, C + 193) of one image."""
    entropy = torch.special.entr(_probabilities(image, segmenter)).sum(dim=0)
    predicted = _probabilities(image, segmenter).argmax(dim=0)
    rows = []
    for region in grid(case.image_size, case.region_size):
        counts = class_counts(predicted[region.slices][None], segmenter.num_classes)
        pooled = entropy_grid(entropy[region.slices][None])
        rows.append(torch.cat([class_histograms(counts).float(), pooled], dim=1))
    return torch.cat(rows)


def _probabilities(image: np.ndarray, segmenter: Segmenter) -> torch.Tensor:
    """(C, H, W); gradients are tracked."""
    height, width = image.shape[:2]
    pixels = segmenter.normalised(image)[None]
    below, right = -height % segmenter.stride, -width % segmenter.stride
    padded = functional.pad(pixels, (0, right, 0, below), mode="reflect")
    probabilities: torch.Tensor = segmenter.model(padded)[0].softmax(dim=0)
    return probabilities[:, :height, :width]


def _divergence_histograms(candidates: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(R, C + 1) and (M, C + 1) -> (R, 32), one candidate after another."""
    normed = references / references.sum(axis=1, keepdims=True)
    histograms = []
    for row in candidates:
        share = row / row.sum()
        divergences = (share * np.log(share / normed)).sum(axis=1)
        histograms.append(np.histogram(divergences, bins=NUM_BINS)[0] / len(references))
    return np.stack(histograms)


def agreement(one: Step, other: Step) -> dict[str, float]:
    """How far two results differ: entropies in nats, pixels, shares of histograms, picks."""
    split, num_counts = region_length(whole.NUM_CLASSES), whole.NUM_CLASSES + 1
    state, actions = ((one[index] - other[index]).abs().flatten(0, -2) for index in range(2))
    vectors = torch.cat([state, actions[:, :split]])
    return {
        "max_entropy_difference": float(vectors[:, num_counts:].max()),
        "pixels_of_another_class": round(float(vectors[:, :num_counts].sum() / 2)),
        "histogram_variation": round(float(actions[:, split:].sum(dim=1).mean() / 4), 6),
        "same_picks": int((one[2] == other[2]).sum()),
    }


def inputs_of(case: Case) -> Inputs:
    """Made-up images, whose regions are just enough for the pools, and labelled regions."""
    num_regions = len(grid(case.image_size, case.region_size))
    num_images, rest = divmod(case.num_pools * case.pool_size, num_regions)
    if rest:
        raise ValueError(f"{case} offers no whole number of images of {num_regions} regions")
    images = [
        image
        for image, _ in scenes(
            num_images + case.num_state_images, case.image_size, whole.NUM_CLASSES
        )
    ]
    rng = np.random.default_rng(0)
    pixels = case.region_size[0] * case.region_size[1]
    shares = rng.dirichlet(np.full(whole.NUM_CLASSES + 1, 0.3), case.num_labelled)
    labelled = np.array([rng.multinomial(pixels, each) for each in shares])
    return Inputs(images[:num_images], images[num_images:], labelled)


def network_of(num_state_regions: int, device: torch.device) -> QueryNetwork:
    """A query network with random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = QueryNetwork(whole.NUM_CLASSES, num_state_regions)
    return network.eval().to(device)
