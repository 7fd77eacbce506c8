"""A proxy between two programs that treats what passes as bad networks and servers do."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx

from tests.local_server import LocalServer

HTML = b"<!doctype html><title>502 Bad Gateway</title><h1>502 Bad Gateway</h1>"
WEATHERS = ("down", "slow", "401", "403", "429", "500", "html", "half")
"""What a proxy can do to a request besides passing it on."""
SLOW_S = 3.0
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host"}


class BadNetwork:
    """Passes requests on to another address, as a context manager.

    weather: None where all is well, or one of `WEATHERS`; may be changed at any time.
    choose: told the path of each request, it gives how often that is passed on; None: once. What is
        passed on 0 times is answered with 500, what is passed on twice with the first answer.
    """

    def __init__(self, target: str, choose: Callable[[str], int] | None = None) -> None:
        self.target = target
        self.weather: str | None = None
        self.choose = choose
        self.num_harmed = 0
        self.client = httpx.Client(timeout=120, trust_env=False)
        handler = type("Handler", (_Handler,), {"network": self})
        self._server = _Server(handler)

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return self._server.url

    def __enter__(self) -> BadNetwork:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
        self.client.close()


class _Server(LocalServer):
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Whoever was killed in the middle of a request closes the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    network: BadNetwork

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        weather = self.network.weather
        if weather is not None:
            self.network.num_harmed += 1
        if weather == "down":
            self.close_connection = True
            return
        if weather in ("401", "403", "429", "500"):
            self._answer(int(weather), {"Content-Type": "application/json"}, b'{"detail": "no"}')
            return
        if weather == "html":
            self._answer(200, {"Content-Type": "text/html"}, HTML)
            return
        if weather == "slow":
            time.sleep(SLOW_S)
        self._pass_on(body, is_half=weather == "half")

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _handle  # noqa: N815

    def _pass_on(self, body: bytes, *, is_half: bool) -> None:
        choose = self.network.choose
        times = 1 if choose is None else choose(self.path)
        answers = [answer for _ in range(times) if (answer := self._forward(body)) is not None]
        if not answers:
            self._answer(500, {"Content-Type": "text/plain"}, b"lost")
            return
        first = answers[0]
        content = first.content[: len(first.content) // 2] if is_half else first.content
        headers = {
            name: value for name, value in first.headers.items() if name.lower() not in HOP_BY_HOP
        }
        self._answer(first.status_code, headers, content)

    def _forward(self, body: bytes) -> httpx.Response | None:
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP
        }
        with suppress(httpx.HTTPError):
            return self.network.client.request(
                self.command, self.network.target + self.path, headers=headers, content=body
            )
        return None

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        with suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""
