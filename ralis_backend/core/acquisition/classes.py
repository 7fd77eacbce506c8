"""Strategies that ask which classes still lack labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ralis_backend.core.acquisition.diversity import standardised
from ralis_backend.core.acquisition.state import PoolState, greedy_scores, lazy_greedy_scores
from ralis_backend.core.acquisition.strategy import Needs, Scorer, likeliest
from ralis_backend.core.acquisition.uncertainty import mean_entropy
from ralis_backend.core.features import BLOCK, RegionFeatures

RARITY_FLOOR = 0.005
"""Added to each class's share of the labels: what bounds the weight of a class without any."""
_TINY = 1e-12


def rarity_terms(state: PoolState, actions: RegionFeatures) -> np.ndarray:
    """(R, C) pbar_c / (l_c + 0.005): mean probability over labelled share of each class.

    0 for classes that nobody looks for, however few labels they have: see `PoolState.looked_for`.
    """
    weights = 1 / (state.labelled_shares + RARITY_FLOOR)
    weights = weights * state.looked_for(len(weights))
    terms: np.ndarray = actions.class_probabilities * weights.astype(np.float32)
    return terms


class Rarity(Scorer):
    """Regions that probably show classes with few labels."""

    name = "rarity"
    needs = Needs.of("class_probabilities")
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) expected rarity."""
        return np.asarray(rarity_terms(state, actions).sum(axis=1), np.float32)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the class that counts most."""
        best = rarity_terms(state, actions).argmax(axis=1)
        shares = 100 * actions.class_probabilities[np.arange(len(best)), best]
        return [
            f"may show {class_names[index]} ({share:.0f} % expected), which has few labels"
            for index, share in zip(best.tolist(), shares.tolist(), strict=True)
        ]


class EntropyRarity(Rarity):
    """Mean entropy x expected rarity."""

    name = "entropy-rarity"
    needs = Needs.of("entropy", "class_probabilities")

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) their product."""
        return np.asarray(actions.entropy * super().scores(state, actions), np.float32)


class BaldRarity(Rarity):
    """Mean BALD x expected rarity: sum_c pbar_c / (l_c + 0.005)."""

    name = "bald-rarity"
    needs = Needs.of("bald", "class_probabilities")

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) their product."""
        return np.asarray(actions.bald * super().scores(state, actions), np.float32)


class ClassBal(Scorer):
    """Uncertainty, less where the region's main class is the main class of many.

    U scaled to [0, 1] x exp(-share of candidates with the same predicted main class). Source: Cai
    et al., "Revisiting Superpixels for Active Learning in Semantic Segmentation with Realistic
    Annotation Costs", CVPR 2021 (ClassBal).
    """

    name = "class-bal"
    needs = Needs.of("entropy", "class_counts", "class_probabilities")

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) balanced entropy."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        doubt = mean_entropy(actions)
        scaled = (doubt - doubt.min()) / max(_TINY, float(np.ptp(doubt)))
        main = actions.class_counts.argmax(axis=1)
        shares = np.bincount(main, minlength=actions.class_counts.shape[1]) / len(actions)
        return np.asarray(scaled * np.exp(-shares[main]), np.float32)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the classes in question."""
        return [
            f"uncertain in a class seldom seen: {seen}" for seen in likeliest(actions, class_names)
        ]


class ClaspPe(Scorer):
    """Entropy class by class for two thirds of a batch, plain for the rest, with falling noise.

    66 % of the picks are split equally over the classes that are looked for, by U_c = mean of
    H(x) p_c(x), 34 % go by mean entropy; keys ln U + Gumbel(0, 1 / beta), beta = 100 ** progress.
    Source: Lueth et al., "ClaSP PE", arXiv:2601.13677.
    """

    name = "clasp-pe"
    needs = Needs.of("entropy", "class_entropy")
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
        sought = np.flatnonzero(state.looked_for(num_classes))
        # whose turn it is: an equal share for each class, in a random order
        turns = np.where(
            state.rng.random(4 * state.count + len(actions)) < self.class_share,
            np.resize(state.rng.permutation(sought), 4 * state.count + len(actions)),
            num_classes,
        )
        turn = iter(turns)
        return greedy_scores(state, len(actions), lambda: keys[:, next(turn)], lambda _: None)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the class whose doubt is greatest here."""
        is_sought = state.looked_for(actions.class_entropy.shape[1])
        best = (actions.class_entropy * is_sought).argmax(axis=1).tolist()
        return [f"uncertain about {class_names[index]}" for index in best]


