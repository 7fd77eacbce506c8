"""A Label Studio server of our own: started, waited for, stopped. For `ralis demo` and the tests.

It listens on loopback with SQLite, loads nothing from other hosts and may call backends on
private addresses; that is right for one machine and wrong for a server that others reach.
"""

from __future__ import annotations

import logging
import signal
import random
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
TOKEN_LENGTH = 40

_SWITCHES = {
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    # Without these two, backends and webhooks on loopback are refused (403).
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
}


class LabelStudioServer:
    """A Label Studio process on `http://127.0.0.1:<port>`, as a context manager.

    The first start on an empty `data_dir` takes about a minute (it creates the database and the
    user), later ones some seconds. What the server prints goes to `<data_dir>/label-studio.log`.
    """

    def __init__(
        self,
        executable: Path,
        data_dir: Path,
        port: int,
        username: str,
        password: str,
        token: str,
        *,
        local_files_root: Path | None = None,
    ) -> None:
        """Remember how to start; nothing runs before `start`.

        Args:
            executable: the `label-studio` program of Label Studio's own environment.
            data_dir: database and uploads; created if missing.
            port: a free port, see `free_port`.
            username: e-mail address of the user, created on the first start.
            password: at least 8 characters.
            token: the user's legacy API token, exactly 40 characters.
            local_files_root: folder that Label Studio may serve as local files, if any.

        Raises:
            ValueError: if the token has another length: Label Studio would ignore it silently.
        """
        if len(token) != TOKEN_LENGTH:
            raise ValueError(
                f"the Label Studio token has {len(token)} characters, expected {TOKEN_LENGTH}; "
                "take secrets.token_hex(20)"
            )
        self.executable = executable
        self.data_dir = data_dir
        self.port = port
        self.username = username
        self.password = password
        self.token = token
        self.local_files_root = local_files_root
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    @property
    def log_path(self) -> Path:
        """Where the server's own output is written."""
        return self.data_dir / "label-studio.log"

    @property
    def is_running(self) -> bool:
        """Whether the process is alive (it may not answer yet)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the process, which leads a session of its own; None before `start`."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process; `wait_ready` tells when it answers.

        Raises:
            FileNotFoundError: if the executable does not exist.
            RuntimeError: if this server already runs, or its port is taken.
        """
        if self.is_running:
            raise RuntimeError(f"Label Studio already runs on {self.url}; call stop() first")
        if not self.executable.is_file():
            raise FileNotFoundError(
                f"Label Studio is not installed: {self.executable} does not exist; "
                "run `make setup`, which installs it in an environment of its own"
            )
        if not is_free(self.port):
            raise RuntimeError(
                f"port {self.port} is in use by another program; stop it or choose another port"
            )
        self.data_dir.mkdir(parents=True, exist_ok=True)
        # `env` adds to the inherited environment, and keeps secrets out of the process list.
        command = ["env", *(f"{key}={value}" for key, value in self._variables().items())]
        command += [
            *(str(self.executable.absolute()), "start", "-b"),
            *("--data-dir", str(self.data_dir.absolute())),
            *("--internal-host", HOST, "--port", str(self.port)),
            "--enable-legacy-api-token",
        ]
        self._log = self.log_path.open("ab")
        # A session of its own: Ctrl-C in the terminal reaches us, and we stop it in order.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_ready(self, timeout_s: float = 240.0) -> None:
        """Return once `GET /health` answers 200.

        Raises:
            RuntimeError: if the process ends first; the message carries the end of its log.
            TimeoutError: if it does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.is_running:
                raise RuntimeError(
                    f"Label Studio ended while starting; the end of {self.log_path}:\n"
                    f"{self._log_tail()}"
                )
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5.0).status_code == 200:
                    return
            time.sleep(0.25)
        raise TimeoutError(
            f"Label Studio did not answer on {self.url} within {timeout_s:.0f} s; "
            f"see {self.log_path}, or allow more time on a slow machine"
        )

    def stop(self, timeout_s: float = 15.0) -> None:
        """End the process, by force if it does not end in time. Safe to repeat."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                logger.warning("Label Studio did not stop within %.0f s: killed", timeout_s)
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _variables(self) -> dict[str, str]:
        variables = {
            **_SWITCHES,
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir.absolute()),
            "LABEL_STUDIO_USERNAME": self.username,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
        }
        if self.local_files_root is not None:
            variables["LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED"] = "true"
            variables["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"] = str(
                self.local_files_root.absolute()
            )
        return variables

    def _log_tail(self, num_lines: int = 15) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-num_lines:])


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at the moment.

    It is none of those that systems give to outgoing connections (from 32,768 on): a server that
    is started again must find its own port free.
    """
    ports = random.sample(range(20_000, 32_000), 100)
    return next(port for port in ports if is_free(port))


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
