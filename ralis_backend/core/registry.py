"""Things of one kind by name: the backend's own, and those that other packages bring along.

A package joins by an entry point: its name in the group is the thing's name, its object the thing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Registry(MutableMapping[str, T], Generic[T]):
    """A mapping of names to things; other packages are asked when it is first looked into.

    A package that cannot be loaded is left out, with a line in the log: what others brought along
    must not stop a project.

    Args:
        kind: what the things are, in words, for messages.
        group: of the entry points, as `ralis_backend.strategies`.
        check: raises ValueError if a thing is not of the kind, saying what it lacks.
    """

    def __init__(
        self, kind: str, group: str, check: Callable[[T], None] = lambda thing: None
    ) -> None:
        self.kind, self.group, self.check = kind, group, check
        self._things: dict[str, T] = {}
        self._is_complete = False

    def register(self, name: str, thing: T) -> T:
        """Add a thing, and give it back.

        Raises:
            ValueError: if the name stands for another one, or the thing is not of the kind.
        """
        if name in self._things and self._things[name] != thing:  # methods are made anew
            raise ValueError(f"there is a {self.kind} '{name}' already; choose another name")
        self.check(thing)
        self._things[name] = thing
        return thing

    def find(self, name: str) -> T:
        """The thing of that name.

        Raises:
            ValueError: if there is none, naming those there are.
        """
        if name not in self:
            raise ValueError(f"unknown {self.kind} '{name}'; expected one of {', '.join(self)}")
        return self[name]

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            self._complete()
        return self._things[name]

    def __setitem__(self, name: str, thing: T) -> None:
        self.register(name, thing)

    def __delitem__(self, name: str) -> None:
        del self._things[name]

    def __iter__(self) -> Iterator[str]:
        self._complete()
        return iter(tuple(self._things))

    def __len__(self) -> int:
        self._complete()
        return len(self._things)

    def _complete(self) -> None:
        if self._is_complete:
            return
        self._is_complete = True
        for entry in entry_points(group=self.group):
            try:
                self.register(entry.name, entry.load())
            except Exception as error:
                logger.error(
                    "%s '%s' of package %s is left out: %s",
                    self.kind,
                    entry.name,
                    package_of(entry),
                    error,
                )


def package_of(entry: EntryPoint) -> str:
    """Name and version of the package that an entry point came with."""
    return "?" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
