"""`ralis serve`: the web server and the worker, kept alive."""

from __future__ import annotations

import logging
import sys

from ralis_backend.cli.web import Host, Port, Threads, Workers, bracketed, check_port, prepare
from ralis_backend.cli.worker import worker_child

logger = logging.getLogger(__name__)


def serve(
    host: Host = "127.0.0.1", port: Port = 9090, workers: Workers = 2, threads: Threads = 4
) -> None:
    """Run the web server and the worker, and keep both alive."""
    from ralis_backend.cli.supervisor import Child, Supervisor, stop_on_signals
    from ralis_backend.wiring import check_segmenter

    settings = prepare(host)
    check_port(host, port)
    check_segmenter(settings)
    ralis = (sys.executable, "-m", "ralis_backend.cli")
    listen = ("--host", host, "--port", str(port))
    size = ("--workers", str(workers), "--threads", str(threads))
    children = [Child("web", (*ralis, "web", *listen, *size)), worker_child()]
    logger.info("serving on http://%s:%d; Ctrl-C stops", bracketed(host), port)
    Supervisor(children).run(stop_on_signals())
