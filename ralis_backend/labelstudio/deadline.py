"""A time by which a whole HTTP exchange has ended: connecting, headers and body together.

httpx's timeouts are those of one read. A server that sends a byte now and then is never late by
them, and holds its caller for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ssl import SSLContext
from typing import Any

import httpcore
import httpx

_LIMITS: dict[str, Any] = {
    "max_connections": 100,
    "max_keepalive_connections": 20,
    "keepalive_expiry": 5.0,
}
_ends_at: ContextVar[float | None] = ContextVar("ends_at", default=None)


@contextmanager
def ending_within(seconds: float) -> Iterator[None]:
    """What this thread sends and reads inside through `DeadlineTransport` ends within `seconds`.

    Later reads raise `httpx.ReadTimeout`. Of nested ones the nearest counts.
    """
    ends_at, outer = time.monotonic() + seconds, _ends_at.get()
    token = _ends_at.set(ends_at if outer is None else min(outer, ends_at))
    try:
        yield
    finally:
        _ends_at.reset(token)


class DeadlineTransport(httpx.HTTPTransport):
    """httpx's own transport, held to `ending_within`.

    Args:
        ssl_context: what certificates are checked against; the public authorities if None.
        proxy: address of the one that everything goes through.
        server_name: whose certificate is expected, where it is not the address's own host.
    """

    def __init__(
        self,
        ssl_context: SSLContext | None = None,
        proxy: str | None = None,
        server_name: str | None = None,
    ) -> None:
        ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
        if proxy is None:
            self._pool = httpcore.ConnectionPool(
                ssl_context=ssl_context, network_backend=_Backend(), **_LIMITS
            )
            return
        url = httpx.Proxy(proxy)
        self._pool = _Proxy(
            proxy_url=str(url.url),
            proxy_auth=url.raw_auth,
            ssl_context=ssl_context,
            proxy_ssl_context=ssl_context if url.url.scheme == "https" else None,
            network_backend=_Backend(server_name),
            **_LIMITS,
        )


class _Proxy(httpcore.HTTPProxy):
    """Writes IPv6 addresses in brackets, as a proxy expects them; httpcore does not."""

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        if b":" in request.url.host:
            request.url.host = b"[%b]" % request.url.host
        return super().handle_request(request)


class _Backend(httpcore.SyncBackend):
    """Its streams end in time; `server_name` is whose certificate the far end of a tunnel has."""

    def __init__(self, server_name: str | None = None) -> None:
        self._server_name = server_name

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        stream = super().connect_tcp(host, port, left, local_address, socket_options)
        return _Stream(stream, self._server_name, host)


class _Stream(httpcore.NetworkStream):
    def __init__(
        self, stream: httpcore.NetworkStream, server_name: str | None = None, proxy: str = ""
    ) -> None:
        self._stream = stream
        self._server_name = server_name
        self._proxy = proxy

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        if self._server_name is None or server_hostname == self._proxy:  # the proxy's own TLS
            name = server_hostname and server_hostname.strip("[]")
            stream = self._stream.start_tls(ssl_context, name, left)
        else:  # httpcore expects of a tunnel's end the certificate of the pinned address
            stream = self._stream.start_tls(ssl_context, self._server_name, left)
        return _Stream(stream, self._server_name, self._proxy)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    """The seconds that one step may take; `late` is raised where none are left."""
    ends_at = _ends_at.get()
    if ends_at is None:
        return timeout
    left = ends_at - time.monotonic()
    if left <= 0:
        raise late("the whole exchange took too long")
    return left if timeout is None else min(timeout, left)
