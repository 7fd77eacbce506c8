"""Features of regions as a table: a column for each feature that somebody needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

FEATURES: dict[str, str] = {
    "entropy": "(R,) mean over the region's pixels, nats",
    "margin": "(R,) mean of the best minus the second-best class probability; small is uncertain",
    "class_probabilities": "(R, C) mean over the region's pixels; rows sum to 1",
    "embeddings": "(R, D) mean encoder features, of unit length",
    "class_counts": "(R, C) pixels whose most probable class is C; rows sum to the region's pixels",
    "entropy_grid": "(R, 192) `entropy_grid` of the region's entropy map",
    "bald": "(R,) mean of how much passes with dropout disagree, nats",
    "class_entropy": "(R, C) mean of each class's probability times entropy",
    "class_bald": "(R, C) mean of each class's probability times BALD",
    "boundary": "(R,) share of pixels whose right or lower neighbour is predicted another class",
    "mirror_divergence": "(R,) mean symmetric Kullback-Leibler divergence between the prediction "
    "and that of the mirrored image, nats",
}
"""Name and meaning of every feature; all are float32."""


class NotDescribed(ValueError, AttributeError):
    """A feature that nobody asked for; the message says how to."""


class RegionFeatures:
    """Features of R regions: attributes of the names in `FEATURES`, those that were described.

    Args:
        num_regions: R.
        values: arrays by name, each with R rows.

    Raises:
        ValueError: if a name is unknown or an array has another number of rows.
    """

    entropy: np.ndarray
    margin: np.ndarray
    class_probabilities: np.ndarray
    embeddings: np.ndarray
    class_counts: np.ndarray
    entropy_grid: np.ndarray
    bald: np.ndarray
    class_entropy: np.ndarray
    class_bald: np.ndarray
    boundary: np.ndarray
    mirror_divergence: np.ndarray

    def __init__(self, num_regions: int, values: Mapping[str, np.ndarray]) -> None:
        for name, array in values.items():
            if name not in FEATURES:
                raise ValueError(f"unknown feature '{name}'; expected one of {', '.join(FEATURES)}")
            if len(array) != num_regions:
                raise ValueError(f"{name} has {len(array)} rows, expected {num_regions} regions")
        self._num_regions = num_regions
        self._values = dict(values)

    def __len__(self) -> int:
        return self._num_regions

    def __iter__(self) -> Iterator[str]:
        """The names of the features that were described."""
        return iter(self._values)

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._values[name]
        except KeyError:
            raise NotDescribed(
                f"the regions' {name} was not described; a strategy that looks at it names it "
                f"among its needs (described: {', '.join(self) or 'nothing'})"
            ) from None

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in FEATURES:  # also what copy and pickle look for
            raise AttributeError(name)
        return self[name]

    def take(self, indices: np.ndarray) -> RegionFeatures:
        """The features of some of the regions."""
        indices = np.asarray(indices)
        chosen = {name: values[indices] for name, values in self._values.items()}
        count = int(indices.sum()) if indices.dtype == bool else len(indices)
        return RegionFeatures(count, chosen)

    def replaced(self, **values: np.ndarray) -> RegionFeatures:
        """The same with some features changed or added."""
        return RegionFeatures(self._num_regions, {**self._values, **values})


def concat(features: Sequence[RegionFeatures]) -> RegionFeatures:
    """The regions of several images, one after another.

    Raises:
        ValueError: if there is nothing to join.
    """
    if not features:
        raise ValueError("no features to join; describe at least one image first")
    return RegionFeatures(
        sum(map(len, features)),
        {name: np.concatenate([each[name] for each in features]) for name in features[0]},
    )
