"""Everything that can fail under the worker, counted: a fault happens at one of these points.

Points are database statements, commits, file operations below one folder, and calls of the
labelling tool, each with the worker's step in which it came.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import OperationalError

from ralis_backend.online.tool import ToolNotFound, ToolUnavailable
from ralis_backend.online.worker import loop

KILLED = 113
"""Exit status of a process that a fault has killed."""
CHANGES = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP")

EVERYWHERE = frozenset(("memory", "interrupt", "kill"))
KINDS_OF = {
    "statement": EVERYWHERE | {"locked", "disk-io"},
    "change": EVERYWHERE | {"locked", "disk-io", "full-disk"},
    "commit": EVERYWHERE | {"disk-io", "full-disk", "lost-commit"},
    "write": EVERYWHERE | {"enospc", "eio", "full-disk"},
    "file": EVERYWHERE | {"enospc", "eio", "half-write", "full-disk"},
    "read": EVERYWHERE | {"eio"},
    "removal": EVERYWHERE | {"eio"},
    "local": EVERYWHERE,
    "call": EVERYWHERE | {"unavailable", "down", "not-found", "gone", "lost-answer", "half-answer"},
    "listing": EVERYWHERE
    | {"unavailable", "down", "not-found", "gone", "half-answer", "empty-answer"},
}
"""What can go wrong at a point of each family.

