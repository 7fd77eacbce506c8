"""Strategies that spread their picks: over looks, or over places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ralis_backend.core.acquisition.state import PoolState, greedy_scores
from ralis_backend.core.acquisition.strategy import Needs, Scorer, likeliest
from ralis_backend.core.features import RegionFeatures

_LEAST_DEVIATION = 1e-3
_MOST_DEVIATIONS = 4.0


class KCenter(Scorer):
    """Regions least like each other and anything labelled (the cold start).

    Greedy farthest-first traversal, "Active Learning for Convolutional Neural Networks: A Core-Set
    Approach", arXiv:1708.00489.
    """

    name = "k-center"
    needs = Needs.of("embeddings")

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made, then the others by their distance."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        embeddings, known = actions.embeddings, state.known_embeddings
        nearest = _distance_to_nearest(embeddings, known)  # (R,)
        if len(known) == 0:  # the first pick is the most typical
            nearest = nearest + embeddings @ embeddings.mean(axis=0)

        def take(index: int) -> None:
            np.minimum(nearest, _distances(embeddings, embeddings[index]), out=nearest)

        return greedy_scores(state, len(actions), lambda: nearest, take)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Says what it differs from."""
        is_first = len(state.known_embeddings) == 0
        reason = "a varied first selection" if is_first else "looks unlike anything labelled so far"
        return [reason] * len(actions)


class SpatialDiversity(Scorer):
    """Uncertain regions, away from those of the same image that are taken.

    Greedy on U - lambda max over taken r' of the image of exp(-d(r, r')^2 / 2 s^2), U the entropy
    scaled to [0, 1], d in regions, lambda = 0.5, s = 1. Source: arXiv:2507.17367; scaling and
    constants are ours, and labelled regions count as taken.
    """

    name = "spatial-diversity"
    needs = Needs.of("entropy", "class_probabilities")
    penalty = 0.5
    reach = 1.0

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) picks first, in the order they were made."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        doubt = (actions.entropy - actions.entropy.min()) / max(1e-12, np.ptp(actions.entropy))
        places = state.places
        if places is None:
            return np.asarray(doubt, np.float32)
        closeness = np.zeros(len(actions))

        def approach(image: int, center: np.ndarray) -> None:
            same = np.flatnonzero(places.image == image)
            squared = ((places.center[same] - center) ** 2).sum(axis=1)
            closeness[same] = np.maximum(closeness[same], np.exp(-squared / (2 * self.reach**2)))

        if state.labelled_places is not None:
            labelled = state.labelled_places
            for image, center in zip(labelled.image, labelled.center, strict=True):
                approach(int(image), center)
        return greedy_scores(
            state,
            len(actions),
            lambda: doubt - self.penalty * closeness,
            lambda index: approach(int(places.image[index]), places.center[index]),
        )

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the classes in question."""
        return [
            f"uncertain and away from other picks, mostly {seen}"
            for seen in likeliest(actions, class_names)
        ]


def _distances(embeddings: np.ndarray, center: np.ndarray) -> np.ndarray:
    """(R,) Euclidean distances between vectors of unit length, in [0, 2]."""
    distances: np.ndarray = np.sqrt(np.clip(2 - 2 * (embeddings @ center), 0, 4))
    return distances


def _distance_to_nearest(embeddings: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(R,) distance to the nearest of (L, D) centers; 2, the largest, without any."""
    if len(centers) == 0:
        return np.full(len(embeddings), 2, np.float32)
    distances: np.ndarray = np.sqrt(np.clip(2 - 2 * most_similar(embeddings, centers), 0, 4))
    return distances


def most_similar(embeddings: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(R,) cosine similarity to the most similar of (L, D) others; -1 without any."""
    best = np.full(len(embeddings), -1, np.float32)
    for row in range(0, len(embeddings), 8192):  # a block at a time bounds memory
        block = embeddings[row : row + 8192]
        for start in range(0, len(others), 1024):
            similar = (block @ others[start : start + 1024].T).max(axis=1)
            np.maximum(best[row : row + 8192], similar, out=best[row : row + 8192])
    return best


def standardised(values: np.ndarray) -> np.ndarray:
    """(R,) deviations from the mean, in standard deviations, at most 4 either way."""
    deviations: np.ndarray = (values - values.mean()) / (values.std() + _LEAST_DEVIATION)
    return np.clip(deviations, -_MOST_DEVIATIONS, _MOST_DEVIATIONS)
