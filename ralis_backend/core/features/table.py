"""Features of regions as a table: a column for each feature that somebody needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

GRID_SIDE = 8
"""Cells per side of the grid on which a region's entropy map is pooled."""

FEATURES: dict[str, str] = {
    "entropy": "(R,) mean over the region's pixels, nats",
    "margin": "(R,) mean of the best minus the second-best class probability; small is uncertain",
    "class_probabilities": "(R, C) mean over the region's pixels; rows sum to 1",
    "embeddings": "(R, D) mean encoder features, of unit length",
    "class_counts": "(R, C) pixels whose most probable class is C; rows sum to the region's pixels",
    "entropy_grid": "(R, 192) `entropy_grid` of the region's entropy map",
    "bald": "(R,) mean of how much passes with dropout disagree, nats",
    "bald_peak": "(R,) the largest of these in a cell of 4 x 4 pixels",
    "class_entropy": "(R, C) mean of each class's probability times entropy",
    "class_bald": "(R, C) mean of each class's probability times BALD",
    "class_peaks": "(R, C) largest probability of each class in a cell of 4 x 4 pixels",
    "deep_bald": "(R,) as `bald`, of passes with dropout in several layers of the decoder",
    "deep_bald_peak": "(R,) the largest of these in a cell of 4 x 4 pixels",
    "class_deep_bald": "(R, C) mean of each class's probability times deep BALD",
    "boundary": "(R,) share of pixels whose right or lower neighbour is predicted another class",
    "mirror_divergence": "(R,) mean symmetric Kullback-Leibler divergence between the prediction "
    "and that of the mirrored image, nats",
}
"""Name and meaning of every feature; all are float32."""

_MAP_OF = {
    "bald": "bald",
    "bald_peak": "bald",
    "class_bald": "bald",
    "deep_bald": "deep_bald",
    "deep_bald_peak": "deep_bald",
    "class_deep_bald": "deep_bald",
    "embeddings": "embeddings",
    "mirror_divergence": "mirrored",
}
"""Which of the segmenter's `MAPS` a feature is made of, besides probabilities."""


BLOCK = 32_768
"""Regions that are looked at together where a whole pool would take much memory."""


def maps_for(features: Collection[str]) -> frozenset[str]:
    """What a forward pass must offer besides probabilities, for these features."""
    return frozenset(_MAP_OF[name] for name in features if name in _MAP_OF)


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
    bald_peak: np.ndarray
    class_entropy: np.ndarray
    class_bald: np.ndarray
    class_peaks: np.ndarray
    deep_bald: np.ndarray
    deep_bald_peak: np.ndarray
    class_deep_bald: np.ndarray
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

    def select(self, indices: np.ndarray) -> RegionFeatures:
        """As `take`, but each feature is copied when it is looked at, and not kept.

        Of a pool whose features lie on disk, only what is looked at is in memory.
        """
        indices = np.asarray(indices)
        if len(indices) == len(self) and (indices == np.arange(len(self))).all():
            return self
        return _Selected(self, indices, {})

    def blocks(self, num_regions: int = BLOCK) -> Iterator[tuple[slice, RegionFeatures]]:
        """Some regions after the other: where each block lies, and its features."""
        for start in range(0, len(self), num_regions):
            stop = min(start + num_regions, len(self))
            yield slice(start, stop), self.take(np.arange(start, stop))

    def replaced(self, **values: np.ndarray) -> RegionFeatures:
        """The same with some features changed or added."""
        return RegionFeatures(self._num_regions, {**self._values, **values})


class _Selected(RegionFeatures):
    """Some regions of a table; `own` holds what was replaced, for these regions alone."""

    def __init__(
        self, table: RegionFeatures, indices: np.ndarray, own: Mapping[str, np.ndarray]
    ) -> None:
        self._table, self._indices, self._own = table, indices, dict(own)
        self._num_regions = len(indices)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._table, *self._own]))

    def __getitem__(self, name: str) -> np.ndarray:
        own = self._own.get(name)
        return self._table[name][self._indices] if own is None else own

    def take(self, indices: np.ndarray) -> RegionFeatures:
        own = {name: values[indices] for name, values in self._own.items()}
        return _Selected(self._table, self._indices[indices], own)

    def select(self, indices: np.ndarray) -> RegionFeatures:
        return self.take(indices)

    def replaced(self, **values: np.ndarray) -> RegionFeatures:
        return _Selected(self._table, self._indices, {**self._own, **values})


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