full-disk, down, gone: from here on nothing can be written, the tool does not answer, it says that
there is no such thing; until the loop has gone round twice more.
lost-commit, lost-answer: it took effect, and an error comes all the same.
interrupt: KeyboardInterrupt at even points, SystemExit at odd ones.
kill: the process ends here and now.
"""
LASTING = frozenset(("full-disk", "down", "gone"))
LIES = frozenset(("not-found", "gone", "half-answer", "empty-answer"))
"""Kinds in which the tool may say what is not so: what is ranked meanwhile may differ."""


@dataclass(frozen=True)
class Point:
    """A moment at which something can fail: in which step, of which family, doing what."""

    step: str
    family: str
    what: str


@dataclass(frozen=True)
class Fault:
    """A kind of failure at the n-th point after a boundary, counted from 0."""

    number: int
    kind: str


class Injector:
    """Counts points, and lets one of them fail.

    on_kill: called before the process ends.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root.resolve())
        self.points: list[Point] = []
        self.on_kill: Callable[[], None] = lambda: None
        self._lasting: str | None = None
        self._step = "loop"
        self._fault: Fault | None = None
        self._is_counting = False
        self._thread = threading.get_ident()

    @contextmanager
    def counting(self, fault: Fault | None = None) -> Iterator[None]:
        """Count from 0 within the block, and fail at the fault's point."""
        self.points, self._fault, self._is_counting = [], fault, True
        try:
            yield
        finally:
            self._fault, self._is_counting = None, False

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What is counted within the block belongs to this step."""
        before, self._step = self._step, name
        try:
            yield
        finally:
            self._step = before

    def reach(self, family: str, what: str) -> str | None:
        """Count a point: raise what is due there, or give the kind that the caller carries out."""
        if not self._is_counting or threading.get_ident() != self._thread:
            return None
        number = len(self.points)
        self.points.append(Point(self._step, family, what))
        kind = self._kind_at(number, family)
        if kind == "kill":
            self.on_kill()
            os._exit(KILLED)
        error = None if kind is None else _error(kind, number, family, what)
        if error is not None:
            raise error
        return kind

    def heal(self) -> None:
        """A lasting fault ends."""
        self._lasting = None

    def _kind_at(self, number: int, family: str) -> str | None:
        if self._fault is not None and self._fault.number == number:
            if self._fault.kind in LASTING:
                self._lasting = self._fault.kind
            return self._fault.kind
        return self._lasting if self._lasting in KINDS_OF[family] else None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch database, files and worker of this process."""
        with ExitStack() as stack:
            for target, name, make in self._hooks():
                stack.enter_context(mock.patch.object(target, name, make(getattr(target, name))))
            event.listen(Engine, "before_cursor_execute", self._statement)
            stack.callback(event.remove, Engine, "before_cursor_execute", self._statement)
            yield

    def _hooks(self) -> list[tuple[Any, str, Callable[[Any], Any]]]:
        changing = ("replace", "rename", "mkdir")
        removing = ("unlink", "remove", "rmdir")  # a full disk allows it
        return [
            (DefaultDialect, "do_commit", self._commit),
            (loop, "worker_steps", self._steps),
            (os, "open", self._os_open),
            (os, "fsync", self._fsync),
            (io, "open", self._open),
            (builtins, "open", self._open),
            (safetensors.torch, "save_file", self._save_file),
            *[(os, name, self._change(name, "write")) for name in changing],
            *[(os, name, self._change(name, "removal")) for name in removing],
        ]

    # Database

    def _statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        is_change = statement.lstrip().upper().startswith(CHANGES)
        self.reach("change" if is_change else "statement", " ".join(statement.split())[:60])

    def _commit(self, commit: Callable) -> Callable:
        def wrapped(dialect: Any, connection: Any) -> None:
            kind = self.reach("commit", "COMMIT")
            commit(dialect, connection)
            if kind == "lost-commit":
                raise sqlite3.OperationalError("disk I/O error")

        return wrapped

    # Files

    def _is_ours(self, path: Any, dir_fd: int | None = None) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        return os.path.abspath(os.fspath(path)).startswith(self.root)

    def _change(self, name: str, family: str) -> Callable[[Callable], Callable]:
        def wrap(change: Callable) -> Callable:
            def wrapped(path: Any, *arguments: Any, **options: Any) -> Any:
                if self._is_counting and self._is_ours(path, options.get("dir_fd")):
                    self.reach(family, f"os.{name} {_name(path)}")
                return change(path, *arguments, **options)

            return wrapped

        return wrap

    def _os_open(self, real: Callable) -> Callable:
        def wrapped(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if self._is_counting and self._is_ours(path, options.get("dir_fd")):
                is_write = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                self.reach("write" if is_write else "read", f"os.open {_name(path)}")
            return real(path, flags, *arguments, **options)

        return wrapped

    def _fsync(self, real: Callable) -> Callable:
        def wrapped(descriptor: int) -> None:
            if self._is_counting and self._is_ours(descriptor):
                self.reach("write", f"os.fsync {_name(os.readlink(f'/proc/self/fd/{descriptor}'))}")
            real(descriptor)

        return wrapped

    def _open(self, real: Callable) -> Callable:
        def wrapped(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if not self._is_counting or isinstance(path, int) or not self._is_ours(path):
                return real(path, mode, *arguments, **options)
            is_write = bool(set(mode) & set("wax+"))
            kind = self.reach("file" if is_write else "read", f"open {mode} {_name(path)}")
            file = real(path, mode, *arguments, **options)
            return _HalfWritten(file) if kind == "half-write" else file

        return wrapped

    def _save_file(self, real: Callable) -> Callable:
        def wrapped(tensors: Any, path: Path, *arguments: Any, **options: Any) -> None:
            kind = self.reach("file", f"save_file {_name(path)}")
            real(tensors, path, *arguments, **options)
            if kind == "half-write":
                os.truncate(path, path.stat().st_size // 2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return wrapped

    # The worker

    def _steps(self, make: Callable) -> Callable:
        def named(step: Any) -> Any:
            def run(*arguments: Any) -> object:
                with self.step(step.name):
                    return step.run(*arguments)

            return replace(step, run=run)

        return lambda *arguments: tuple(named(step) for step in make(*arguments))


class FaultyTool:
    """A labelling tool whose calls are points; everything else of it as it is."""

    LOCAL = frozenset(("hint", "mask", "answers", "annotated_regions", "refusals"))
    LISTINGS = frozenset(("tasks", "annotations"))

    def __init__(self, tool: Any, injector: Injector) -> None:
        self._tool, self._injector = tool, injector

    def watched(self, watch: Any) -> FaultyTool:
        return FaultyTool(self._tool.watched(watch), self._injector)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tool, name)
        if not callable(method):
            return method
        family = "local" if name in self.LOCAL else "listing" if name in self.LISTINGS else "call"

        def call(*arguments: Any, **options: Any) -> Any:
            kind = self._injector.reach(family, f"tool.{name}")
            if kind == "half-answer":
                return _half_answer(method, arguments, options)
            if kind == "empty-answer":
                return []
            answer = method(*arguments, **options)
            if kind == "lost-answer":
                raise ToolUnavailable(f"the answer to {name} was lost")
            return answer

        return call


class _HalfWritten:
    """A file on a disk that is full after half of what is written first."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _HalfWritten:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: Any) -> int:
        self._file.write(content[: len(content) // 2])
        self._file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _half_answer(method: Callable, arguments: tuple, options: dict[str, Any]) -> Any:
    """Half of what was asked takes effect, or half of the answer comes, and then an error."""
    last = arguments[-1] if arguments else None
    if isinstance(last, Sequence) and not isinstance(last, (str, bytes)):
        method(*arguments[:-1], last[: len(last) // 2], **options)
        raise ToolUnavailable("the tool went away in the middle")
    answer = method(*arguments, **options)
    if isinstance(answer, bytes):
        return answer[: len(answer) // 2]
    return _broken_off(list(answer)) if isinstance(answer, (list, Iterator)) else _gone()


def _broken_off(entries: list[Any]) -> Iterator[Any]:
    yield from entries[: len(entries) // 2]
    _gone()


def _gone() -> None:
    raise ToolUnavailable("the tool went away in the middle of its answer")


def _error(kind: str, number: int, family: str, what: str) -> BaseException | None:
    """What is raised before anything takes effect; None where the caller carries the kind out."""
    if kind == "interrupt":
        return SystemExit(1) if number % 2 else KeyboardInterrupt()
    if kind in ("enospc", "eio") or (kind == "full-disk" and family in ("write", "file")):
        code = errno.EIO if kind == "eio" else errno.ENOSPC
        return OSError(code, os.strerror(code), what)
    messages = {
        "locked": "database is locked",
        "disk-io": "disk I/O error",
        "full-disk": "database or disk is full",
    }
    if kind in messages:
        cause = sqlite3.OperationalError(messages[kind])
        return cause if family == "commit" else OperationalError(what, None, cause)
    return {
        "memory": MemoryError(what),
        "unavailable": ToolUnavailable(f"no answer to {what}"),
        "down": ToolUnavailable(f"no answer to {what}"),
        "not-found": ToolNotFound(f"{what}: not found"),
        "gone": ToolNotFound(f"{what}: not found"),
    }.get(kind)


def _name(path: Any) -> str:
    """A file's name without what differs from run to run."""
    name = Path(os.fspath(path)).name
    return ".writing" + Path(name).suffix if name.startswith(".writing") else name
