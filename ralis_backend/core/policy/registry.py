"""Names of strategies -> strategies: the built-in ones, and trained policies in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ralis_backend.core import weights
from ralis_backend.core.acquisition import STRATEGIES, Strategy
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec, RalisPolicy
from ralis_backend.core.policy.agnostic import KIND as AGNOSTIC

DEFAULT = "bald-rarity"
"""What `default` stands for: the best of the benchmark."""

UNTRAINED = "placebo-untrained"
SHIPPED = {
    "ralis": "ralis-camvid",
    "ralis-faithful": "ralis-camvid-faithful",
    "ralis-wiou": "ralis-camvid-wiou",
    "linear": "linear",
    "placebo-shuffled": "any-shuffled",
}
"""Short names of policies that come with the backend -> their files."""


def check_strategy(name: str, folder: Path) -> None:
    """Refuse a name that stands for nothing, before any work is done.

    Raises:
        ValueError: naming what there is.
    """
    if name in (*STRATEGIES, "default", UNTRAINED) or _path(name, folder).is_file():
        return
    policies = sorted(path.stem for path in folder.glob("*.safetensors"))
    short = [alias for alias, file in SHIPPED.items() if file in policies]
    known = ["default", *STRATEGIES, UNTRAINED, *short, *policies]
    raise ValueError(
        f"unknown strategy '{name}'; expected one of {', '.join(known)} (policies of {folder})"
    )


def find_strategy(
    name: str, folder: Path, classes: Sequence[str], region_size: tuple[int, int]
) -> Strategy:
    """The strategy of that name, for a project with these classes and regions.

    Raises:
        ValueError: if there is none; `PolicyDoesNotFit` and `WeightsError`, which are ValueErrors,
            if it is a policy that cannot be used.
    """
    check_strategy(name, folder)
    if name == "default":
        return find_strategy(DEFAULT, folder, classes, region_size)
    if name in STRATEGIES:
        return STRATEGIES[name]
    if name == UNTRAINED:
        return AgnosticPolicy.untrained(AgnosticSpec(), 0, name)
    path = _path(name, folder)
    if weights.load_metadata(path).get("kind") == AGNOSTIC:
        return AgnosticPolicy.load(path, name)
    return RalisPolicy.load(path, name).fitted(classes, region_size)


def is_learned(strategy: Strategy) -> bool:
    """Whether it is a trained policy, which has to prove itself, and not a built-in strategy."""
    return strategy.name not in STRATEGIES


def _path(name: str, folder: Path) -> Path:
    # the last part alone: a name from a connection must not lead out of the folder
    return folder / f"{Path(SHIPPED.get(name, name)).name}.safetensors"
