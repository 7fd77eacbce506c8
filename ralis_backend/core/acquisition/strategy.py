"""What a strategy is: a scorer of regions that says what it needs to be told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ralis_backend.core.acquisition.state import PoolState
from ralis_backend.core.features import FEATURES, RegionFeatures, maps_for


@dataclass(frozen=True)
class Needs:
    """What a strategy must be given; whoever ranks provides that, and computes nothing else.

    features: names in `core.features.FEATURES`, of the candidates (and of a state set). With
        `embeddings` those of the labelled regions are given as well.
    state_regions: regions of whole images that together look like the pool; 0: none.
    has_unlabelled_pool: whether it compares with the whole unlabelled pool, where only some of it
        are candidates.
    has_target_class: whether it looks for one class: `name:class` names strategy and class.
    has_truth: whether it knows the labels; such a strategy is an upper bound, and plays alone.
    pool_size: regions of the pools from which it learned to pick the best; 0: it looks at all.

    Raises:
        ValueError: if a feature is unknown.
    """

    features: frozenset[str] = frozenset()
    state_regions: int = 0
    has_unlabelled_pool: bool = False
    has_target_class: bool = False
    has_truth: bool = False
    pool_size: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.features) - set(FEATURES)):
            raise ValueError(
                f"a strategy needs unknown features {unknown}; expected some of "
                f"{', '.join(FEATURES)}"
            )

    @classmethod
    def of(cls, *features: str) -> Needs:
        """Features alone, which is all that most strategies look at."""
        return cls(frozenset(features))

    @property
    def maps(self) -> frozenset[str]:
        """What a look at an image must give besides probabilities, see `ForwardPass`."""
        return maps_for(self.features)

    @property
    def looks_twice(self) -> bool:
        """Whether every image must be seen mirrored as well."""
        return "mirrored" in self.maps


@dataclass(frozen=True)
class Drift:
    """How far a project is from what a policy was trained on.

    share_outside: share of the candidates' inputs outside the ranges of training.
    worst: names of the inputs that are outside most often, at most three.
    far: names of inputs of the project as a whole, one number for all candidates, that lie so far
        outside that the policy cannot be trusted, however few there are.
    """

    share_outside: float
    worst: tuple[str, ...]
    far: tuple[str, ...] = ()


class Strategy(Protocol):
    """A scorer of unlabelled regions; `Scorer` has all but the scores."""

    @property
    def name(self) -> str:
        """As in settings; stored with each ranking."""

    @property
    def needs(self) -> Needs:
        """What it must be given."""

    @property
    def is_pointwise(self) -> bool:
        """Whether a score depends on its region and on what is labelled alone.

        Then scores of two calls compare; otherwise they depend on the other candidates as well.
        """

    @property
    def is_trained(self) -> bool:
        """Whether it was trained elsewhere, so that it has to prove itself on a project."""

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) float32, the most useful region highest; R may be 0."""

    def alone(self, state: PoolState, actions: RegionFeatures) -> np.ndarray | None:
        """(R,) what each region is worth by itself, so that values of two calls compare.

        For what comes after the pool was ranked; None where it can say nothing of that.
        """

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Why each of these regions is worth labelling, in a few words for an annotator."""

    def drift(self, state: PoolState, actions: RegionFeatures) -> Drift | None:
        """How far the candidates are from what it was trained on; None where it cannot tell."""

    def manner(self, state: PoolState, actions: RegionFeatures) -> str | None:
        """What it looks for in this project now, in words; None where that is always the same."""


class Scorer(ABC):
    """What most strategies have in common: a subclass adds `name`, `needs` and `scores`."""

    name: str
    needs: Needs = Needs()
    is_pointwise: bool = False
    is_trained: bool = False

    @abstractmethod
    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """See `Strategy`."""

    def alone(self, state: PoolState, actions: RegionFeatures) -> np.ndarray | None:
        """The scores, where they depend on nothing else."""
        return self.scores(state, actions) if self.is_pointwise else None

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Names the strategy."""
        return [f"chosen by {self.name}"] * len(actions)

    def drift(self, state: PoolState, actions: RegionFeatures) -> Drift | None:
        """A formula was not trained."""
        return None

    def manner(self, state: PoolState, actions: RegionFeatures) -> str | None:
        """A formula is the same in every project."""
        return None


class Aimed(Scorer):
    """A strategy that looks for one class, told which.

    Args:
        strategy: needs a target class.
        target: the class's index. name: the class's name.
    """

    def __init__(self, strategy: Strategy, target: int, name: str) -> None:
        self._strategy, self._target = strategy, target
        self.name = f"{strategy.name}:{name}"
        self.needs = replace(strategy.needs, has_target_class=False)
        self.is_pointwise = strategy.is_pointwise
        self.is_trained = strategy.is_trained

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """Those of the strategy, aimed at the class."""
        return self._strategy.scores(self._aimed(state), actions)

    def alone(self, state: PoolState, actions: RegionFeatures) -> np.ndarray | None:
        """Those of the strategy, aimed at the class."""
        return self._strategy.alone(self._aimed(state), actions)

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """Those of the strategy, aimed at the class."""
        return self._strategy.reasons(self._aimed(state), actions, class_names)

    def drift(self, state: PoolState, actions: RegionFeatures) -> Drift | None:
        """That of the strategy, aimed at the class."""
        return self._strategy.drift(self._aimed(state), actions)

    def manner(self, state: PoolState, actions: RegionFeatures) -> str | None:
        """That of the strategy, aimed at the class."""
        return self._strategy.manner(self._aimed(state), actions)

    def _aimed(self, state: PoolState) -> PoolState:
        return replace(state, target_class=self._target)


def likeliest(actions: RegionFeatures, class_names: Sequence[str]) -> list[str]:
    """The one or two classes that the segmenter sees most of in each region."""
    shares = actions.class_probabilities
    order = np.argsort(-shares, axis=1)[:, :2]
    best = np.take_along_axis(shares, order, axis=1)
    names = np.array([*class_names, ""], dtype=object)
    first, second = names[np.where(best > 0.1, order, len(class_names))].T
    return [
        f"{one} or {other}" if other else one or "nothing clear"
        for one, other in zip(first, second, strict=True)
    ]
