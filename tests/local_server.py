"""An HTTP server in a thread of this process, for as long as a block runs."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any, Self

from flask import Flask
from werkzeug.serving import make_server

POLL_S = 0.01
"""How soon it ends when it is told to; the standard library's half a second adds up."""


class LocalServer(ThreadingHTTPServer):
    """On a free port of loopback, as a context manager.

    Args:
        handler: makes the object that handles a request.
        context: of TLS, if it is to speak that.
    """

    def __init__(self, handler: Any, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, args=(POLL_S,))

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """The address of an app that answers real requests within the block."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
