"""Strategies that look for one class: more of what there is too little of.

Each needs a target class, `name:class`. They know what the segmenter sees; `similarity` knows what
labelled regions of the class, or examples of it, look like.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ralis_backend.core.acquisition.diversity import most_similar
from ralis_backend.core.acquisition.state import PoolState
from ralis_backend.core.acquisition.strategy import Needs, Scorer
from ralis_backend.core.features import BLOCK, RegionFeatures

_TEMPERATURE = 0.05
"""Of similarities: a labelled region that is 0.05 less similar counts a third of another."""


def target_of(state: PoolState, num_classes: int) -> int:
    """Index of the class that is sought.

    Raises:
        ValueError: if none is, or the segmenter has fewer classes.
    """
    if state.target_class is None or not 0 <= state.target_class < num_classes:
        raise ValueError(
            f"a strategy that looks for one class was told class {state.target_class} of "
            f"{num_classes}; name it as `strategy:class`"
        )
    return state.target_class


class Miner(Scorer):
    """What strategies that look for one class have in common; a subclass adds the scores."""

    needs = Needs(frozenset(("class_probabilities", "class_peaks")), has_target_class=True)
    is_pointwise = True

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the class, and how probable the segmenter finds it where it is most probable."""
        target = target_of(state, actions.class_peaks.shape[1])
        return [
            f"looks for {class_names[target]}: {100 * peak:.0f} % probable here"
            for peak in actions.class_peaks[:, target].tolist()
        ]


class Presence(Miner):
    """Where the segmenter sees most of the class: its mean probability."""

    name = "presence"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) mean probability of the class, in [0, 1]."""
        target = target_of(state, actions.class_probabilities.shape[1])
        return np.asarray(actions.class_probabilities[:, target], np.float32)


class PresenceMax(Miner):
    """Where the segmenter is surest to see the class anywhere: its largest probability."""

    name = "presence-max"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) largest probability of the class in a cell of the region, in [0, 1]."""
        target = target_of(state, actions.class_peaks.shape[1])
        return np.asarray(actions.class_peaks[:, target], np.float32)


class PresenceBald(Miner):
    """Where passes of the segmenter disagree about what it takes for the class."""

    name = "presence-bald"
    needs = Needs(Miner.needs.features | {"class_bald"}, has_target_class=True)

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) mean of the class's probability times BALD, nats."""
        target = target_of(state, actions.class_bald.shape[1])
        return np.asarray(actions.class_bald[:, target], np.float32)


class Similarity(Miner):
    """What looks like labelled regions with much of the class, and unlike those without it.

    The mean share of the class in labelled regions, weighted by exp(cosine similarity / 0.05) (the
    Nadaraya-Watson estimate). Where no labelled region shows the class, the cosine similarity to
    the most similar of `PoolState.examples` instead; where there is none, its mean probability.
    """

    name = "similarity"
    needs = Needs(Miner.needs.features | {"embeddings"}, has_target_class=True)

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) expected share of the class, the similarity to an example, or its probability."""
        target = target_of(state, actions.class_probabilities.shape[1])
        known, pixels = state.known_embeddings, _embedded_pixels(state)
        painted = pixels[:, :-1].sum(axis=1)
        shares = pixels[:, target] / np.maximum(1, painted)
        if shares.any() and len(known) == len(pixels):
            is_painted = painted > 0
            return _kernel_mean(actions.embeddings, known[is_painted], shares[is_painted])
        if state.examples is not None and len(state.examples):
            return np.asarray(most_similar(actions.embeddings, state.examples), np.float32)
        return np.asarray(actions.class_probabilities[:, target], np.float32)

    def alone(self, state: PoolState, actions: RegionFeatures) -> np.ndarray | None:
        """The scores; None where the labelled regions' looks are not known, as the pool's were."""
        is_known = len(state.known_embeddings) == len(_embedded_pixels(state))
        return self.scores(state, actions) if is_known else None


def _embedded_pixels(state: PoolState) -> np.ndarray:
    """(L, C + 1) pixels of the regions whose embeddings are known."""
    pixels = state.embedded_pixels
    return state.labelled_pixels_by_region if pixels is None else pixels


def _kernel_mean(embeddings: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(R, D), (L, D) of unit length and (L,) -> (R,) means of the values, by similarity."""
    means = np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), BLOCK):
        some = slice(start, start + BLOCK)
        logits = embeddings[some] @ known.T / _TEMPERATURE
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        means[some] = weights @ values / weights.sum(axis=1)
    return means