class Coverage(Scorer):
    """Picks that together cover every class's doubtful pixels.

    Greedy on sum_c ln(1 + sum over picked pixels of p_c(x) BALD(x) / mean BALD / (n_c + 60)),
    n_c the labelled points of class c, a point for every 8 x 8 pixels. The background and
    removed classes are no classes to cover.
    """

    name = "coverage"
    needs = Needs.of("bald", "class_bald", "class_counts")
    prior = 60.0
    pixels_per_point = 64.0

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        return cover(state, actions, actions.class_bald, self.prior, self.pixels_per_point)

    def alone(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) doubtful points of each class over those it has, summed.

        That is the gain of a first pick, but for the logarithm and the pool's mean BALD.
        """
        masses, base = _masses(
            state, actions, actions.class_bald, self.prior, self.pixels_per_point, 1.0
        )
        return np.asarray((masses / base).sum(axis=1), np.float32)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the class that counts most."""
        weights = 1 / (state.labelled_pixels / self.pixels_per_point + self.prior)
        weights = weights * state.looked_for(len(weights))
        best = (actions.class_bald * weights).argmax(axis=1).tolist()
        return [
            f"may teach the model {class_names[index]}, which needs more labels" for index in best
        ]


class DiverseCoverage(Coverage):
    """`coverage` whose picks of a batch also look unlike each other, while few labels are there.

    From the logarithm of what a region adds is taken w times its likeness to the earlier pick of
    the batch that it looks most like: cosine similarity of embeddings, in deviations from the mean
    of all candidates, 0 to 4. w falls with the logarithm of the number of labelled regions, from
    0.8 at 24 to 0 at 192; from there on it is `coverage`.
    """

    name = "coverage-diverse"
    needs = Needs.of("bald", "class_bald", "class_counts", "embeddings")
    most_apart = 0.8
    fades = (24, 192)

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        apart = self.apart(len(state.labelled_pixels_by_region))
        return cover(state, actions, actions.class_bald, self.prior, self.pixels_per_point, apart)

    def apart(self, num_labelled: int) -> float:
        """How much likeness counts with so many labelled regions, in [0, 0.8]."""
        whole, none = np.log(self.fades)
        left = (none - np.log(max(1, num_labelled))) / (none - whole)
        return float(self.most_apart * np.clip(left, 0, 1))


def cover_gains(
    state: PoolState,
    actions: RegionFeatures,
    class_bald: np.ndarray,
    prior: float,
    pixels_per_point: float,
    mean_bald: float | None = None,
) -> np.ndarray:
    """(R,) what each region alone would add to the cover; see `Coverage`.

    `mean_bald` is that of all candidates, where `actions` are only some of them.
    """
    masses, base = _masses(state, actions, class_bald, prior, pixels_per_point, mean_bald)
    gains: np.ndarray = np.log1p(masses / base).sum(axis=1)
    return gains


def cover(
    state: PoolState,
    actions: RegionFeatures,
    class_bald: np.ndarray,
    prior: float,
    pixels_per_point: float,
    apart: float = 0.0,
) -> np.ndarray:
    """(R,) scores of the greedy cover of (R, C) mean BALD by class; see `Coverage`.

    `apart`: how much the picks are kept from looking alike, see `DiverseCoverage`.
    """
    masses, base = _masses(state, actions, class_bald, prior, pixels_per_point)
    covered, near = np.ones(len(base)), np.zeros(len(actions))
    looks = actions.embeddings if apart else np.empty((len(actions), 0))  # once: it may be a copy

    def gains(index: np.ndarray) -> np.ndarray:
        gained = np.empty(len(index))
        for start in range(0, len(index), BLOCK):  # the logarithms of all take much memory
            block = slice(start, start + BLOCK)
            gained[block] = np.log1p(masses[index[block]] / base / covered).sum(axis=1)
        return np.log(np.maximum(gained, _TINY)) - apart * near[index] if apart else gained

    def take(index: int) -> None:
        covered[:] += masses[index] / base
        if apart:
            near[:] = np.maximum(near, standardised(looks @ looks[index]))

    return lazy_greedy_scores(state, len(actions), gains, take)


def _masses(
    state: PoolState,
    actions: RegionFeatures,
    class_bald: np.ndarray,
    prior: float,
    pixels_per_point: float,
    mean_bald: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(R, C) doubtful points of each class in each region, and (C,) points that it has."""
    sizes = actions.class_counts.sum(axis=1, keepdims=True) / pixels_per_point  # points a region
    mean_bald = float(actions.bald.mean()) if mean_bald is None else mean_bald
    sought = class_bald * state.looked_for(class_bald.shape[1])
    return sought * sizes / max(_TINY, mean_bald), state.labelled_pixels / pixels_per_point + prior
