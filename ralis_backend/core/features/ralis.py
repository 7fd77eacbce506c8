"""Features of regions -> the state and the actions of RALIS (arXiv:2002.06583).

A region is the histogram of its predicted classes and its pooled entropy map; an action adds how
unlike the labelled and the unlabelled regions it is. `faithful` gives the numbers of the authors'
code; `repaired` gives numbers that mean the same in every region, step and project.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

Variant = Literal["faithful", "repaired"]
Unlabelled = Literal["candidates", "whole"]

NUM_BINS = 32
NUM_ENTROPIES = 192
FLOOR = 1e-7
"""Replaces zeros of a histogram in the authors' code, so that a divergence is finite."""

SMOOTHING = 1e-3
"""Added to each class share of the repaired variant: no divergence exceeds ln(1 / SMOOTHING)."""

MAX_REFERENCES = 4096
"""The repaired variant compares with at most so many regions, evenly spaced among those given."""

_ROUNDING = 1e-10
_MAX_PAIRS_AT_ONCE = 4_000_000


def region_length(num_classes: int) -> int:
    """Length of a region's vector: a class histogram with void, and the pooled entropy."""
    return num_classes + 1 + NUM_ENTROPIES


def action_length(num_classes: int) -> int:
    """Length of an action: a region's vector and two histograms of divergences."""
    return region_length(num_classes) + 2 * NUM_BINS


def class_histograms(class_counts: torch.Tensor) -> torch.Tensor:
    """(R, C) predicted pixels per class -> (R, C + 1) with void last, zeros raised to FLOOR."""
    counts = torch.nn.functional.pad(class_counts.double(), (0, 1))
    return torch.where(counts == 0, FLOOR, counts)


def region_vectors(
    class_counts: torch.Tensor, entropy_grid: torch.Tensor, variant: Variant
) -> torch.Tensor:
    """(R, C) counts and (R, 192) pooled entropy -> (R, C + 1 + 192) float32, rows of the state.

    `faithful`: pixel counts and nats. `repaired`: shares of the region and of ln C, in [0, 1].
    """
    histograms = class_histograms(class_counts)
    if variant == "faithful":
        return torch.cat([histograms.float(), entropy_grid.float()], dim=1)
    shares = histograms / histograms.sum(dim=1, keepdim=True)
    largest = math.log(max(2, class_counts.shape[1]))
    return torch.cat([shares.float(), entropy_grid.float() / largest], dim=1)


def action_vectors(
    class_counts: torch.Tensor,
    entropy_grid: torch.Tensor,
    labelled: torch.Tensor,
    unlabelled: torch.Tensor,
    variant: Variant,
) -> torch.Tensor:
    """(R, C + 1 + 192 + 64) float32: each region's vector and its histograms of divergences.

    Args:
        class_counts: (R, C) predicted pixels per class of the candidates.
        entropy_grid: (R, 192) of the candidates.
        labelled: (L, C + 1) true pixels per class of each labelled region, void last; L may be 0.
        unlabelled: (M, C) predicted pixels per class of the regions that stand for the unlabelled
            set: the authors' code takes the candidates of the step, the paper the whole pool.
        variant: which features.
    """
    candidates = class_histograms(class_counts)
    references = class_histograms(unlabelled)
    return torch.cat(
        [
            region_vectors(class_counts, entropy_grid, variant),
            divergence_histograms(candidates, labelled, variant),
            divergence_histograms(candidates, references, variant),
        ],
        dim=1,
    )


def divergence_histograms(
    candidates: torch.Tensor, references: torch.Tensor, variant: Variant
) -> torch.Tensor:
    """How unlike the references each candidate is: a histogram of KL(candidate || reference).

    `faithful`: 32 bins between the least and the largest divergence of that candidate.
    `repaired`: 32 bins with fixed, logarithmic edges, of smoothed distributions.

    Args:
        candidates: (R, D) pixels or shares per class.
        references: (M, D) the same of the regions to compare with.
        variant: which bins.

    Returns:
        (R, 32) float32, each row summing to 1; zeros where there is no reference.
    """
    if len(references) == 0:
        return torch.zeros(len(candidates), NUM_BINS, device=candidates.device)
    if variant == "repaired":
        references = references[:: -(-len(references) // MAX_REFERENCES)]
        candidates, references = _smoothed(candidates), _smoothed(references)
    else:
        references = torch.where(references == 0, FLOOR, references.double())
    rows_at_once = max(1, _MAX_PAIRS_AT_ONCE // len(references))
    histogram = _own_bins if variant == "faithful" else _fixed_bins
    parts = [
        histogram(kl_divergences(part, references))
        for part in torch.split(candidates, rows_at_once)
    ]
    return torch.cat(parts).float() / len(references)


def kl_divergences(candidates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """(R, D) and (M, D) positive weights -> (R, M) KL(candidate || reference), nats, float64.

    Both are normalised first; every pair comes from one matrix product.
    """
    p = candidates.double() / candidates.double().sum(dim=1, keepdim=True)
    q = references.double() / references.double().sum(dim=1, keepdim=True)
    divergences = (p * p.log()).sum(dim=1, keepdim=True) - p @ q.log().T
    # Equal distributions: exactly zero, not what rounding leaves, which bins would pull apart.
    return torch.where(divergences < _ROUNDING, 0.0, divergences)


def _smoothed(weights: torch.Tensor) -> torch.Tensor:
    shares = weights.double() / weights.double().sum(dim=1, keepdim=True).clamp(min=FLOOR)
    return shares + SMOOTHING


def _own_bins(values: torch.Tensor) -> torch.Tensor:
    """(R, M) -> (R, 32) counts in equal bins over each row's range, as `numpy.histogram` counts."""
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    is_flat = high - low < _ROUNDING  # equal but for rounding
    values = torch.where(is_flat, low, values)
    low, high = torch.where(is_flat, low - 0.5, low), torch.where(is_flat, high + 0.5, high)
    steps = torch.arange(NUM_BINS + 1, device=values.device, dtype=values.dtype) / NUM_BINS
    edges = low + (high - low) * steps  # (R, 33)
    index = ((values - low) / (high - low) * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    index = index - (values < edges.gather(1, index)).long()
    is_above = (values >= edges.gather(1, index + 1)) & (index < NUM_BINS - 1)
    return _counted(index + is_above.long())


def _fixed_bins(values: torch.Tensor) -> torch.Tensor:
    """(R, M) -> (R, 32) counts between 31 edges spaced logarithmically from 0.001 nats."""
    edges = torch.logspace(
        -3, math.log10(math.log(1 / SMOOTHING)), NUM_BINS - 1, device=values.device
    )
    return _counted(torch.bucketize(values.float(), edges))


def _counted(index: torch.Tensor) -> torch.Tensor:
    num_rows = len(index)
    offsets = NUM_BINS * torch.arange(num_rows, device=index.device)
    counts = torch.bincount((index + offsets[:, None]).reshape(-1), minlength=num_rows * NUM_BINS)
    return counts.reshape(num_rows, NUM_BINS)
