"""Strategies that ask which classes still lack labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ralis_backend.core.acquisition.state import PoolState, greedy_scores, likeliest
from ralis_backend.core.acquisition.uncertainty import mean_entropy
from ralis_backend.core.features import RegionFeatures

RARITY_FLOOR = 0.005
"""Added to each class's share of the labels: what bounds the weight of a class without any."""
_TINY = 1e-12


def rarity_terms(state: PoolState, actions: RegionFeatures) -> np.ndarray:
    """(R, C) pbar_c / (l_c + 0.005): mean probability over labelled share of each class."""
    weights = 1 / (state.labelled_shares + RARITY_FLOOR)
    terms: np.ndarray = actions.class_probabilities * weights.astype(np.float32)
    return terms


class Rarity:
    """Regions that probably show classes with few labels."""

    name = "rarity"
    looks_twice = False
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) expected rarity."""
        return np.asarray(rarity_terms(state, actions).sum(axis=1), np.float32)

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the class that counts most."""
        best = int(np.argmax(rarity_terms(state, actions)[index]))
        share = 100 * actions.class_probabilities[index, best]
        return f"may show {class_names[best]} ({share:.0f} % expected), which has few labels"


class EntropyRarity(Rarity):
    """Mean entropy x expected rarity."""

    name = "entropy-rarity"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) their product."""
        return np.asarray(actions.entropy * super().scores(state, actions), np.float32)


class BaldRarity(Rarity):
    """Mean BALD x expected rarity: sum_c pbar_c / (l_c + 0.005)."""

    name = "bald-rarity"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) their product."""
        return np.asarray(actions.bald * super().scores(state, actions), np.float32)


class ClassBal:
    """Uncertainty, less where the region's main class is the main class of many.

    U scaled to [0, 1] x exp(-share of candidates with the same predicted main class). Source: Cai
    et al., "Revisiting Superpixels for Active Learning in Semantic Segmentation with Realistic
    Annotation Costs", CVPR 2021 (ClassBal).
    """

    name = "class-bal"
    looks_twice = False
    is_pointwise = False

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) balanced entropy."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        doubt = mean_entropy(actions)
        scaled = (doubt - doubt.min()) / max(_TINY, float(np.ptp(doubt)))
        main = actions.class_counts.argmax(axis=1)
        shares = np.bincount(main, minlength=actions.class_counts.shape[1]) / len(actions)
        return np.asarray(scaled * np.exp(-shares[main]), np.float32)

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the classes in question."""
        return f"uncertain in a class seldom seen: {likeliest(actions, index, class_names)}"


class ClaspPe:
    """Entropy class by class for two thirds of a batch, plain for the rest, with falling noise.

    66 % of the picks are split equally over classes by U_c = mean of H(x) p_c(x), 34 % go by mean
    entropy; keys ln U + Gumbel(0, 1 / beta), beta = 100 ** progress. Source: Lueth et al., "ClaSP
    PE", arXiv:2601.13677.
    """

    name = "clasp-pe"
    looks_twice = False
    is_pointwise = False
    class_share = 0.66
    last_beta = 100.0

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        columns = np.column_stack([actions.class_entropy, actions.entropy])
        beta = self.last_beta ** min(1.0, max(0.0, state.progress))
        noise = state.rng.gumbel(size=columns.shape) / beta
        keys = np.log(np.maximum(columns, _TINY)) + noise  # (R, classes + 1)
        num_classes = actions.class_entropy.shape[1]
        # whose turn it is: an equal share for each class, in a random order
        turns = np.where(
            state.rng.random(4 * state.count + len(actions)) < self.class_share,
            np.resize(state.rng.permutation(num_classes), 4 * state.count + len(actions)),
            num_classes,
        )
        turn = iter(turns)
        return greedy_scores(state, len(actions), lambda: keys[:, next(turn)], lambda _: None)

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the class whose doubt is greatest here."""
        best = int(np.argmax(actions.class_entropy[index]))
        return f"uncertain about {class_names[best]}"


class Coverage:
    """Picks that together cover every class's doubtful pixels.

    Greedy on sum_c ln(1 + sum over picked pixels of p_c(x) BALD(x) / mean BALD / (n_c + 60)),
    n_c the labelled points of class c, a point for every 8 x 8 pixels.
    """

    name = "coverage"
    looks_twice = False
    is_pointwise = False
    prior = 60.0
    pixels_per_point = 64.0

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        return cover(state, actions, actions.class_bald, self.prior, self.pixels_per_point)

    def reason(
        self, state: PoolState, actions: RegionFeatures, index: int, class_names: Sequence[str]
    ) -> str:
        """Names the class that counts most."""
        weights = 1 / (state.labelled_pixels / self.pixels_per_point + self.prior)
        best = int(np.argmax(actions.class_bald[index] * weights))
        return f"may teach the model {class_names[best]}, which needs more labels"


def cover_gains(
    state: PoolState,
    actions: RegionFeatures,
    class_bald: np.ndarray,
    prior: float,
    pixels_per_point: float,
) -> np.ndarray:
    """(R,) what each region alone would add to the cover; see `Coverage`."""
    masses, base = _masses(state, actions, class_bald, prior, pixels_per_point)
    gains: np.ndarray = np.log1p(masses / base).sum(axis=1)
    return gains


def cover(
    state: PoolState,
    actions: RegionFeatures,
    class_bald: np.ndarray,
    prior: float,
    pixels_per_point: float,
) -> np.ndarray:
    """(R,) scores of the greedy cover of (R, C) mean BALD by class; see `Coverage`."""
    masses, base = _masses(state, actions, class_bald, prior, pixels_per_point)
    covered = np.ones(len(base))

    def gains() -> np.ndarray:
        gained: np.ndarray = np.log1p(masses / base / covered).sum(axis=1)
        return gained

    def take(index: int) -> None:
        covered[:] += masses[index] / base

    return greedy_scores(state, len(actions), gains, take)


def _masses(
    state: PoolState,
    actions: RegionFeatures,
    class_bald: np.ndarray,
    prior: float,
    pixels_per_point: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(R, C) doubtful points of each class in each region, and (C,) points that it has."""
    sizes = actions.class_counts.sum(axis=1, keepdims=True) / pixels_per_point  # points a region
    mean_bald = max(_TINY, float(actions.bald.mean()))
    return class_bald * sizes / mean_bald, state.labelled_pixels / pixels_per_point + prior
