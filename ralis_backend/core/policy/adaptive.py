"""A policy for any label set: `coverage`, whose parts a project's state makes stronger or weaker.

It looks at what kind of project it is, sets a handful of knobs, and picks greedily as `coverage`
does, so that picks see each other. With weights of zero it is `coverage`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralis_backend.core import weights
from ralis_backend.core.acquisition import Drift, Needs, PoolState, Scorer
from ralis_backend.core.acquisition.classes import Coverage
from ralis_backend.core.acquisition.diversity import most_similar, standardised
from ralis_backend.core.acquisition.state import greedy_scores, lazy_greedy_scores
from ralis_backend.core.features import BLOCK, RegionFeatures
from ralis_backend.core.policy.adaptive_inputs import PROJECT_INPUTS, project_inputs
from ralis_backend.core.policy.kinds import ADAPTIVE
from ralis_backend.core.policy.ranges import LARGEST, check_numbers, check_ranges

KNOBS: dict[str, float] = {
    "bald": 0.4,
    "entropy": 0.4,
    "prior": 0.8,
    "scarcity": 0.4,
    "margin": 0.3,
    "novelty": 0.3,
    "typicality": 0.3,
    "boundary": 0.3,
    "apart": 0.4,
}
"""What can be turned -> by how much a training tries it (one deviation). In the gain of a region,
ln sum_c w_c ln(1 + m_c / (n_c + 60 e^prior)) + its own terms, m_c is the class's probability times
its doubtfulness: BALD there, relative to the pool, to the power 1 + `bald`, times entropy likewise
to the power `entropy`; w_c = n_c to the power -`scarcity`, about the mean. Its own terms are
standardised over the candidates: `margin`, `novelty` (unlike what is labelled), `typicality` (like
the pool) and `boundary`; `apart` takes off how much it looks like a pick of the same batch, which
a policy never rewards. What did not help: Gumbel noise."""

_WORDS = {
    ("margin", True): "clear pixels",
    ("margin", False): "close decisions",
    ("novelty", True): "looks unlike the labelled ones",
    ("novelty", False): "looks like the labelled ones",
    ("typicality", True): "looks typical of the pool",
    ("typicality", False): "looks unusual in the pool",
    ("boundary", True): "borders between classes",
    ("boundary", False): "areas without borders",
}
"""Knobs, and whether they are turned up -> what is looked for."""
_LEAST_SHOWN = 0.03
_TINY = 1e-12
_LEAST = 1e-4
_LEAST_SCALE = 1e-9
_MAX_DEVIATION = 4.0
_MAX_KNOB = 2.0
_FAR = 0.5
"""Of an input's range of training: a project that lies further outside is none that it knows."""


@dataclass(frozen=True)
class AdaptiveSpec:
    """How a policy looks at projects, and how it was trained.

    center, scale: (8,) of `PROJECT_INPUTS`, which are standardised by them.
    low, high: (8,) their range in training (0.5 and 99.5 %); empty for one that was not trained.
    training: hyper-parameters and provenance, for readers.
    """

    center: tuple[float, ...] = (0.0,) * len(PROJECT_INPUTS)
    scale: tuple[float, ...] = (1.0,) * len(PROJECT_INPUTS)
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)


