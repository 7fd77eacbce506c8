"""What a trainer of query policies is: configuration, datasets and equipment -> a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ralis_backend.core.segmenter import DEFAULT_SPEC, SegmenterSpec
from ralis_backend.offline.datasets import Dataset, DatasetError

Config = TypeVar("Config")


@dataclass(frozen=True)
class Options:
    """What the command line asks for, whatever the configuration; None: as it says.

    reward: a score of `rewards`.
    episodes: games played.
    fidelity: of the simulation, `fast` or `full`.
    does_shuffle_rewards: gives rewards to the wrong picks: a placebo.
    """

    reward: str | None = None
    episodes: int | None = None
    fidelity: str | None = None
    does_shuffle_rewards: bool = False


@dataclass(frozen=True)
class Equipment:
    """What a training works with, beside datasets.

    cache: folder for encoder features, safe to delete.
    spec: of the segmenter, for any number of classes.
    device: as torch names it.
    report: told what is being prepared.
    """

    cache: Path
    spec: SegmenterSpec = DEFAULT_SPEC
    device: str = "cpu"
    report: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    done, total: games, the one that is being played in part.
    score: of the segmenter or segmenters, in [0, 1].
    facts: the rest, for people.
    seconds_left: about.
    """

    done: float
    total: int
    score: float
    facts: str
    seconds_left: float


OnProgress = Callable[[Progress], None]


class Training(Protocol):
    """A prepared training."""

    def __call__(self, out: Path, *, seed: int, on_progress: OnProgress) -> object:
        """Train, and write `OUT.safetensors`, the policy, and `OUT.json`, how it was trained.

        Raises:
            ValueError: if there is a checkpoint at `out`, of another training.
        """


class Trainer(Protocol[Config]):
    """One way to train policies, found by the type of its configuration."""

    @property
    def takes_several_datasets(self) -> bool:
        """Or exactly one."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Which must hold images, in each dataset."""

    def configured(self, config: Config, options: Options) -> Config:
        """The configuration with the options.

        Raises:
            ValueError: if it does not take one of them.
        """

    def prepare(
        self, config: Config, datasets: Sequence[Dataset], equipment: Equipment
    ) -> Training:
        """Read the datasets, and check that they fit the configuration.

        Raises:
            ValueError: if they do not.
        """


def check_splits(dataset: Dataset, splits: Sequence[str]) -> None:
    """Refuse a dataset that a policy cannot be trained with.

    Raises:
        DatasetError: naming the splits that hold no image.
    """
    empty = [name for name in splits if not dataset.split(name)]
    if empty:
        raise DatasetError(
            f"dataset {dataset.name} has no images in {', '.join(empty)}; this policy needs some "
            f"in {', '.join(splits)} (d_s: state set, d_t: pool, d_r: reward set), named in "
            "splits.json"
        )


def result_path(out: Path, suffix: str) -> Path:
    """`OUT.suffix`; the name itself may hold dots, as `any-0.5`."""
    return out.with_name(f"{out.name}.{suffix}")


def training_folder(out: Path) -> Path:
    """Where a training keeps its checkpoint and logs."""
    return result_path(out, "training")


def checkpoint_path(out: Path) -> Path:
    """The file from which a training goes on."""
    return training_folder(out) / "checkpoint.safetensors"
