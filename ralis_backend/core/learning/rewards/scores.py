"""Action maps -> scores: who judges them, and how well.

What learns is handed a judge, a function of maps. It never sees what the judge goes by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ralis_backend.core.regions import VOID

Judge = Callable[[torch.Tensor], torch.Tensor]
"""(G, B, H, W) int64 class maps of a batch of B crops -> (G, B) float32 scores in [0, 1]."""


@dataclass(frozen=True)
class JudgedPixels:
    """Rewards of each pixel of each map.

    values: (G, B, H, W) float32 in [0, 1], anything where nobody knows.
    is_known: (B, H, W) bool: where somebody knows.
    """

    values: torch.Tensor
    is_known: torch.Tensor


PixelJudge = Callable[[torch.Tensor], JudgedPixels]
"""(G, B, H, W) int64 class maps of a batch of B crops -> rewards of their pixels."""


def mean_ious(maps: torch.Tensor, masks: torch.Tensor, num_classes: int) -> torch.Tensor:
    """The mean IoU of each map over the classes that its mask holds.

    A class that is said and absent counts against those it was mistaken for, and is no class of its
    own: else one wrong pixel would weigh as much as a class.

    Args:
        maps: (G, B, H, W) int64 class indices.
        masks: (B, H, W) int64, VOID where nothing is known.
        num_classes: C.

    Returns:
        (G, B) float32 in [0, 1]; 0 for all maps of a mask that is VOID.
    """
    num_maps, batch = maps.shape[:2]
    known = (masks != VOID).expand(maps.shape)
    which = torch.arange(num_maps * batch, device=maps.device).reshape(num_maps, batch, 1, 1)
    pairs = (which * num_classes + masks) * num_classes + maps
    counts = torch.bincount(pairs[known], minlength=num_maps * batch * num_classes**2)
    matrices = counts.reshape(num_maps, batch, num_classes, num_classes).float()
    intersection = matrices.diagonal(dim1=2, dim2=3)  # (G, B, C)
    true = matrices.sum(dim=3)
    union = true + matrices.sum(dim=2) - intersection
    is_present = true > 0
    ious = intersection / union.clamp(min=1) * is_present
    return ious.sum(dim=2) / is_present.sum(dim=2).clamp(min=1)


def correct_pixels(maps: torch.Tensor, masks: torch.Tensor) -> JudgedPixels:
    """1 for each pixel that has its mask's class, else 0 [P]; unknown where the mask is VOID.

    Args:
        maps: (G, B, H, W) int64 class indices.
        masks: (B, H, W) int64.
    """
    return JudgedPixels((maps == masks).float(), masks != VOID)


@dataclass(frozen=True)
class Noise:
    """How people's scores differ from the true ones [D].

    wrong_share: chance that a score has nothing to do with the map, in [0, 1].
    num_stars: scores are told as so many stars, the lowest 0 and the highest 1; None: exactly.
    """

    wrong_share: float = 0.0
    num_stars: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.wrong_share <= 1:
            raise ValueError(f"wrong_share is {self.wrong_share}, expected 0 to 1")
        if self.num_stars is not None and self.num_stars < 2:
            raise ValueError(f"num_stars is {self.num_stars}, expected 2 or more")

    def disturbed(self, scores: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Scores in [0, 1] as such people tell them; the generator is on the CPU."""
        if self.wrong_share:
            is_wrong = torch.rand(scores.shape, generator=generator) < self.wrong_share
            guesses = torch.rand(scores.shape, generator=generator).to(scores)
            scores = torch.where(is_wrong.to(scores.device), guesses, scores)
        if self.num_stars is not None:
            steps = self.num_stars - 1
            scores = (scores * steps).round() / steps
        return scores


def checked(scores: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Scores as a judge gave them, float32.

    Raises:
        ValueError: if there are not as many as maps, or one is not in [0, 1].
    """
    if tuple(scores.shape) != shape:
        raise ValueError(f"the scores have shape {tuple(scores.shape)}, expected {shape}, (G, B)")
    wrong = ~((scores >= 0) & (scores <= 1))  # also NaN
    if bool(wrong.any()):
        raise ValueError(
            f"a score is {float(scores[wrong][0])}, expected 0 (all wrong) to 1 (all right); "
            "divide stars or percents by the most there can be"
        )
    return scores.float()


def checked_pixels(rewards: JudgedPixels, shape: tuple[int, ...]) -> torch.Tensor:
    """Rewards as a judge gave them, (G, B, H, W) float32; 0 where nobody knows.

    Raises:
        ValueError: if there are not as many as pixels of maps, or one that counts is not in [0, 1].
    """
    if tuple(rewards.values.shape) != shape:
        found = tuple(rewards.values.shape)
        raise ValueError(f"the rewards have shape {found}, expected {shape}, (G, B, H, W)")
    values = torch.where(rewards.is_known, rewards.values, 0.0)
    wrong = ~((values >= 0) & (values <= 1))  # also NaN
    if bool(wrong.any()):
        raise ValueError(
            f"a pixel's reward is {float(values[wrong][0])}, expected 0 (wrong) to 1 (right); "
            "divide by the most there can be, and mark unknown pixels in is_known"
        )
    return values.float()
