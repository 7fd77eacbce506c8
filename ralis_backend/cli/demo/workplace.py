"""The demo's folder and what runs in it: Label Studio, the backend, their credentials and ports."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ralis_backend.cli.demo.label_studio import HOST, LabelStudioServer, free_port, is_free
from ralis_backend.core.files import OWNER_ONLY, write_json


@dataclass
class Workplace:
    """What one demo folder remembers from run to run, in `<folder>/demo.json`.

    `projects` holds the pool project's id by what it was made from.
    """

    folder: Path
    username: str = "demo@example.com"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    token: str = field(default_factory=lambda: secrets.token_hex(20))
    backend_password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    projects: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Workplace:
        """The folder's memory, or a new one with generated credentials.

        Raises:
            ValueError: if `demo.json` is damaged.
        """
        path = folder / "demo.json"
        if not path.is_file():
            workplace = cls(folder)
            workplace.save()
            return workplace
        try:
            return cls(folder, **json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete the folder {folder}") from error

    def save(self) -> None:
        """Write `demo.json`, readable by the owner alone."""
        content = {name: value for name, value in asdict(self).items() if name != "folder"}
        write_json(self.folder / "demo.json", content, mode=OWNER_ONLY)

    def label_studio(self, executable: Path, port: int) -> LabelStudioServer:
        """Label Studio in this folder, not started."""
        return LabelStudioServer(
            executable,
            self.folder / "label-studio",
            port,
            self.username,
            self.password,
            self.token,
        )

    def environment(
        self, name: str, label_studio_url: str, port: int, settings: Mapping[str, str]
    ) -> dict[str, str]:
        """The backend's environment variables, on top of those of this process.

        Args:
            name: of the backend's own folder: one per project, so that it serves no other.
            label_studio_url: address of Label Studio.
            port: the backend's.
            settings: further variables.
        """
        return {
            "LABEL_STUDIO_URL": label_studio_url,
            "LABEL_STUDIO_API_KEY": self.token,
            "RALIS_DATA_DIR": str(self.backend_folder(name)),
            "RALIS_DATABASE_URL": self.database_url(name),
            "RALIS_AUTH_USER": "label-studio",
            "RALIS_AUTH_PASSWORD": self.backend_password,
            "RALIS_BACKEND_URL": f"http://{HOST}:{port}",
            **settings,
        }

    def backend_folder(self, name: str) -> Path:
        """Where a backend keeps its database, masks and weights."""
        return (self.folder / "backends" / name).absolute()

    def database_url(self, name: str) -> str:
        """A backend's database."""
        return f"sqlite:///{self.backend_folder(name) / 'ralis.db'}"


class Backend:
    """`ralis serve` as a child process, as a context manager.

    What it prints goes to `log_path`. It is stopped together with its own children.
    """

    def __init__(self, port: int, environment: Mapping[str, str], log_path: Path) -> None:
        self.port = port
        self.log_path = log_path
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def run(self, *arguments: str) -> str:
        """Run another `ralis` command with the backend's settings, and return what it printed.

        Raises:
            RuntimeError: if it fails; the message carries the end of its output.
        """
        done = subprocess.run(
            self._command(*arguments), capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode:
            raise RuntimeError(
                f"`ralis {' '.join(arguments)}` failed:\n{(done.stdout + done.stderr)[-2000:]}"
            )
        return done.stdout

    def status(self, uid: str) -> dict[str, Any]:
        """What the worker does for a project, from `/job_status`; `{}` while it cannot say."""
        user = self._environment["RALIS_AUTH_USER"]
        password = self._environment["RALIS_AUTH_PASSWORD"]
        with suppress(httpx.HTTPError, ValueError):
            response = httpx.get(
                f"{self.url}/job_status",
                params={"project": uid},
                auth=(user, password),
                timeout=10.0,
            )
            if response.status_code == 200:
                return dict(response.json())
        return {}

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Return once `/health` answers.

        Raises:
            RuntimeError: if the process ends first or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.is_running:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=2.0).status_code == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(
            f"the backend did not start; the end of {self.log_path}:\n{self._tail()}"
        )

    def __enter__(self) -> Backend:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("serve", "--host", HOST, "--port", str(self.port)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the demo, which stops it in order
            )
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _command(self, *arguments: str) -> list[str]:
        # `env` adds to the inherited environment, and replaces itself by the command.
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        return ["env", *variables, sys.executable, "-m", "ralis_backend.cli", *arguments]

    def _tail(self, num_lines: int = 20) -> str:
        if not self.log_path.is_file():
            return "(empty)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-num_lines:])


def port_near(wanted: int) -> int:
    """The port wanted if nothing listens on it, else a free one."""
    return wanted if is_free(wanted) else free_port()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait while the block tidies up, so that no child is left behind."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
