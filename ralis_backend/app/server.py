"""The HTTP server: no client, however slow, holds a thread, and health and setup keep theirs.

One loop per process reads whole requests and sends whole answers; threads get a request when all of
it is there. gunicorn starts the processes and replaces those that die; waitress speaks HTTP.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask
from gunicorn.workers.base import Worker
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask

from ralis_backend.app import EARLY_CHECK

HEAD_S = 10.0
"""How long a request's head may take from its first byte on, or a new connection to send one."""
IDLE_S = 30.0
"""How long a connection may wait for its next request."""
TRANSFER_S = 20.0
"""How long a body or an answer may take, besides its bytes at `SLOWEST_BYTES_PER_S`."""
SLOWEST_BYTES_PER_S = 50_000
MAX_CONNECTIONS = 400
"""Of a process; beyond, the one that has kept us waiting longest is closed for a new one."""
MAX_HEAD_BYTES = 32_768
UNCHECKED_BODY_BYTES = 65_536
"""Larger bodies are received only of callers who may send them."""
STOP_S = 3.0

_LANE_OF = {"/": "health", "/health": "health", "/setup": "setup", "/webhook": "webhook"}
_LANES = {"health": 1, "setup": 2, "webhook": 2}
"""Threads that serve these alone: annotators wait for them, Label Studio one to three seconds."""


class Lanes:
    """Threads by what they serve, in place of waitress's one queue.

    Args:
        num_threads: for everything that has no lane of its own.
    """

    def __init__(self, num_threads: int) -> None:
        sizes = {**_LANES, "other": num_threads}
        self._lanes = {name: ThreadedTaskDispatcher() for name in sizes}
        for name, size in sizes.items():
            self._lanes[name].set_thread_count(size)

    def add_task(self, channel: HTTPChannel) -> None:
        """Queue a connection's next request."""
        path = getattr(channel.requests[0], "path", "")
        self._lanes[_LANE_OF.get(path, "other")].add_task(channel)


class Head(HTTPRequestParser):  # type: ignore[misc]
    """A request in which nothing is ambiguous to a proxy in front of us."""

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head.

        Raises:
            ParsingError: if it has two lengths, or two hosts.
        """
        super().parse_header(header_plus)
        if "TRANSFER_ENCODING" in self.headers or (
            self.chunked and "CONTENT_LENGTH" in self.headers
        ):
            raise ParsingError(
                "Transfer-Encoding beside a Content-Length, or where it is not known yet"
            )
        if self.proxy_netloc and self.proxy_netloc != self.headers.get("HOST"):
            raise ParsingError("the target names another host than the Host header")


class Connection(HTTPChannel):  # type: ignore[misc]
    """A client's connection that knows how long it has kept us waiting."""

    parser_class = Head

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._num_served = 0
        self._wait: tuple[str, int] = ("head", 0)
        self._waits_since = time.monotonic()
        self._checked: HTTPRequestParser | None = None
        self._answer_bytes = 0
        super().__init__(*args, **kwargs)

    def waited_s(self, now: float) -> float:
        """How long the client has kept us waiting for the same thing; 0 while we work."""
        wait = (self._awaited(), self._num_served)
        if wait != self._wait:
            self._wait, self._waits_since = wait, now
        return 0.0 if wait[0] == "us" else now - self._waits_since

    def allowed_s(self) -> float:
        """How long the client may keep us waiting for what we wait for."""
        awaited = self._awaited()
        if awaited == "body":
            return TRANSFER_S + self._body_bytes() / SLOWEST_BYTES_PER_S
        if awaited == "reader":
            return TRANSFER_S + self._answer_bytes / SLOWEST_BYTES_PER_S
        return HEAD_S if awaited == "head" else IDLE_S

    def received(self, data: bytes) -> bool:
        """Take what the client sent; a large body only if the caller may send it."""
        is_taken = bool(super().received(data))
        with self.requests_lock:
            request = self.request
            if request is not None and request is not self._checked and _is_large(request):
                self._checked = request
                if not self.server.may_send(WSGITask(self, request).get_environment()):
                    self._answer_now(request)
        return is_taken

    def service(self) -> None:
        """Answer one request; runs in a thread."""
        self._num_served += 1
        super().service()

    def write_soon(self, data: Any) -> int:
        """Add to what the client has to read."""
        self._answer_bytes = self.total_outbufs_len + len(data)
        return int(super().write_soon(data))

    def _body_bytes(self) -> int:
        """Of the body that is arriving: as declared, else so far."""
        request: Any = self.request
        return int(max(request.content_length, request.body_bytes_received))

    def _awaited(self) -> str:
        if self.requests:
            return "us"
        if self.total_outbufs_len:
            return "reader"
        if self.request is None:
            return "next" if self._num_served else "head"
        return "body" if self.request.headers_finished else "head"

    def _answer_now(self, request: HTTPRequestParser) -> None:
        """Let the app refuse a request without its body, and close."""
        request.completed = True
        request.headers["CONNECTION"] = "close"
        self.requests.append(request)
        self.request = None
        if len(self.requests) == 1:
            self.server.add_task(self)


