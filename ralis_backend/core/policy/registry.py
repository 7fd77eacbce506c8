"""Names of strategies -> strategies: the built-in ones, and trained policies in a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self

from ralis_backend.core import policy, weights
from ralis_backend.core.acquisition import STRATEGIES, Aimed, Needs, Strategy
from ralis_backend.core.policy.kinds import ADAPTIVE, AGNOSTIC, MISICAL, RALIS
from ralis_backend.core.registry import Registry
from ralis_backend.core.text import reason_of, storable

DEFAULT = "coverage-diverse"
"""What `default` stands for: the formula that is least behind the best one of each label set, see
`benchmarks/results/formulas-confirmed`."""
MINER = "presence"
"""What looks for a class where nobody says how; measured in `benchmarks/results/mining`."""

SHIPPED = {
    "ralis": "ralis-camvid",
    "ralis-faithful": "ralis-camvid-faithful",
    "ralis-wiou": "ralis-camvid-wiou",
    "linear": "linear",
    "placebo-shuffled": "any-shuffled",
    "misical": "misical",
    "misical-linear": "misical-linear",
}
"""Short names of policies that come with the backend -> their files."""

SHIPPED_FOLDERS = (
    Path(__file__).resolve().parents[3] / "policies",  # of a checkout
    Path(sys.prefix) / "share/ralis-backend/policies",  # of an installed package
)
"""Where the policies lie that come with the backend, whatever the current folder is."""

PLACEBOS: dict[str, Callable[[str], Strategy]] = {
    "placebo-untrained": lambda name: policy.AgnosticPolicy.untrained(
        policy.AgnosticSpec(), 0, name
    ),
}
"""Policies that must not win, made when they are asked for."""


class Policy(Strategy, Protocol):
    """A trained strategy that is kept in a file."""

    def save(self, path: Path) -> None:
        """Write it to one safetensors file whose metadata name its kind."""

    def fitted(self, classes: Sequence[str], region_size: tuple[int, int]) -> Self:
        """This policy for a project; `PolicyDoesNotFit` if it was trained for something else."""


PolicyLoader = Callable[[Path, str], Policy]
"""A file and the name that people use -> the policy in it; `WeightsError` if it is none."""

POLICIES: Registry[PolicyLoader] = Registry("kind of policy", "ralis_backend.policies")
"""Kinds of policies, as their files name them in `kind` -> what loads them."""
POLICIES.register(RALIS, lambda path, name: policy.RalisPolicy.load(path, name))
POLICIES.register(AGNOSTIC, lambda path, name: policy.AgnosticPolicy.load(path, name))
POLICIES.register(ADAPTIVE, lambda path, name: policy.AdaptivePolicy.load(path, name))
POLICIES.register(MISICAL, lambda path, name: policy.MisicalPolicy.load(path, name))


def check_strategy(name: str, folder: Path) -> None:
    """Refuse a name that stands for nothing, before any work is done.

    Raises:
        ValueError: naming what there is.
    """
    name = name.partition(":")[0]
    if _is_built_in(name) or policy_file(name, folder).is_file():
        return
    folders = [it for it in (folder, *SHIPPED_FOLDERS) if it.is_dir()]
    policies = sorted({path.stem for it in folders for path in it.glob("*.safetensors")})
    short = [alias for alias, file in SHIPPED.items() if file in policies]
    known = ["default", *STRATEGIES, *PLACEBOS, *short, *policies]
    raise ValueError(
        f"unknown strategy '{name}'; expected one of {', '.join(known)} "
        f"(policies of {folder.absolute()}, and those that come with the backend)"
    )


def check_usable(name: str, folder: Path) -> None:
    """Refuse a strategy that no project could rank with, whatever its classes are.

    Raises:
        ValueError: if there is none, its policy's file is damaged or of another kind, or a class is
            missing, or too many.
    """
    plain, colon, target = name.partition(":")
    is_aimed = looks_for_class(plain, folder)
    if is_aimed and not target:
        raise ValueError(
            f"strategy '{plain}' looks for one class, named as '{plain}:CLASS'; name it, or have "
            "one project look for a class with `ralis mine`"
        )
    if colon and not is_aimed:
        raise _no_target(plain, target)


def own_name(name: str) -> str:
    """The name of the strategy itself where a name stands for another one, as `default` does.

    What is kept by the name of a strategy says this one: a release may change what `default` means.
    """
    return DEFAULT if name == "default" else name


def looks_for_class(name: str, folder: Path) -> bool:
    """Whether the strategy of that name needs a class to look for; `name:class` has one.

    Raises:
        ValueError: if there is none, or its file cannot be read.
    """
    check_strategy(name, folder)
    if name in STRATEGIES:
        return STRATEGIES[name].needs.has_target_class
    if ":" in name or name == "default" or name in PLACEBOS:
        return False
    return _loaded(name, folder).needs.has_target_class


def find_strategy(
    name: str, folder: Path, classes: Sequence[str], region_size: tuple[int, int]
) -> Strategy:
    """The strategy of that name, for a project with these classes and regions.

    Args:
        name: of a strategy or policy; `name:class` for one that looks for a class.
        folder: of policies.
        classes: names by class index.
        region_size: (height, width) in pixels.

    Raises:
        ValueError: if there is none; `PolicyDoesNotFit` and `WeightsError`, which are ValueErrors,
            if it is a policy that cannot be used. A plug-in that breaks in saying what it is, too.
    """
    check_strategy(name, folder)
    plain, colon, target = name.partition(":")
    found = _named(plain, folder, classes, region_size)
    _check_said(found, plain)
    if colon and not found.needs.has_target_class:
        raise _no_target(plain, target)
    return _aimed(found, target, classes) if found.needs.has_target_class else found


def _check_said(found: Strategy, plain: str) -> None:
    """Refuse a strategy that does not say its name and what it needs."""
    try:
        name, needs, _ = found.name, found.needs, (found.is_pointwise, found.is_trained)
    except Exception as error:
        why = f"it breaks in saying what it is: {reason_of(error)}"
        raise ValueError(f"strategy '{plain}' cannot be used: {why}") from error
    if not isinstance(name, str) or storable(name) != name:
        raise ValueError(f"strategy '{plain}' cannot be used: its name is {name!r}, expected text")
    if not isinstance(needs, Needs):
        raise ValueError(f"strategy '{plain}' cannot be used: it needs {needs!r}, expected `Needs`")


def policy_file(name: str, folder: Path) -> Path:
    """Where a policy of that name lies: in the folder, else among those that are shipped.

    Never outside of these; in the folder, where there is none.
    """
    # the last part alone: a name from a connection must not lead out of the folder
    file = f"{Path(SHIPPED.get(name, name)).name}.safetensors"
    found = (it / file for it in (folder, *SHIPPED_FOLDERS))
    return next((path for path in found if path.is_file()), folder / file)


def policy_digest(name: str, folder: Path) -> str | None:
    """SHA-256 of the file of a strategy of that name; None where it has none, as a formula."""
    plain = name.partition(":")[0]
    path = policy_file(plain, folder)
    return None if _is_built_in(plain) or not path.is_file() else weights.digest(path)


def check_policy_name(name: str) -> None:
    """Refuse a name for a new policy under which nobody would find it.

    Raises:
        ValueError: saying what it stands for.
    """
    if ":" in name:
        raise ValueError(
            f"a policy cannot be named '{name}': what follows ':' in the name of a strategy is a "
            "class; choose another name"
        )
    if (stands_for := _reserved(name)) is not None:
        raise ValueError(
            f"a policy named '{name}' would never be used: the name stands for {stands_for}; "
            "choose another one"
        )


def unused_policies(folder: Path) -> list[str]:
    """Why files of a folder are never used, a sentence each: their names stand for others."""
    reasons = {path: _reserved(path.stem) for path in sorted(folder.glob("*.safetensors"))}
    unused = [
        f"{path} is never used: '{path.stem}' stands for {reason}; rename the file"
        for path, reason in reasons.items()
        if reason is not None
    ]
    return unused + [
        f"{path} is never used: what follows ':' is a class; rename the file"
        for path in reasons
        if ":" in path.stem
    ]


def _reserved(name: str) -> str | None:
    """What a name stands for, whatever files there are; None where it is free."""
    if _is_built_in(name):
        return f"the strategy '{own_name(name)}' of the backend"
    file = SHIPPED.get(name, name)
    return None if file == name else f"the policy '{file}'"


def _is_built_in(name: str) -> bool:
    return name in (*STRATEGIES, "default", *PLACEBOS)


def _named(
    name: str, folder: Path, classes: Sequence[str], region_size: tuple[int, int]
) -> Strategy:
    name = own_name(name)
    if name in STRATEGIES:
        return STRATEGIES[name]
    if name in PLACEBOS:
        return PLACEBOS[name](name)
    return _loaded(name, folder).fitted(classes, region_size)


def _loaded(name: str, folder: Path) -> Policy:
    path = policy_file(name, folder)
    kind = str(weights.load_metadata(path).get("kind"))
    if kind not in POLICIES:
        raise weights.WeightsError(
            f"{path} holds a {kind}, no policy; expected one of the kinds {', '.join(POLICIES)}"
        )
    return POLICIES[kind](path, name)


def _no_target(name: str, target: str) -> ValueError:
    return ValueError(f"strategy '{name}' looks for no single class; leave out ':{target}'")


def _aimed(strategy: Strategy, target: str, classes: Sequence[str]) -> Strategy:
    """The strategy, told which class it looks for."""
    name = strategy.name
    if target not in classes:
        raise ValueError(
            f"strategy '{name}' looks for one class, named as '{name}:CLASS'; "
            f"{target or 'none'!r} is not one of {', '.join(classes) or 'no classes'}"
        )
    return Aimed(strategy, list(classes).index(target), target)
