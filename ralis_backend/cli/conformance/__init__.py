"""What a plug-in's things must do, as tests that its author can run.

A kind of things is a registry and the tests of its things. A test takes a name and the thing, and
raises what is wrong.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ralis_backend.cli.conformance import labels, segmenters, strategies, training
from ralis_backend.core.acquisition import STRATEGIES
from ralis_backend.core.learning.registry import OBJECTIVES
from ralis_backend.core.policy.registry import POLICIES
from ralis_backend.core.registry import Registry, package_of
from ralis_backend.core.segmenter import SEGMENTERS
from ralis_backend.offline.training.config import PRESETS
from ralis_backend.offline.training.rewards import SCORES
from ralis_backend.online.answers import ANSWER_KINDS
from ralis_backend.online.export.formats import FORMATS

Test = Callable[[str, Any], None]


@dataclass(frozen=True)
class Kind:
    """A registry that other packages add to, and the tests of what they add.

    Where a thing fails the first test it is of another form altogether, and the others are left.
    `is_for_web`: the web process loads them, which must stay small.
    """

    registry: Registry[Any]
    tests: tuple[Test, ...]
    is_for_web: bool = False


NOT_IN_WEB = ("ralis_backend.simulation", "ralis_backend.offline", "matplotlib")
"""What the web process never loads."""

KINDS = (
    Kind(STRATEGIES, strategies.TESTS, is_for_web=True),
    Kind(SEGMENTERS, segmenters.SEGMENTER_TESTS, is_for_web=True),
    Kind(OBJECTIVES, segmenters.OBJECTIVE_TESTS),
    Kind(POLICIES, training.POLICY_TESTS, is_for_web=True),
    Kind(SCORES, training.REWARD_TESTS),
    Kind(PRESETS, training.PRESET_TESTS),
    Kind(FORMATS, labels.FORMAT_TESTS),
    Kind(ANSWER_KINDS, labels.ANSWER_TESTS, is_for_web=True),
)


@dataclass(frozen=True)
class Finding:
    """One thing of a plug-in, and what is wrong with it: nothing where it conforms."""

    title: str
    faults: tuple[str, ...]


def findings(package: str | None = None) -> Iterator[Finding]:
    """Each thing of a package, tested; of all installed packages if None.

    Raises:
        ValueError: if that package is not installed or brings nothing along.
    """
    entries = [
        (kind, entry)
        for kind in KINDS
        for entry in entry_points(group=kind.registry.group)
        if package is None or _is_of(entry, package)
    ]
    if package is not None and not entries:
        groups = ", ".join(kind.registry.group for kind in KINDS)
        raise ValueError(
            f"package '{package}' brings nothing along; install it (`pip install -e .`), and name "
            f"entry points in its pyproject.toml in one of the groups {groups}"
        )
    for kind, entry in entries:
        title = f"{kind.registry.kind} {entry.name} ({package_of(entry)})"
        yield Finding(title, tuple(_faults(kind, entry)))


def faults_of(name: str, thing: object, tests: tuple[Test, ...]) -> list[str]:
    """What is wrong with a thing."""
    found = []
    for test in tests:
        try:
            test(name, thing)
        except Exception as error:
            found.append(_told(test, error))
            if test is tests[0]:
                break
    return found


def _faults(kind: Kind, entry: EntryPoint) -> list[str]:
    try:
        thing = entry.load()
    except Exception as error:
        return [f"{entry.value} cannot be loaded: {type(error).__name__}: {error}"]
    if kind.registry.get(entry.name) != thing:
        return [
            f"there is a {kind.registry.kind} '{entry.name}' already, and yours is left out; "
            "choose another name"
        ]
    heavy = _heavy_imports(entry.module) if kind.is_for_web else ""
    return ([heavy] if heavy else []) + faults_of(entry.name, thing, kind.tests)


@cache
def _heavy_imports(module: str) -> str:
    """What a module loads that the web process must not, as a fault; empty if it is nothing."""
    code = f"import sys; sys.path[:] = {sys.path!r}; import {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = [each for each in NOT_IN_WEB if each in loaded]
    if not heavy:
        return ""
    return (
        f"importing {module} loads {' and '.join(heavy)}, which the web process must not; import "
        "that where it is used, or put what needs it into a module of its own"
    )


def _told(test: Test, error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}; expected that it {test.__name__.replace('_', ' ')}"


def _is_of(entry: EntryPoint, package: str) -> bool:
    return entry.dist is not None and _plain(entry.dist.name) == _plain(package)


def _plain(name: str) -> str:
    """A distribution's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