def _is_large(request: HTTPRequestParser) -> bool:
    is_long = request.content_length > UNCHECKED_BODY_BYTES
    return bool(request.headers_finished and (is_long or request.chunked))


class _Server(TcpWSGIServer):  # type: ignore[misc]
    """waitress's server with deadlines, and with room for new clients."""

    channel_class = Connection
    may_send: Callable[[Mapping[str, Any]], bool]

    def maintenance(self, _now: float) -> None:
        """Close the connections whose clients take too long; called every second."""
        now = time.monotonic()
        for connection in list(self.active_channels.values()):
            if connection.waited_s(now) > connection.allowed_s():
                connection.will_close = True

    def handle_accept(self) -> None:
        """Take new clients, if need be in place of those that we have waited for longest."""
        for _ in range(MAX_CONNECTIONS):  # at once: each look at all connections takes a while
            num_before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == num_before:
                return
            if num_before >= MAX_CONNECTIONS:
                self._close_slowest()

    def _close_slowest(self) -> None:
        now = time.monotonic()
        max(self.active_channels.values(), key=lambda it: it.waited_s(now)).handle_close()


class BufferedWorker(Worker):  # type: ignore[misc]
    """A process of gunicorn's that serves with waitress's loop.

    Uses gunicorn's `threads`, for what has no lane of its own, and the app's limit on bodies.
    """

    def run(self) -> None:
        """Serve until told to stop; then what is being answered may end."""
        loop: dict[int, Any] = {}
        lanes = Lanes(self.cfg.threads)
        self._servers = [self._server(it.sock, loop, lanes) for it in self.sockets]
        while self.alive and os.getppid() == self.ppid:
            self.notify()
            wasyncore.loop(timeout=1.0, use_poll=True, map=loop, count=1)
        self._finish(loop)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: end in order, at once if nothing is being answered."""
        self.alive = False
        for server in self._servers:
            server.pull_trigger()

    _servers: list[Any] = []  # noqa: RUF012  # none before `run`

    def _server(self, listener: Any, loop: dict[int, Any], lanes: Lanes) -> Any:
        app = self.wsgi
        options = Adjustments(
            sockets=[listener],
            max_request_body_size=_max_body(app),
            max_request_header_size=MAX_HEAD_BYTES,
            connection_limit=2 * MAX_CONNECTIONS,  # of the loop's entries; ours comes first
            cleanup_interval=1,
            outbuf_high_watermark=1 << 40,  # no thread waits for a reader: answers go to disk
            clear_untrusted_proxy_headers=False,  # `Access` refuses what came through a proxy
            log_socket_errors=False,
            ident="ralis",
        )
        server = _Server(
            app,
            loop,
            True,
            listener,
            dispatcher=lanes,
            adj=options,
            bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        )
        server.may_send = app.extensions.get(EARLY_CHECK, lambda _environ: True)
        return server

    def _finish(self, loop: dict[int, Any]) -> None:
        for server in self._servers:
            server.accepting = False
        until = time.monotonic() + STOP_S
        while time.monotonic() < until and any(
            it.requests or it.total_outbufs_len
            for server in self._servers
            for it in server.active_channels.values()
        ):
            self.notify()
            wasyncore.loop(timeout=0.1, use_poll=True, map=loop, count=1)


def _max_body(app: Flask) -> int:
    return int(app.config["MAX_CONTENT_LENGTH"] or 1 << 40) + 1
