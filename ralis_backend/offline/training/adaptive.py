"""Fully labelled datasets -> a policy that adapts to any project, by policy gradient on games.

Games are played by `coverage` with its knobs turned at random, in antithetic pairs that share
everything else that is drawn. What the two of a pair differ by, explained by how their knobs were
turned and by what kind of project the game is, is the gradient. It is then followed as far as
other games say that it leads uphill.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.core.acquisition import PoolState, Strategy, strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.files import write_json
from ralis_backend.core.intervals import mean_interval
from ralis_backend.core.policy.adaptive import KNOBS, AdaptivePolicy, AdaptiveSpec
from ralis_backend.core.policy.adaptive_inputs import PROJECT_INPUTS, project_inputs
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.training.config import AdaptiveConfig
from ralis_backend.offline.training.rewards import SCORED_CLASSES
from ralis_backend.offline.training.scenarios import draw_scenario, play_together
from ralis_backend.offline.training.sources import digest, games_facts, regions_of
from ralis_backend.offline.training.trainer import (
    Equipment,
    OnProgress,
    Options,
    Progress,
    Training,
    result_path,
)
from ralis_backend.simulation.points import RegionPoints

FORMULA, BASELINE = "coverage", "random"
DEVIATIONS = np.array(list(KNOBS.values()))
_MOST_LABELS = np.log(1e6)


@dataclass(frozen=True)
class PlayedGame:
    """What one game says of the knobs.

    inputs: (T, 8) the project at each step. turned: (P, 9) how each pair's knobs were turned, in
    deviations. differences: (P,) half of what the two of a pair differ by, in points of mIoU over
    the game. worth: points that choosing is worth there: the lead of `coverage` over random, 1 at
    least.
    """

    inputs: np.ndarray
    turned: np.ndarray
    differences: np.ndarray
    worth: float

    def to_json(self) -> dict[str, Any]:
        """Numbers rounded to six places."""
        return {
            "inputs": self.inputs.round(6).tolist(),
            "turned": self.turned.round(6).tolist(),
            "differences": self.differences.round(6).tolist(),
            "worth": round(self.worth, 6),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> PlayedGame:
        """What `to_json` gave."""
        return cls(
            np.array(entry["inputs"]),
            np.array(entry["turned"]),
            np.array(entry["differences"]),
            float(entry["worth"]),
        )


class _Watched(AdaptivePolicy):
    """The policy with its knobs turned, that remembers which projects it has seen."""

    def __init__(self, policy: AdaptivePolicy, turned: np.ndarray) -> None:
        super().__init__(policy.spec, policy.gains, policy.name)
        self._turned = turned * DEVIATIONS
        self.seen: list[np.ndarray] = []

    def knobs(self, state: PoolState, actions: RegionFeatures) -> dict[str, float]:
        """Those of the policy, and how they were turned."""
        self.seen.append(project_inputs(state, actions))
        settings = super().knobs(state, actions)
        return {
            name: value + by
            for (name, value), by in zip(settings.items(), self._turned, strict=True)
        }


class AdaptiveTrainer:
    """Trains policies that adapt to any label set, on games of one or several datasets."""

    takes_several_datasets = True
    splits = ("d_t",)

    def configured(self, config: AdaptiveConfig, options: Options) -> AdaptiveConfig:
        """The configuration with the options.

        Raises:
            ValueError: if a reward or fidelity is asked for that it cannot learn with.
        """
        if options.reward not in (None, "miou") or options.fidelity not in (None, "fast"):
            raise ValueError("a policy that adapts learns with reward miou and fidelity fast")
        return replace(
            config,
            games=options.episodes or config.games,
            does_shuffle_rewards=options.does_shuffle_rewards or config.does_shuffle_rewards,
        )

    def prepare(
        self, config: AdaptiveConfig, datasets: Sequence[Dataset], equipment: Equipment
    ) -> Training:
        """Compute the features of each dataset, where they are not cached.

        Raises:
            ValueError: if an image is smaller than a region.
        """
        sources = regions_of(datasets, self.splits[0], config.region_size, equipment)
        return partial(
            train, sources, config, cache=equipment.cache.parent / "games", device=equipment.device
        )


def train(
    sources: Mapping[str, RegionPoints],
    config: AdaptiveConfig,
    out: Path,
    *,
    cache: Path,
    seed: int = 0,
    device: str = "cpu",
    on_progress: OnProgress = lambda _: None,
) -> AdaptivePolicy:
    """Train a policy, and write it with a results file.

    A dataset's games are the same whichever others it is trained with: they are kept in `cache`,
    where a killed run finds them again, and other trainings.

    Args:
        sources: labelled regions of each dataset.
        config: how.
        out: the policy's path without a suffix.
        cache: folder for games, safe to delete.
        seed: of everything random.
        device: of the segmenters.
        on_progress: told after each game.

    Raises:
        ValueError: if a dataset is too small.
    """
    told = _Told(len(sources) * (config.games + config.search_games), on_progress)
    games = {
        name: _games(name, source, config, seed, device, cache, told.game)
        for name, source in sources.items()
    }
    spec = _spec(games, config, seed, sources)
    gains, fits = fit(games, spec, config, seed)
    direction = _of_length_one(games, spec, gains)
    lengths = {
        name: _followed(source, spec, direction, config, seed, device, told.game)
        for name, source in sources.items()
    }
    length, table = longest(lengths, config)
    policy = AdaptivePolicy(spec, length * direction, out.name)
    policy.save(result_path(out, "safetensors"))
    results = {
        **spec.training,
        "fits": fits,
        "lengths": table,
        "length": length,
        "worth": {name: _rounded([it.worth for it in each]) for name, each in games.items()},
        "gains": {
            name: [round(float(it), 5) for it in row]
            for name, row in zip(KNOBS, policy.gains, strict=True)
        },
    }
    write_json(result_path(out, "json"), results)
    return policy


class _Told:
    """Counts games for whoever watches."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._total, self._on_progress = total, on_progress
        self._started, self._played, self._done = time.perf_counter(), 0, 0

    def game(self, score: float | None) -> None:
        """One more; None: it was played before."""
        self._done += 1
        self._played += score is not None
        each = (time.perf_counter() - self._started) / max(1, self._played)
        facts = f"game {self._done} of {self._total}"
        left = each * (self._total - self._done)
        self._on_progress(Progress(self._done, self._total, score or 0.0, facts, left))


