"""Processes of the backend that are killed, a network that fails, a disk that gets full."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ralis_backend.cli.demo.annotators import CropAnnotator
from ralis_backend.cli.demo.label_studio import LabelStudioServer
from tests.cli.process import RALIS
from tests.e2e.bad_network import WEATHERS, BadNetwork

DROPPED, DOUBLED = 0.3, 0.1
"""Shares of the webhooks."""
DISK_MB = 768

WORKER = ("worker", "--unsupervised")
"""The process itself: kills are of it, and this crew starts it again."""


class Crew:
    """`ralis web` and two `ralis worker`, each started again when it ends.

    Args:
        port: of the web server.
        environment: of all of them, on top of this process's.
        folder: for what they print.
    """

    def __init__(self, port: int, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = {**os.environ, **environment}
        self._folder = folder
        listen = ("web", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
        self._commands = {"web": listen, "worker-1": WORKER, "worker-2": WORKER}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look_after, daemon=True)
        self.num_ended = 0

    def __enter__(self) -> Crew:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self, *names: str) -> None:
        """`kill -9`, all of them at once."""
        with self._lock:
            running = [self._processes[name] for name in names if name in self._processes]
            for process in running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            for process in running:
                process.wait()

    def wait_at_work(self, timeout_s: float = 60.0) -> None:
        """Return once a worker has the database open, or at the end of the time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self._lock:
                pids = [p.pid for name, p in self._processes.items() if name != "web"]
            if any(_has_database(pid) for pid in pids):
                return
            time.sleep(0.2)

    @property
    def names(self) -> list[str]:
        """Of the processes."""
        return list(self._commands)

    def log(self, num_lines: int = 40) -> str:
        """The end of what each printed."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text().splitlines()[-num_lines:])
            for path in sorted(self._folder.glob("*.log"))
        )

    def _look_after(self) -> None:
        while not self._is_over.is_set():
            with self._lock:
                for name, command in self._commands.items():
                    process = self._processes.get(name)
                    if process is None or process.poll() is not None:
                        is_own_end = process is not None and process.returncode != -signal.SIGKILL
                        self.num_ended += is_own_end
                        self._processes[name] = self._start(name, command)
            self._is_over.wait(0.5)

    def _start(self, name: str, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*RALIS, *command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _has_database(pid: int) -> bool:
    with suppress(OSError):
        return any(
            "ralis.db" in str(descriptor.readlink())
            for descriptor in Path(f"/proc/{pid}/fd").iterdir()
        )
    return False


class SmallDisk:
    """A folder on a disk of its own, small enough to be filled; `can_fill` where one was given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.can_fill = False

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.folder)]
        with suppress(OSError):
            self.can_fill = not subprocess.run(mount, check=False, capture_output=True).returncode
        return self

    def __exit__(self, *_: object) -> None:
        if self.can_fill:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is free within the block."""
        ballast = self.folder / "ballast"
        try:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(2**16))
            yield
        finally:
            ballast.unlink(missing_ok=True)


class Annotator:
    """Labels what it is handed, from a thread, until it is told to rest."""

    def __init__(self, make: Callable[[], CropAnnotator], pause_s: float) -> None:
        self._make, self._pause_s = make, pause_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.num_submitted = 0

    def __enter__(self) -> Annotator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(self._pause_s):
            with suppress(Exception):  # Label Studio may be away
                self.num_submitted += self._make().label_next()


@dataclass
class Harm:
    """What is done, at random moments.

    lasting_s: least and most seconds that what passes by itself takes.
    done: how often each thing was.
    """

    crew: Crew
    network: BadNetwork
    disk: SmallDisk
    server: LabelStudioServer | None
    rng: random.Random
    lasting_s: tuple[float, float]
    done: dict[str, int] = field(default_factory=dict)

    def run(self, kills: int, gap_s: tuple[float, float]) -> None:
        """Kill so many times, and in between what else there is, each at least once.

        Args:
            kills: how often.
            gap_s: least and most seconds that a worker works before something is done.
        """
        others = [*WEATHERS, *(["full disk"] if self.disk.can_fill else [])]
        others += ["restart", "a minute's stop"] if self.server is not None else []
        self.rng.shuffle(others)
        for number in range(kills):
            self.crew.wait_at_work()  # else nothing but starting programs would be killed
            time.sleep(self.rng.uniform(*gap_s))
            for _ in range(-(-len(others) // kills) if number * 2 < kills else 1):
                self._do(others.pop() if others else self.rng.choice(WEATHERS))
            self._kill()
        for other in others:
            self._do(other)

    def webhook(self, path: str) -> int:
        """How often a request to the backend arrives."""
        if path != "/webhook":
            return 1
        chance = self.rng.random()
        times = 0 if chance < DROPPED else 2 if chance < DROPPED + DOUBLED else 1
        self._count(f"webhook {('dropped', 'passed on', 'doubled')[times]}")
        return times

    def _kill(self) -> None:
        names = self.rng.choice((["web"], ["worker-1"], ["worker-2"], self.crew.names))
        self._count(f"kill {'all' if len(names) > 1 else names[0]}")
        self.crew.kill(*names)

    def _do(self, name: str) -> None:
        self._count(name)
        lasting_s = self.rng.uniform(*self.lasting_s)
        if name == "full disk":
            with self.disk.full():
                time.sleep(lasting_s)
        elif name in ("restart", "a minute's stop") and self.server is not None:
            self.server.stop()
            time.sleep(lasting_s if name == "restart" else 60)
            self.server.start()
            self.server.wait_ready()
        else:
            self.network.weather = name
            time.sleep(lasting_s)
            self.network.weather = None

    def _count(self, name: str) -> None:
        self.done[name] = self.done.get(name, 0) + 1
