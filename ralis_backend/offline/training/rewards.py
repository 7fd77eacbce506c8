"""Rewards: how much better a segmenter became, from its confusion matrices before and after.

A score is one number of one matrix; a reward is the difference of two scores. Scores are of the
classes that the true masks hold: one pixel taken for a class that is absent would otherwise count
as much as a class that is missed throughout. The background is left out, unless there is nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature

import numpy as np

from ralis_backend.core.metrics import ious
from ralis_backend.core.registry import Registry

Score = Callable[..., float]
"""(C, C) confusion matrix, and `background`, which class is left out or None, -> score."""

SCORED_CLASSES = "shown"
"""Over which classes scores are: another name where another rule makes other scores."""

ENET_EPSILON = 1.02
CVAR_SHARE = 0.3


def miou(matrix: np.ndarray, background: int | None = None) -> float:
    """Mean IoU, in [0, 1]."""
    known = ious(matrix)[_is_scored(matrix, background)]
    return float(known.mean()) if known.size else float("nan")


def class_weights(frequencies: np.ndarray, epsilon: float = ENET_EPSILON) -> np.ndarray:
    """(C,) weights 1 / ln(f_c + epsilon) of classes with these shares of the pixels.

    Only with epsilon just above 1, as in ENet (arXiv:1606.02147), does a rarer class weigh more;
    with a small one, as the formula is printed in the RALIS follow-up (ISPRS Archives), the
    logarithm is negative and a rarer class weighs less.

    Raises:
        ValueError: if a weight is not finite: f_c + epsilon is 1 for some class.
    """
    with np.errstate(divide="ignore"):
        weights = 1 / np.log(frequencies + epsilon)
    if not np.isfinite(weights).all():
        raise ValueError(f"epsilon {epsilon} makes a class weight infinite; take another, as 1.02")
    return np.asarray(weights)


def wiou(matrix: np.ndarray, background: int | None = None, epsilon: float = ENET_EPSILON) -> float:
    """Weighted IoU, sum_c W_c IoU_c / sum_c W_c, see `class_weights`.

    f_c is the class's share of the annotated pixels.
    """
    pixels = matrix.sum(axis=1)
    is_scored = _is_scored(matrix, background)
    if not is_scored.any():
        return float("nan")
    weights = class_weights(pixels[is_scored] / pixels.sum(), epsilon)
    return float((weights * ious(matrix)[is_scored]).sum() / weights.sum())


def cvar(matrix: np.ndarray, background: int | None = None, share: float = CVAR_SHARE) -> float:
    """Mean IoU of the worst `share` of the classes (at least one)."""
    known = np.sort(ious(matrix)[_is_scored(matrix, background)])
    if not known.size:
        return float("nan")
    return float(known[: max(1, round(share * known.size))].mean())


def log_pixels(matrix: np.ndarray, background: int | None = None) -> float:
    """Mean over classes of ln(1 + pixels found correctly): rare classes count like frequent ones.

    Follows the premise of MiSiCAL (arXiv:2307.09109) that a class's IoU grows with the logarithm
    of its pixels; divided by ln(1 + its pixels), so that it lies in [0, 1].
    """
    pixels = matrix.sum(axis=1)
    known = _is_scored(matrix, background)
    if not known.any():
        return float("nan")
    return float((np.log1p(np.diagonal(matrix)[known]) / np.log1p(pixels[known])).mean())


def _is_scored(matrix: np.ndarray, background: int | None) -> np.ndarray:
    """(C,) whether a class counts: the true masks hold it, and it is not the background alone."""
    is_scored: np.ndarray = matrix.sum(axis=1) > 0
    if background is not None and is_scored.sum() > is_scored[background]:
        is_scored[background] = False
    return is_scored


SCORES: Registry[Score] = Registry("reward", "ralis_backend.rewards")
"""Names of rewards -> scores; a reward of one's own is one function and one entry."""
SCORES.register("miou", miou)
SCORES.register("wiou", wiou)
SCORES.register("wiou-printed", partial(wiou, epsilon=1e-6))
SCORES.register("cvar", cvar)
SCORES.register("log_pixels", log_pixels)


def find_score(name: str, background: int | None = None) -> Score:
    """The score of that name, for confusion matrices of a dataset with that background.

    Raises:
        ValueError: if there is none, naming those there are, or it cannot leave a background out.
    """
    score = SCORES.find(name)
    if background is None:
        return score
    if "background" not in signature(score).parameters:
        raise ValueError(
            f"reward '{name}' has no parameter 'background', and classes.json of the dataset names "
            "one, which is not scored; give it the parameter, as miou has it, or choose another "
            "reward"
        )
    return partial(score, background=background)


def reward(
    name: str, before: np.ndarray, after: np.ndarray, background: int | None = None
) -> float:
    """Points (hundredths) that the score rose from one confusion matrix to another.

    Args:
        name: of the score.
        before: (C, C) confusion matrix, a row per true class.
        after: the same, later.
        background: index of the class that is not scored; None: there is none.
    """
    of = find_score(name, background)
    return 100 * (of(after) - of(before))


def balanced_regions(class_pixels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Regions whose classes occur about equally often, for a class-balanced reward set.

    Each draw looks for the class with the fewest pixels so far, and takes a region at random by its
    pixels of that class.

    Args:
        class_pixels: (R, C) pixels of each class in each region.
        count: number of regions, drawn without repetition.
        rng: draws.

    Returns:
        (count,) indices of regions.
    """
    count = min(count, len(class_pixels))
    left = class_pixels.astype(np.float64)
    gathered = np.zeros(class_pixels.shape[1])
    chosen = np.empty(count, np.int64)
    for turn in range(count):
        available = left.sum(axis=0) > 0
        if available.any():
            rarest = int(np.argmin(np.where(available, gathered, np.inf)))
            chances = left[:, rarest] / left[:, rarest].sum()
        else:  # regions without any label are left
            is_open = np.ones(len(left), bool)
            is_open[chosen[:turn]] = False
            chances = is_open / is_open.sum()
        chosen[turn] = rng.choice(len(left), p=chances)
        gathered += class_pixels[chosen[turn]]
        left[chosen[turn]] = 0
    return chosen