# Games


def _games(
    name: str,
    source: RegionPoints,
    config: AdaptiveConfig,
    seed: int,
    device: str,
    cache: Path,
    told: Callable[[float | None], None],
) -> list[PlayedGame]:
    """The games of one dataset, from the cache as far as it has them."""
    facts = {
        "dataset": digest(source),
        "scored_classes": SCORED_CLASSES,
        "config": _of_games(config),
        "seed": seed,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"{name}-{key}.json"
    entries = json.loads(path.read_text())["games"] if path.is_file() else []
    for _ in entries[: config.games]:
        told(None)
    for index in range(len(entries), config.games):
        game, score = _play(source, config, np.random.default_rng([seed, index]), device)
        entries.append(game.to_json())
        cache.mkdir(parents=True, exist_ok=True)
        write_json(path, {**facts, "games": entries})
        told(score)
    return [PlayedGame.from_json(entry) for entry in entries[: config.games]]


def _of_games(config: AdaptiveConfig) -> dict[str, Any]:
    """What games depend on: neither how many there are, nor what is made of them."""
    later = {
        "games", "search_games", "lengths", "ridge", "adapts", "inputs", "does_shuffle_rewards",
    }  # fmt: skip
    return {name: value for name, value in asdict(config).items() if name not in later}


def _play(
    source: RegionPoints, config: AdaptiveConfig, rng: np.random.Generator, device: str
) -> tuple[PlayedGame, float]:
    scenario = draw_scenario([source], config, rng)
    is_turned = np.array([name in config.knobs for name in KNOBS])
    drawn = 1 + int(np.flatnonzero(is_turned).max())  # so that new knobs change no old game
    turned = np.zeros((config.pairs, len(KNOBS)))
    turned[:, :drawn] = rng.normal(size=(config.pairs, drawn)) * is_turned[:drawn]
    policy = AdaptivePolicy.untrained(AdaptiveSpec(), "turned")
    watched = _Watched(policy, np.zeros(len(KNOBS)))
    members = [_Watched(policy, sign * each) for each in turned for sign in (1, -1)]
    players: list[Strategy] = [strategy(BASELINE), watched, *members]
    scores = 100 * play_together(scenario, players, device)[0].mean(axis=1)
    differences = (scores[2::2] - scores[3::2]) / 2
    worth = max(1.0, float(scores[1] - scores[0]))
    return PlayedGame(np.array(watched.seen), turned, differences, worth), scores[1] / 100


def _spec(
    games: Mapping[str, Sequence[PlayedGame]],
    config: AdaptiveConfig,
    seed: int,
    sources: Mapping[str, RegionPoints],
) -> AdaptiveSpec:
    """How inputs are standardised, and their ranges; there may be any number of labels."""
    inputs = np.concatenate([game.inputs for each in games.values() for game in each])
    low, high = np.quantile(inputs, [0.005, 0.995], axis=0)
    at = PROJECT_INPUTS.index("labels")
    low[at], high[at] = 0, _MOST_LABELS
    training = {
        "kind": "policy gradient",
        "config": json.loads(json.dumps(asdict(config))),
        "seed": seed,
        "labelled_regions": {name: len(source) for name, source in sources.items()},
        **games_facts(sources),
    }
    spread = np.maximum(inputs.std(axis=0), 1e-3)
    return AdaptiveSpec(
        _rounded(inputs.mean(axis=0)), _rounded(spread), _rounded(low), _rounded(high), training
    )


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(it), 5) for it in values)