class AdaptivePolicy(Scorer):
    """Picks that together cover every class's doubtful pixels, in the manner of the project.

    Args:
        spec: how it looks at projects.
        gains: (9, 1 + 8) float64, each knob's setting, and its change by each standardised input.
        name: shown to people and stored with each ranking.
    """

    needs = Needs.of(
        "bald", "class_bald", "class_counts", "class_probabilities", "class_entropy", "entropy",
        "margin", "boundary", "embeddings",
    )  # fmt: skip
    is_trained = True

    def __init__(self, spec: AdaptiveSpec, gains: np.ndarray, name: str) -> None:
        self.spec, self.gains, self.name = spec, np.asarray(gains, np.float64), name

    @classmethod
    def untrained(cls, spec: AdaptiveSpec, name: str) -> AdaptivePolicy:
        """The policy that is `coverage`."""
        return cls(spec, np.zeros((len(KNOBS), 1 + len(PROJECT_INPUTS))), name)

    def save(self, path: Path) -> None:
        """Write weights and spec to one file, whole or not at all."""
        tensors = {"gains": torch.from_numpy(self.gains).float()}
        weights.save(
            path, tensors, {"kind": ADAPTIVE, "knobs": list(KNOBS), "spec": asdict(self.spec)}
        )

    @classmethod
    def load(cls, path: Path, name: str = "") -> AdaptivePolicy:
        """The policy that `save` wrote; it is called by its file if no name is given.

        Raises:
            weights.WeightsError: if the file is damaged, of another version, or no such policy.
            FileNotFoundError: if there is none.
        """
        tensors, metadata = weights.load(path)
        if metadata.get("kind") != ADAPTIVE:
            raise weights.WeightsError(
                f"{path} holds a {metadata.get('kind', 'file of unknown kind')}, not a policy that "
                "adapts to any label set"
            )
        try:
            spec = AdaptiveSpec(**metadata["spec"])
            knobs = [str(name) for name in metadata["knobs"]]
            if not set(knobs) <= set(KNOBS):
                raise ValueError(f"its knobs are {knobs}, not among {list(KNOBS)}")
            _check_spec(spec)
            turned = tensors["gains"].double().numpy()
            expected = (len(knobs), 1 + len(PROJECT_INPUTS))
            if turned.shape != expected or not (np.abs(turned) <= LARGEST).all():
                raise ValueError(
                    f"its weights are {turned.shape}, not {expected} numbers up to {LARGEST:g}"
                )
            gains = np.zeros((len(KNOBS), turned.shape[1]))
            gains[[list(KNOBS).index(name) for name in knobs]] = turned
        except (KeyError, TypeError, ValueError) as error:
            raise weights.WeightsError(
                f"{path} does not fit the policy it describes: {error}; train it again"
            ) from error
        return cls(spec, gains, name or path.stem)

    def fitted(self, classes: Sequence[str], region_size: tuple[int, int]) -> AdaptivePolicy:
        """This policy: it serves any classes and regions."""
        return self

    def knobs(self, state: PoolState, actions: RegionFeatures) -> dict[str, float]:
        """How each of `KNOBS` is set for this project now, at most 2 either way."""
        inputs = (project_inputs(state, actions) - self.spec.center) / self.spec.scale
        inputs = np.clip(inputs, -_MAX_DEVIATION, _MAX_DEVIATION)
        settings = np.clip(self.gains @ np.append(1.0, inputs), -_MAX_KNOB, _MAX_KNOB)
        knobs = dict(zip(KNOBS, settings.tolist(), strict=True))
        return knobs | {"apart": max(0.0, knobs["apart"])}

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) float32, picks first, in the order they were made."""
        if len(actions) == 0:
            return np.zeros(0, np.float32)
        return _cover(state, actions, self.knobs(state, actions))

    def alone(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        """(R,) as `coverage`: one region does not show what kind of project it is of."""
        return Coverage().alone(state, actions)

    def drift(self, state: PoolState, actions: RegionFeatures) -> Drift:
        """How many of the project's inputs lie outside their ranges of training."""
        if len(actions) == 0 or not self.spec.low:
            return Drift(0.0, ())
        inputs = project_inputs(state, actions)
        low, high, scale = (np.array(it) for it in (self.spec.low, self.spec.high, self.spec.scale))
        outside = np.maximum(low - inputs, inputs - high)
        order = np.argsort(-outside / scale)
        worst = [PROJECT_INPUTS[it] for it in order[:3] if outside[it] > 0]
        is_far = outside > _FAR * np.maximum(high - low, scale)
        far = tuple(PROJECT_INPUTS[it] for it in order if is_far[it])
        return Drift(float((outside > 0).mean()), tuple(worst), far)

    def manner(self, state: PoolState, actions: RegionFeatures) -> str | None:
        """What it looks at now: how much of what tells the candidates apart each part makes."""
        if len(actions) < 2:
            return None
        knobs = self.knobs(state, actions)
        masses, base, class_weights = _masses(state, actions, knobs)
        doubt = np.log(np.maximum(masses @ (base * (class_weights > 0)), _TINY))
        gain = np.log(np.maximum(np.log1p(masses) @ class_weights, _TINY))
        parts = {"doubtful pixels": doubt, "classes with few labels": gain - doubt}
        own = _own_terms(state, actions, knobs)
        parts |= {_WORDS[name, knobs[name] > 0]: values for name, values in own.items()}
        weights = {words: float(values.std()) for words, values in parts.items()}
        total = max(_TINY, sum(weights.values()))
        said = [
            f"{words} ({100 * weight / total:.0f} %)"
            for words, weight in sorted(weights.items(), key=lambda item: -item[1])
            if weight / total >= _LEAST_SHOWN
        ]
        apart = ["picks unlike each other"] if knobs["apart"] >= _LEAST_SHOWN else []
        return "looks for " + ", ".join([*said, *apart])

    def reasons(
        self, state: PoolState, actions: RegionFeatures, class_names: Sequence[str]
    ) -> list[str]:
        """As `coverage`: names the class that counts most."""
        return Coverage().reasons(state, actions, class_names)


