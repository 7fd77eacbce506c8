"""Hyper-parameters of a policy's training: the presets, and files that change them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from ralis_backend.core.bounds import AMOUNT, COUNT, POSITIVE, SHARE, Bounds, check_bounds
from ralis_backend.core.policy.adaptive import KNOBS
from ralis_backend.core.policy.adaptive_inputs import PROJECT_INPUTS
from ralis_backend.core.registry import Registry
from ralis_backend.offline.training.dqn import DqnConfig
from ralis_backend.offline.training.environment import EnvironmentConfig
from ralis_backend.simulation.heads import HeadConfig

_RISING_COUNT, _RISING_SHARE = replace(COUNT, is_rising=True), replace(SHARE, is_rising=True)


@dataclass(frozen=True)
class TrainingConfig:
    """How a policy is trained; saved beside it.

    episodes: how many times the game is played.
    environment, dqn: its rules, and how the network learns.
    fidelity: `fast` trains a small head on frozen features, `full` the whole segmenter.
    head: how the fast simulation's head learns.
    region_size: (height, width) in pixels.
    reward_regions: `all` of the reward set, or a `balanced` half in which classes are as equally
        frequent as possible.
    keep: the network of the `last` episode, or the `best` one in the evaluations.
    evaluate_every: episodes between two greedy evaluations; 0: none.
    evaluation_episodes: games per evaluation, always the same ones.
    checkpoint_every: episodes between two checkpoints.
    does_shuffle_rewards: each step's reward is replaced by an earlier one's: a placebo that must
        not learn.
    warm_episodes: the first ones are played by `warm_strategy`, a formula, so that the replay holds
        good picks.
    """

    episodes: int = 100
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    dqn: DqnConfig = field(default_factory=DqnConfig)
    fidelity: Literal["fast", "full"] = "fast"
    head: HeadConfig = field(default_factory=HeadConfig)
    region_size: tuple[int, int] = (90, 80)
    reward_regions: Literal["all", "balanced"] = "all"
    keep: Literal["last", "best"] = "best"
    evaluate_every: int = 10
    evaluation_episodes: int = 4
    checkpoint_every: int = 5
    does_shuffle_rewards: bool = False
    warm_episodes: int = 0
    warm_strategy: str = "coverage"

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                "episodes": COUNT,
                "region_size": COUNT,
                "evaluate_every": AMOUNT,
                "evaluation_episodes": COUNT,
                "checkpoint_every": COUNT,
                "warm_episodes": AMOUNT,
            },
        )


FAITHFUL = TrainingConfig(
    environment=EnvironmentConfig(
        initial_regions=0,
        variant="faithful",
        unlabelled="candidates",
        is_first_reward_whole=True,
        memory="newest",
        updates_per_step=None,
        initial_updates=1500,
    ),
    head=HeadConfig(learning_rate=2e-4),  # one epoch over K regions must not undo what was known
    keep="last",
    evaluate_every=0,
)
"""As the authors' code of record for CamVid; the segmenter is the fast simulation's."""

REPAIRED = TrainingConfig(
    episodes=60,
    environment=EnvironmentConfig(credit="difference", credit_groups=4),
    dqn=DqnConfig(
        optimizer="adam",
        learning_rate=3e-4,
        weight_decay=1e-4,
        learning_rate_decay=1.0,
        discount=0.9,
        num_steps=3,
        choice_statistics="running",
        batch_size=32,
        updates_per_step=2,
        replay_capacity=4800,
        learning_starts=480,
        target_update=20,
        does_update_target_at_start=False,
        epsilon_start=1.0,
        epsilon_decay=540.0,
        epsilon_schedule="linear",
        exploration="pick",
        clip_norm=10.0,
    ),
    evaluate_every=15,
    evaluation_episodes=3,
    checkpoint_every=10,
)
"""The faults listed for the original implementation mended, each a setting of its own."""


@dataclass(frozen=True)
class ScenarioRules:
    """The rules of one game of a scenario.

    initial_regions: labelled first; a quarter of the pool at most.
    steps, regions_per_step, pool_size: in each step K pools of N regions are offered, and the best
        of each is labelled; with `is_whole` the best K of all K N.
    initial_updates, updates_per_step: gradient steps of the segmenter.
    hidden: width of its head.
    """

    initial_regions: int
    steps: int
    regions_per_step: int
    pool_size: int
    initial_updates: int
    updates_per_step: int
    is_whole: bool = False
    hidden: int = HeadConfig.hidden


class ScenarioConfig(Protocol):
    """What the games have in common that scenarios are drawn for."""

    @property
    def held_out(self) -> float:
        """Share of the images that a game is measured on."""

    @property
    def max_held_out(self) -> int:
        """At most so many of their regions."""

    @property
    def class_weight_powers(self) -> tuple[float, ...]:
        """Of the losses among which each game draws."""

    def rules(self, rng: np.random.Generator) -> ScenarioRules:
        """Of one game."""


@dataclass(frozen=True)
class EvolutionConfig:
    """How a policy for any label set is trained.

    ranker: `set`, a network over classes, evolved; `linear`, fitted to one-step rewards.
    region_size: (height, width) of a region in pixels, in training.
    generations: games. pairs: antithetic pairs that play each.
    noise, learning_rate: deviation of the weights, and step of Adam. hidden: width of the network.
    initial_regions: range from which the number of first labels is drawn.
    steps: batches of a game. regions_per_step, pool_size: K pools of N regions.
    updates_per_step, initial_updates: gradient steps of the segmenter.
    held_out: share of the images that a game is measured on, at most `max_held_out` regions.
    class_weight_powers: of the losses among which each game draws.
    linear_games: games from which the linear ranker is fitted.
    does_shuffle_rewards: give each member of a generation another one's score: a placebo.
    """

    ranker: Literal["set", "linear"] = "set"
    region_size: tuple[int, int] = (90, 80)
    generations: int = 150
    pairs: int = 3
    noise: float = 0.1
    learning_rate: float = 0.02
    hidden: int = 8
    initial_regions: tuple[int, int] = (24, 96)
    steps: int = 4
    regions_per_step: int = 48
    pool_size: int = 10
    updates_per_step: int = 60
    initial_updates: int = 200
    held_out: float = 0.35
    max_held_out: int = 480
    class_weight_powers: tuple[float, ...] = (0.0, 0.0, 0.5, 1.0)
    linear_games: int = 60
    checkpoint_every: int = 10
    does_shuffle_rewards: bool = False

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                "region_size": COUNT,
                "generations": COUNT,
                "pairs": COUNT,
                "noise": POSITIVE,
                "learning_rate": POSITIVE,
                "hidden": COUNT,
                "initial_regions": _RISING_COUNT,
                "steps": COUNT,
                "regions_per_step": COUNT,
                "pool_size": COUNT,
                "updates_per_step": AMOUNT,
                "initial_updates": AMOUNT,
                "held_out": Bounds(0, 1, is_below=True),
                "max_held_out": COUNT,
                "class_weight_powers": AMOUNT,
                "linear_games": COUNT,
                "checkpoint_every": COUNT,
            },
        )

    def rules(self, rng: np.random.Generator) -> ScenarioRules:
        """Of one game: only the number of first labels is drawn."""
        low, high = self.initial_regions
        return ScenarioRules(
            int(rng.integers(low, high + 1)),
            self.steps,
            self.regions_per_step,
            self.pool_size,
            self.initial_updates,
            self.updates_per_step,
        )


@dataclass(frozen=True)
class AdaptiveConfig:
    """How a policy that adapts to any label set is trained.

    region_size: (height, width) of a region in pixels, in training.
    games: of each dataset, in which knobs are turned at random; pairs: antithetic ones that play
        each.
    search_games: others of each dataset, in which the gradient is followed.
    lengths: how far, in deviations of all knobs together.
    ridge: of what depends on the project's inputs, among which one is chosen; the last, where there
        is but one dataset.
    adapts: False for the best fixed mixture, whose knobs are the same in every project.
    knobs: that are turned, of `core.policy.adaptive.KNOBS`; the others stay as in `coverage`.
    inputs: on which they may depend, of `PROJECT_INPUTS`.
    initial_regions: range of first labels, drawn evenly on a logarithmic scale.
    steps, regions_per_step, pool_sizes, hidden: among which each game draws, see `ScenarioRules`.
    whole_share: of the games, in which the best of all that is offered are picked.
    initial_updates, updates_per_step: gradient steps of the segmenter.
    held_out: share of the images that a game is measured on, at most `max_held_out` regions.
    class_weight_powers: of the losses among which each game draws.
    does_shuffle_rewards: give each pair another one's difference: a placebo.
    """

    region_size: tuple[int, int] = (90, 80)
    games: int = 48
    pairs: int = 5
    search_games: int = 8
    lengths: tuple[float, ...] = (1.0, 2.0, 3.0, 4.5)
    ridge: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    adapts: bool = True
    knobs: tuple[str, ...] = tuple(name for name in KNOBS if name != "apart")
    inputs: tuple[str, ...] = PROJECT_INPUTS
    initial_regions: tuple[int, int] = (16, 200)
    steps: tuple[int, ...] = (3, 4, 5)
    regions_per_step: tuple[int, ...] = (12, 24, 48)
    pool_sizes: tuple[int, ...] = (5, 10, 20, 40)
    hidden: tuple[int, ...] = (64, 128)
    whole_share: float = 0.5
    initial_updates: int = 150
    updates_per_step: int = 60
    held_out: float = 0.35
    max_held_out: int = 400
    class_weight_powers: tuple[float, ...] = (0.0, 0.5)
    does_shuffle_rewards: bool = False

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                "region_size": COUNT,
                "games": COUNT,
                "pairs": COUNT,
                "search_games": COUNT,
                "lengths": POSITIVE,
                "ridge": POSITIVE,
                "initial_regions": _RISING_COUNT,
                "steps": COUNT,
                "regions_per_step": COUNT,
                "pool_sizes": COUNT,
                "hidden": COUNT,
                "whole_share": SHARE,
                "initial_updates": AMOUNT,
                "updates_per_step": AMOUNT,
                "held_out": Bounds(0, 1, is_below=True),
                "max_held_out": COUNT,
                "class_weight_powers": AMOUNT,
            },
        )
        if not self.knobs:
            raise ValueError(f"no knob may be turned; name some of {', '.join(KNOBS)}")
        for said, known in ((self.knobs, tuple(KNOBS)), (self.inputs, PROJECT_INPUTS)):
            unknown = sorted(set(said) - set(known))
            if unknown:
                raise ValueError(f"{', '.join(unknown)} is none of {', '.join(known)}")

    def rules(self, rng: np.random.Generator) -> ScenarioRules:
        """Of one game, everything drawn."""
        low, high = np.log(self.initial_regions)
        return ScenarioRules(
            round(float(np.exp(rng.uniform(low, high)))),
            int(rng.choice(self.steps)),
            int(rng.choice(self.regions_per_step)),
            int(rng.choice(self.pool_sizes)),
            self.initial_updates,
            self.updates_per_step,
            bool(rng.random() < self.whole_share),
            int(rng.choice(self.hidden)),
        )


@dataclass(frozen=True)
class MisicalConfig:
    """How a policy that looks for one class is trained.

    architecture: `mlp`: Q(s, a), by double Q-learning; `linear`: ridge regression to the class's
        share of a region, which shows what Q-learning adds.
    region_size: (height, width) of a region in pixels, in training.
    episodes: searches played; of the `mlp`.
    num_steps, pool_size: T picks, each one of n regions that are offered.
    num_segmenters: heads that are prepared of each dataset, each with other first labels and a
        subset or merge of the classes; an episode looks for a class of one of them.
    initial_regions: range from which the number of first labels, a head's to learn from, is drawn.
    initial_updates: gradient steps of a head.
    max_candidates: regions of a search, none of them learned from.
    max_share: of the candidates; a class that more of them show is not looked for.
    reward: `categorical`: -0.1 without the class, 0.3, 0.7 and 1 for little, some and much of it;
        `continuous`: its share over what counts as much.
    least_shares: what is some, and what is much: shares of a region's pixels.
    quantiles: of the shares of first labels that show the class, instead, where there are at least
        `least_positives` of them.
    dqn: how the network learns. hidden: width of its layers.
    soft_update: share of the way that the target network moves after each update.
    priority_alpha, priority_beta: of prioritised replay.
    ridge: of the `linear` one, per candidate.
    keep, evaluate_every, evaluation_episodes, checkpoint_every, does_shuffle_rewards: as in
        `TrainingConfig`; evaluations look for classes of other segmenters than episodes do.

    That rewards are categories of presence, replay is prioritised, returns are of several steps and
    the target is soft is the paper's (arXiv:2307.09109); every number is our design. Discount 0.9
    and returns of 3 steps were meant first: greedy episodes then gathered 39 % after 100 episodes,
    and 50 % with 0.5 and 1 step. A pick changes nothing about later ones but what is left, so what
    follows it is noise.
    """

    architecture: Literal["mlp", "linear"] = "mlp"
    region_size: tuple[int, int] = (90, 80)
    episodes: int = 300
    num_steps: int = 100
    pool_size: int = 64
    num_segmenters: int = 12
    initial_regions: tuple[int, int] = (48, 240)
    initial_updates: int = 300
    max_candidates: int = 1000
    max_share: float = 0.6
    reward: str = field(default="categorical", metadata={"choices": ("categorical", "continuous")})
    least_shares: tuple[float, float] = (0.01, 0.1)
    quantiles: tuple[float, float] = (1 / 3, 2 / 3)
    least_positives: int = 50
    dqn: DqnConfig = field(
        default_factory=lambda: DqnConfig(
            optimizer="adam",
            learning_rate=1e-3,
            weight_decay=0.0,
            learning_rate_decay=1.0,
            discount=0.5,
            num_steps=1,
            choice_statistics="running",
            batch_size=128,
            update_every=12,
            replay_capacity=20_000,
            learning_starts=1000,
            epsilon_start=1.0,
            epsilon_decay=15_000.0,
            epsilon_schedule="linear",
            exploration="pick",
            clip_norm=10.0,
        )
    )
    hidden: int = 256
    soft_update: float = 0.01
    priority_alpha: float = 0.6
    priority_beta: tuple[float, float] = (0.4, 1.0)
    ridge: float = 0.01
    keep: Literal["last", "best"] = "best"
    evaluate_every: int = 100
    evaluation_episodes: int = 24
    checkpoint_every: int = 25
    does_shuffle_rewards: bool = False

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                "region_size": COUNT,
                "episodes": COUNT,
                "num_steps": COUNT,
                "pool_size": COUNT,
                "num_segmenters": COUNT,
                "initial_regions": _RISING_COUNT,
                "initial_updates": AMOUNT,
                "max_candidates": COUNT,
                "max_share": SHARE,
                "least_shares": _RISING_SHARE,
                "quantiles": _RISING_SHARE,
                "least_positives": AMOUNT,
                "hidden": COUNT,
                "soft_update": SHARE,
                "priority_alpha": AMOUNT,
                "priority_beta": SHARE,
                "ridge": AMOUNT,
                "evaluate_every": AMOUNT,
                "evaluation_episodes": COUNT,
                "checkpoint_every": COUNT,
            },
        )


APART = AdaptiveConfig(
    games=40,
    pairs=4,
    search_games=6,
    lengths=(0.5, 1.0, 1.5, 2.0, 3.0),
    knobs=("apart",),
    inputs=("labels",),
)
"""One knob, one input: how far picks of a batch are kept apart, by how many labels there are."""

PRESETS: Registry[Any] = Registry("preset", "ralis_backend.presets")
"""Names -> configurations, each of a type that `registry.TRAINERS` knows."""
PRESETS.register("faithful", FAITHFUL)
PRESETS.register("repaired", REPAIRED)
PRESETS.register("repaired-warm", replace(REPAIRED, warm_episodes=15))
PRESETS.register("any", EvolutionConfig())
PRESETS.register("linear", EvolutionConfig(ranker="linear"))
PRESETS.register("adaptive", AdaptiveConfig())
PRESETS.register("adaptive-fixed", AdaptiveConfig(adapts=False))
PRESETS.register("adaptive-apart", APART)
PRESETS.register("misical", MisicalConfig())
PRESETS.register("misical-linear", MisicalConfig(architecture="linear"))


def read_config(source: str) -> Any:
    """A preset, or a JSON file that names one of them as `base` and what differs.

    Raises:
        ValueError: if there is no such file, or a name or value in it is wrong.
    """
    if source in PRESETS:
        return PRESETS[source]
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"'{source}' is no file; give one, or one of {', '.join(PRESETS)}")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds no object; expected {{"base": "repaired", ...}}')
    base = content.pop("base", "repaired")
    if base not in PRESETS:
        raise ValueError(f"{path} has base {base!r}; expected one of {', '.join(PRESETS)}")
    return _overridden(PRESETS[base], content, str(path))


_Config = TypeVar("_Config")


def _overridden(base: _Config, changes: Mapping[str, Any], where: str) -> _Config:
    """`base`, a configuration, with some fields changed; nested ones field by field."""
    known = {each.name: each for each in fields(base)}  # type: ignore[arg-type]
    types = get_type_hints(type(base))
    changed: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"{where} sets unknown '{name}'; expected one of {', '.join(known)}")
        literals = get_args(types[name]) if get_origin(types[name]) is Literal else ()
        choices = tuple(known[name].metadata.get("choices", literals))
        changed[name] = _changed(getattr(base, name), value, choices, where, name)
    try:
        return replace(base, **changed)  # type: ignore[type-var]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _changed(old: Any, value: Any, choices: Sequence[str], where: str, name: str) -> Any:
    """A field's new value; `choices`, where there are some, are all that it may be."""
    if is_dataclass(old):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: '{name}' is {value!r}, expected an object")
        return _overridden(old, value, f"{where}, {name}")
    if choices and value not in choices:
        raise ValueError(f"{where}: '{name}' is {value!r}, expected one of {', '.join(choices)}")
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    is_other = any(isinstance(old, it) != isinstance(value, it) for it in (bool, str))
    if is_other and old is not None:
        raise ValueError(f"{where}: '{name}' is {value!r}, expected a value like {old!r}")
    return value
