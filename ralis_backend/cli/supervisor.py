"""Keeps child processes running: restarts those that die, stops all of them together."""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ralis_backend.cli.errors import CANNOT_START
from ralis_backend.settings import environment_with

logger = logging.getLogger(__name__)

ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_ARENA_MAX": "1",
}
"""Variables of a child's environment where the operator's has none.

glibc keeps the memory of a large map, up to 1 GiB beyond what is in use, which the next image needs
again, instead of having the kernel clear new pages for each. It reads them when a process starts;
other C libraries ignore them.
"""
POLL_S = 0.2
LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 60.0


@dataclass
class Child:
    """A command that should always be running."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    num_failures: int = field(default=0, init=False)
    started_at: float = field(default=0.0, init=False)
    start_at: float = field(default=0.0, init=False)


class Supervisor:
    """Runs children until told to stop.

    Args:
        children: what to run.
        stop_s: how long a child may take to stop before it is killed.
    """

    def __init__(self, children: Sequence[Child], stop_s: float = 10.0) -> None:
        self._children = children
        self._stop_s = stop_s

    def run(self, stop: threading.Event) -> None:
        """Start all children and keep them alive; returns when `stop` is set and all are gone.

        Raises:
            ValueError: if one ended with `CANNOT_START`, when all are gone.
        """
        try:
            while not stop.is_set():
                for child in self._children:
                    self._look_after(child)
                stop.wait(POLL_S)
        finally:
            self._stop_all()

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        child.process = None
        if code == CANNOT_START:
            raise ValueError(
                f"{child.name} cannot start, see its message above, and starting it again would "
                "not help: mend what it says, then start this command again"
            )
        is_healthy = now - child.started_at > HEALTHY_AFTER_S
        child.num_failures = 1 if is_healthy else child.num_failures + 1
        pause_s = min(LONGEST_PAUSE_S, 0.5 * 2**child.num_failures)
        logger.error(
            "%s ended with code %s; starting it again in %.0f s", child.name, code, pause_s
        )
        child.start_at = now + pause_s

    def _start(self, child: Child) -> None:
        # A session of its own: Ctrl-C reaches the supervisor alone, which then stops the children.
        child.process = subprocess.Popen(
            child.command,
            env=environment_with(ALLOCATOR),
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        child.started_at = time.monotonic()
        logger.info("%s started, process %d", child.name, child.process.pid)

    def _stop_all(self) -> None:
        running = [child for child in self._children if child.process is not None]
        for child in running:
            with suppress(ProcessLookupError):
                child.process.terminate()  # type: ignore[union-attr]
        deadline = time.monotonic() + self._stop_s
        for child in running:
            process = child.process
            if process is None:
                continue
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("%s did not stop within %.0f s; killed", child.name, self._stop_s)
                process.kill()
                process.wait()
            child.process = None


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set():
            sys.exit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop


@contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """As `stop_on_signals`, within the block alone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop_on_signals()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_parent() -> None:
    """Linux: have the child told to stop if the supervisor is killed, so that none is orphaned."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
