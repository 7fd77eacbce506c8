"""`ralis web`: the web server alone."""

from __future__ import annotations

import errno
import logging
import socket
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ralis_backend.cli.log import configure_logging
from ralis_backend.cli.options import MOST_AT_ONCE
from ralis_backend.hosts import is_this_machine

if TYPE_CHECKING:
    from flask import Flask

    from ralis_backend.settings import Settings

logger = logging.getLogger(__name__)

PORT_PATIENCE_S = 10.0
"""A server whose supervisor was killed ends with what it is answering: so long it is waited for."""

_HOST_FIX = (
    "choose an address of this machine with --host, for example 127.0.0.1, or 0.0.0.0 for all"
)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Workers = Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="Web processes.")]
Threads = Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="Threads of each web process.")]


def web(
    host: Host = "127.0.0.1", port: Port = 9090, workers: Workers = 2, threads: Threads = 4
) -> None:
    """Run the web server alone."""
    from ralis_backend.cli.errors import starting
    from ralis_backend.settings import load_settings, share_metrics

    with starting():
        prepare(host)
    check_port(host, port)
    with tempfile.TemporaryDirectory(prefix="ralis-metrics-") as metrics_dir:
        share_metrics(Path(metrics_dir))
        _run_gunicorn(load_settings(), f"{bracketed(host)}:{port}", workers, threads)


def check_exposure(settings: Settings, host: str) -> None:
    """Refuse to serve other machines without authentication; warn on this one.

    Raises:
        SettingsError: saying what to set.
    """
    from ralis_backend.settings import SettingsError

    if settings.has_credentials:
        return
    if not is_this_machine(host) and not settings.allow_anonymous:
        raise SettingsError(
            f"{host} is reachable from other machines and no credentials are configured: set "
            "RALIS_AUTH_USER and RALIS_AUTH_PASSWORD (or RALIS_AUTH_TOKEN), listen on 127.0.0.1, "
            "or set RALIS_ALLOW_ANONYMOUS=true"
        )
    logger.warning("no RALIS_AUTH_USER and RALIS_AUTH_PASSWORD: requests are not authenticated")


def check_port(host: str, port: int, patience_s: float = PORT_PATIENCE_S) -> None:
    """Raise `ValueError` if the host is none of this machine's, or its port cannot be listened on.

    Args:
        host: to listen on.
        port: to listen on.
        patience_s: for so long a server that is just ending is waited for.
    """
    deadline = time.monotonic() + patience_s
    for attempt in count():
        try:
            _try_port(host, port)
        except (socket.gaierror, UnicodeError) as error:
            raise ValueError(
                f"cannot listen on {host!r}: {getattr(error, 'strerror', None) or 'no host'}; "
                f"{_HOST_FIX}"
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ValueError(
                    f"cannot listen on {host}: {error.strerror}; {_HOST_FIX}"
                ) from None
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise ValueError(
                    f"cannot listen on {host} port {port}: {error.strerror or error}; stop what "
                    "uses the port, or choose another with --port"
                ) from None
        else:
            return
        if not attempt:
            logger.info("port %d is in use; waiting %.0f s for its end", port, patience_s)
        time.sleep(0.2)


def _try_port(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def prepare(host: str) -> Settings:
    """The settings, with the log set up, if `host` may be served with them."""
    from ralis_backend.settings import load_settings

    settings = load_settings()
    configure_logging(settings.log_level)
    check_exposure(settings, host)
    return settings


def _run_gunicorn(settings: Settings, address: str, workers: int, threads: int) -> None:
    """Serve until a signal. The app is loaded before the port opens, then workers are forked."""
    from gunicorn.app.base import BaseApplication

    from ralis_backend.app.server import BufferedWorker
    from ralis_backend.cli.errors import starting

    options = {
        "bind": address,
        "workers": workers,
        "threads": threads,
        "worker_class": BufferedWorker,
        "preload_app": True,
        "timeout": 120,
        "graceful_timeout": 4,
        "loglevel": "warning",
        "control_socket_disable": True,
        "post_fork": _calm_torch,
        "child_exit": _forget_metrics,
        "proc_name": "ralis-web",
    }

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in options.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Flask:
            from ralis_backend.app import create_app

            with starting():
                return create_app(settings)

    Server().run()


def _calm_torch(_server: Any, _worker: Any) -> None:
    import torch

    torch.set_num_threads(1)  # a prediction on the spot must leave room for /health


def _forget_metrics(_server: Any, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def bracketed(host: str) -> str:
    """The host as it stands in an address."""
    return f"[{host}]" if ":" in host else host
