"""Rewards -> advantages: by how much an action was better than what is usual."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import distributed

EPSILON = 1e-6
ROUNDING = 1e-5
"""A deviation below this share of the mean is that of float32, not of the rewards."""


def spatial_differences(actions: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """PSD: where two maps of an image differ, the better one's actions are credited.

    That the difference of two action maps and of their scores gives the advantage of one over the
    other is the paper's [P]; the formula is ours [D]: with D_ij(x) = 1 where maps i and j differ,

        A_i(x) = mean over j != i of D_ij(x) (s_i - s_j) / (mean over x of D_ij + 1e-6).

    At each cell the advantages of all maps sum up to 0.

    Args:
        actions: (G, B, rows, cols) int64 classes.
        scores: (G, B) float32.

    Returns:
        (G, B, rows, cols) float32, 0 where a map agrees with all others.
    """
    num_maps = len(actions)
    advantages = torch.zeros(actions.shape, device=scores.device)
    for index in range(num_maps):
        differs = (actions[index] != actions).float()  # (G, B, rows, cols)
        gains = (scores[index] - scores) / (differs.mean(dim=(2, 3)) + EPSILON)  # (G, B)
        advantages[index] = torch.einsum("gbrc,gb->brc", differs, gains) / (num_maps - 1)
    return advantages


def centred_scores(actions: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Without PSD: every action of a map is credited with its score, less the image's mean.

    Args and returns as of `spatial_differences`.
    """
    mean = scores.mean(dim=0)
    centred = _spread(scores - mean, mean, (scores - mean).square().mean(dim=0))
    return centred[..., None, None].expand(actions.shape)


def plain_rewards(rewards: torch.Tensor) -> torch.Tensor:
    """Rewards of pixels as they are: the expected reward is raised.

    The gradient at a pixel is that of cross-entropy times the probability of its true class: what
    the segmenter is sure of and wrong about is hardly learned.

    Args:
        rewards: (G, B, H, W) float32, not below 0.

    Returns:
        The same.
    """
    return rewards


def relative_rewards(rewards: torch.Tensor) -> torch.Tensor:
    """Rewards of pixels by the mean of the pixel's: the logarithm of the expected reward is raised.

    With rewards of 0 and 1 that is the likelihood of the true class, as with cross-entropy, at
    pixels where one map at least is right [D].

    Args:
        rewards: (G, B, H, W) float32, not below 0.

    Returns:
        (G, B, H, W) float32: reward / mean - 1, 0 where no map is rewarded.
    """
    mean = rewards.mean(dim=0)
    centred = _spread(rewards - mean, mean, (rewards - mean).square().mean(dim=0))
    return torch.where(mean > 0, centred / mean.clamp(min=EPSILON), 0.0)


def synchronised(values: torch.Tensor, is_known: torch.Tensor) -> torch.Tensor:
    """SyncAN: less the mean, by the deviation, of all samples, images and devices together.

    That normalisation is synchronised is the paper's [P]; over what, is our reading [D]. Where
    `torch.distributed` is initialised, all processes have to call this at the same time.

    Args:
        values: (G, B, rows, cols) float32.
        is_known: (B, rows, cols) or of the same shape, bool: which count.

    Returns:
        (G, B, rows, cols) float32; 0 where nothing is known, and where all values are equal.
    """
    known = is_known.expand(values.shape)
    count, total = _over_processes(torch.stack([known.sum(), (values * known).sum()]))
    mean = total / count.clamp(min=1)
    centred = (values - mean) * known
    (squares,) = _over_processes(centred.square().sum()[None])
    return _normalised(centred, mean, squares / count.clamp(min=1))


def per_image(values: torch.Tensor, is_known: torch.Tensor) -> torch.Tensor:
    """Without SyncAN: each image's samples have a mean and a deviation of their own.

    Args and returns as of `synchronised`.
    """
    known, over = is_known.expand(values.shape), (0, 2, 3)
    count = known.sum(dim=over, keepdim=True).clamp(min=1)
    mean = (values * known).sum(dim=over, keepdim=True) / count
    centred = (values - mean) * known
    return _normalised(centred, mean, centred.square().sum(dim=over, keepdim=True) / count)


def _normalised(centred: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    return _spread(centred, mean, variance) / (variance.sqrt() + EPSILON)


def _spread(centred: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """What is left of values less their mean; 0 where they differ by rounding alone."""
    return torch.where(variance.sqrt() > ROUNDING * mean.abs(), centred, 0.0)


def _over_processes(sums: torch.Tensor) -> torch.Tensor:
    """The sums of every process together."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums)
    return sums


CREDITS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "psd": spatial_differences,
    "score": centred_scores,
}
"""How scores of whole maps become advantages of their actions."""
PIXEL_CREDITS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "plain": plain_rewards,
    "relative": relative_rewards,
}
"""How rewards of pixels become advantages of their actions."""
NORMALISATIONS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "synchronised": synchronised,
    "per-image": per_image,
}
"""How advantages are brought to one scale."""