def _check_spec(spec: AdaptiveSpec) -> None:
    """Raise `ValueError` where a project's inputs cannot be standardised or compared."""
    count = len(PROJECT_INPUTS)
    check_numbers("center", spec.center, count)
    check_numbers("scale", spec.scale, count)
    if min(spec.scale) < _LEAST_SCALE:
        raise ValueError(f"'scale' has {min(spec.scale)}, expected {_LEAST_SCALE:g} or more")
    check_ranges(spec.low, spec.high, count)


def _cover(state: PoolState, actions: RegionFeatures, knobs: Mapping[str, float]) -> np.ndarray:
    """(R,) scores of the greedy cover with these knobs; see `KNOBS`."""
    masses, _, class_weights = _masses(state, actions, knobs)
    own = sum(_own_terms(state, actions, knobs).values(), np.zeros(len(actions)))
    covered, near, apart = np.ones(masses.shape[1]), np.zeros(len(actions)), knobs["apart"]
    looks = actions.embeddings if apart else np.empty((len(actions), 0))  # once: it may be a copy

    def gains(index: np.ndarray) -> np.ndarray:
        gained = np.empty(len(index))
        for start in range(0, len(index), BLOCK):  # the logarithms of all take much memory
            block = index[start : start + BLOCK]
            mass = np.log1p(masses[block] / covered) @ class_weights
            gained[start : start + BLOCK] = np.log(np.maximum(mass, _TINY)) + own[block]
        return gained - apart * near[index] if apart else gained

    def take(index: int) -> None:
        covered[:] += masses[index]
        if apart:
            near[:] = np.maximum(near, standardised(looks @ looks[index]))

    if apart < 0:  # then a pick may make others worth more
        everything = np.arange(len(actions))
        return greedy_scores(state, len(actions), lambda: gains(everything), take)
    return lazy_greedy_scores(state, len(actions), gains, take)


def _masses(
    state: PoolState, actions: RegionFeatures, knobs: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(R, C) doubtful points of each class over those it has, (C,) these, (C,) class weights."""
    num_classes = actions.class_bald.shape[1]
    base = state.labelled_pixels / Coverage.pixels_per_point
    base = base + Coverage.prior * np.exp(knobs["prior"])
    class_weights = (base / base.mean()) ** -knobs["scarcity"] * state.looked_for(num_classes)
    mean_bald = max(_TINY, float(actions.bald.mean()))
    mean_entropy = max(_TINY, float(actions.entropy.mean()))
    masses = np.empty((len(actions), num_classes), np.float32)
    for rows, part in actions.blocks():
        present = np.maximum(part.class_probabilities, 1e-6).astype(np.float64)
        bald = np.maximum(part.class_bald / present / mean_bald, _LEAST)
        entropy = np.maximum(part.class_entropy / present / mean_entropy, _LEAST)
        size = part.class_counts.sum(axis=1, keepdims=True) / Coverage.pixels_per_point
        doubtful = bald ** (1 + knobs["bald"]) * entropy ** knobs["entropy"]
        masses[rows] = size * present * doubtful / base
        state.stop()
    return masses, base, class_weights


def _own_terms(
    state: PoolState, actions: RegionFeatures, knobs: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """What speaks for each of R regions whatever else is picked, by knob; of those that are set."""
    embeddings, known = actions.embeddings, state.known_embeddings
    terms: dict[str, Callable[[], np.ndarray]] = {
        "margin": lambda: actions.margin,
        "typicality": lambda: embeddings @ embeddings.mean(axis=0),
        "boundary": lambda: actions.boundary,
    }
    if len(known):
        terms["novelty"] = lambda: -most_similar(embeddings, known)
    own = {}
    for name, values in terms.items():
        if knobs[name]:
            own[name] = knobs[name] * standardised(values())
            state.stop()
    return own