# The gradient


def fit(
    games: Mapping[str, Sequence[PlayedGame]], spec: AdaptiveSpec, config: AdaptiveConfig, seed: int
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """(9, 1 + 8) the slope of the score along each knob, and its change by each input.

    How much may depend on the inputs is chosen by leaving out each dataset in turn: the ridge whose
    slopes foretell best what happened there. Also returns what each of `config.ridge` foretold.
    """
    parts = {name: _design(each, spec, config, seed) for name, each in games.items()}
    ridges = config.ridge if config.adapts and len(parts) > 1 else config.ridge[-1:]
    foretold = []
    for ridge in ridges:
        cosines = []
        for left_out, (design, target) in parts.items() if len(parts) > 1 else ():
            others = [part for name, part in parts.items() if name != left_out]
            predicted = design @ _slopes(others, ridge, config)
            scale = np.linalg.norm(predicted) * np.linalg.norm(target) + 1e-12
            cosines.append(float(predicted @ target / scale))
        mean = float(np.mean(cosines)) if cosines else 0.0
        foretold.append({"ridge": ridge, "cosine": round(mean, 5)})
    best = max(foretold, key=lambda entry: entry["cosine"])
    slopes = _slopes(list(parts.values()), best["ridge"], config)
    return slopes.reshape(len(KNOBS), 1 + len(PROJECT_INPUTS)), foretold


def _design(
    games: Sequence[PlayedGame], spec: AdaptiveSpec, config: AdaptiveConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 9 (1 + 8)) knobs times inputs of each pair, and (N,) its difference over its worth.

    Each dataset counts alike, however many pairs it has.
    """
    rows, targets = [], []
    for index, game in enumerate(games):
        inputs = np.append(1.0, _standardised(game.inputs, spec).mean(axis=0))
        rows.append((game.turned[:, :, None] * inputs).reshape(len(game.turned), -1))
        differences = game.differences / game.worth
        if config.does_shuffle_rewards:
            rng = np.random.default_rng([seed, 3, index])
            differences = rng.permutation(differences) * rng.choice((-1, 1), len(differences))
        targets.append(differences)
    weight = 1 / np.sqrt(sum(map(len, targets)))
    return weight * np.concatenate(rows), weight * np.concatenate(targets)


def _standardised(inputs: np.ndarray, spec: AdaptiveSpec) -> np.ndarray:
    standardised: np.ndarray = (inputs - spec.center) / spec.scale
    return standardised


def _slopes(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], ridge: float, config: AdaptiveConfig
) -> np.ndarray:
    """(9 (1 + 8),) by ridge regression; what does not depend on inputs is held back less."""
    design, target = (np.concatenate(each) for each in zip(*parts, strict=True))
    may_depend = [config.adapts and name in config.inputs for name in PROJECT_INPUTS]
    penalty = np.full((len(KNOBS), 1 + len(PROJECT_INPUTS)), np.inf)
    for row, name in enumerate(KNOBS):
        if name in config.knobs:
            penalty[row] = [0.1, *np.where(may_depend, ridge, np.inf)]
    free = np.isfinite(penalty.ravel())
    slopes = np.zeros(design.shape[1])
    chosen = design[:, free]
    gram = chosen.T @ chosen + len(parts) * np.diag(penalty.ravel()[free])
    slopes[free] = np.linalg.solve(gram, chosen.T @ target)
    return slopes


def _of_length_one(
    games: Mapping[str, Sequence[PlayedGame]], spec: AdaptiveSpec, slopes: np.ndarray
) -> np.ndarray:
    """The gains along the slopes that move knobs by one deviation in all, root mean square."""
    inputs = np.concatenate(
        [_standardised(it.inputs, spec) for each in games.values() for it in each]
    )
    moves = np.column_stack([np.ones(len(inputs)), inputs]) @ slopes.T  # (N, 9)
    length = float(np.sqrt((moves**2).sum(axis=1).mean()))
    direction: np.ndarray = slopes * DEVIATIONS[:, None] / max(length, 1e-12)
    return direction


# How far


def _followed(
    source: RegionPoints,
    spec: AdaptiveSpec,
    direction: np.ndarray,
    config: AdaptiveConfig,
    seed: int,
    device: str,
    told: Callable[[float | None], None],
) -> np.ndarray:
    """(G, lengths) leads over `coverage` in other games of a dataset, over their worth."""
    policies = [
        AdaptivePolicy(spec, length * direction, f"length {length}") for length in config.lengths
    ]
    leads = []
    for index in range(config.search_games):
        scenario = draw_scenario([source], config, np.random.default_rng([seed, 5, index]))
        players: list[Strategy] = [strategy(BASELINE), strategy(FORMULA), *policies]
        scores = 100 * play_together(scenario, players, device)[0].mean(axis=1)
        leads.append((scores[2:] - scores[1]) / max(1.0, float(scores[1] - scores[0])))
        told(float(scores[1]) / 100)
    return np.array(leads)


def longest(
    leads: Mapping[str, np.ndarray], config: AdaptiveConfig
) -> tuple[float, list[dict[str, Any]]]:
    """The length that leads most over `coverage`, each dataset counted alike; 0 if none leads.

    Also returns the lead of each length with its interval, and by dataset.
    """
    table: list[dict[str, Any]] = []
    for index, length in enumerate(config.lengths):
        by_dataset = {name: float(each[:, index].mean()) for name, each in leads.items()}
        low, high = mean_interval(np.concatenate([each[:, index] for each in leads.values()]))
        table.append(
            {
                "length": length,
                "lead": round(float(np.mean(list(by_dataset.values()))), 4),
                "low": round(float(low), 4),
                "high": round(float(high), 4),
                "by_dataset": {name: round(value, 4) for name, value in by_dataset.items()},
            }
        )
    best = max(range(len(table)), key=lambda index: float(table[index]["lead"]))
    return (config.lengths[best] if table[best]["lead"] > 0 else 0.0), table
