"""What a request must pass before a route sees it: authentication, and bounds on its JSON."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import numpy as np
from flask import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    RequestEntityTooLarge,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
)

from ralis_backend.app.attempts import Attempts
from ralis_backend.core.text import printable
from ralis_backend.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ralis_backend.labelstudio.webhook_secret import WebhookSecret

logger = logging.getLogger(__name__)

WEBHOOK_PATH = "/webhook"

MAX_DEPTH = 64
"""Label Studio's deepest bodies nest about a dozen levels."""

MAX_CONTAINERS = 1_000_000
"""Arrays and objects of a body: each takes 60 bytes and more, whatever it holds."""
MAX_STRINGS = 4_000_000
"""Keys and texts of a body: each takes 50 bytes and more."""
MAX_COMMAS = 32_000_000
"""The values of a body; those of masks are small numbers, which take 8 bytes each."""

_CHUNK = 1 << 20
_HOST = re.compile(r"(?:\[(?P<ip>[0-9a-f:.]+)\]|(?P<name>[^:\[\]@/\s]+))(?::[0-9]{1,5})?")
_PROXY_HEADERS = (
    *("forwarded", "via", "x-forwarded", "x-real-ip", "x-client-ip", "true-client-ip"),
    *("x-original-", "x-proxy", "x-cluster-client-ip", "x-envoy-", "cf-"),
)
"""What the names of headers begin with that proxies add."""
_SET = "set RALIS_AUTH_USER and RALIS_AUTH_PASSWORD (or RALIS_ALLOW_ANONYMOUS=true)"


class Access:
    """Who may call: basic authentication or a bearer token, compared in constant time.

    Without credentials, programs of this machine: no other machine, no proxy and no web page.

    Args:
        settings: credentials, and where Label Studio reaches the backend.
        webhook_secret: of the projects' webhooks; None: they carry the credentials.
    """

    def __init__(self, settings: Settings, webhook_secret: WebhookSecret | None = None) -> None:
        self._user = settings.auth_user
        self._password = settings.auth_password
        self._token = settings.auth_token
        self._is_open = settings.allow_anonymous
        self._has_credentials = settings.has_credentials
        self._webhook_secret = webhook_secret
        self._own_host = urlsplit(settings.backend_url or "").hostname
        self._attempts = Attempts()

    def check(self, request: Request) -> str | None:
        """Return if the caller may go on.

        Returns:
            The uid of the one project whose webhook this may be; None where all is open.

        Raises:
            Unauthorized: without or with wrong credentials.
            TooManyRequests: after too many wrong ones from the caller's address.
            Forbidden: if no credentials are configured and the caller is another machine, a proxy
                or a web page.
        """
        if not self._has_credentials:
            self._check_anonymous(request)
            return None
        address = request.remote_addr
        if (wait_s := self._attempts.wait_s(address)) > 0:
            raise TooManyRequests(
                "too many wrong credentials from this address; wait a minute",
                retry_after=math.ceil(wait_s),
            )
        if self._is_user(request) or self._is_token(request):
            self._attempts.succeeded(address)
            return None
        if (uid := self._webhook_uid(request)) is not None:
            return uid
        if "Authorization" in request.headers:
            self._note_failure(request)
        raise Unauthorized(
            "wrong or missing credentials; give Label Studio the user and password of "
            "RALIS_AUTH_USER and RALIS_AUTH_PASSWORD (its webhook: run `ralis connect`)",
            www_authenticate=WWWAuthenticate("basic", {"realm": "RALIS backend"}),
        )

    def may_send(self, environ: WSGIEnvironment) -> bool:
        """Whether a caller's body is worth receiving; `check` then says why not."""
        request = Request(environ)
        try:
            if not self._has_credentials:
                self._check_anonymous(request)
                return True
        except Forbidden:
            return False
        return self._attempts.wait_s(request.remote_addr) == 0 and (
            self._is_user(request)
            or self._is_token(request)
            or self._webhook_uid(request) is not None
        )

    def _check_anonymous(self, request: Request) -> None:
        if self._is_open:
            return
        if not _is_loopback(request.remote_addr):
            raise Forbidden(
                f"no credentials are configured, so only this machine is served; {_SET}"
            )
        if proxy := _proxy(request):
            raise Forbidden(
                "no credentials are configured, so nothing is served through a proxy (the request "
                f"has {proxy}); {_SET}"
            )
        if not self._is_own_name(request.headers.get("Host")):
            raise Forbidden(
                "no credentials are configured, so only requests to localhost or RALIS_BACKEND_URL "
                f"are served, and the Host header names another; set RALIS_BACKEND_URL, or {_SET}"
            )
        if _is_from_a_page(request):
            raise Forbidden(
                f"no credentials are configured, so no other site's pages are served; {_SET}"
            )

    def _is_own_name(self, host: str | None) -> bool:
        if host is None:  # no browser leaves it out
            return True
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = (match["ip"] or match["name"]).removesuffix(".")
        return name in ("localhost", self._own_host) or _is_loopback(name)

    def _is_user(self, request: Request) -> bool:
        given = request.authorization
        if self._user is None or self._password is None or given is None or given.type != "basic":
            return False
        is_user = _equal(given.username, self._user)
        return _equal(given.password, self._password.get_secret_value()) and is_user

    def _is_token(self, request: Request) -> bool:
        given = request.authorization
        if self._token is None or given is None or given.type != "bearer":
            return False
        return _equal(given.token, self._token.get_secret_value())

    def _webhook_uid(self, request: Request) -> str | None:
        given = request.authorization
        if self._webhook_secret is None or given is None or given.type != "bearer":
            return None
        if (request.method, request.path) != ("POST", WEBHOOK_PATH):
            return None
        try:
            return self._webhook_secret.opens(given.token or "")
        except ValueError as error:  # for the operator, not for whoever calls
            logger.error("a webhook is refused: %s", error)
            return None

    def _note_failure(self, request: Request) -> None:
        count = self._attempts.failed(request.remote_addr)
        logger.warning(
            "wrong credentials from %s, %d within a minute%s",
            printable(request.remote_addr or "a local socket"),
            count,
            "; it has to wait" if self._attempts.wait_s(request.remote_addr) else "",
        )


def read_json(request: Request) -> dict[str, Any]:
    """The body of a request, a JSON object; `{}` for an empty body of a GET.

    Its nesting is bounded before it is parsed; its length is bounded by the app.

    Raises:
        BadRequest: if it is no JSON object, nests too deeply or holds NaN.
        RequestEntityTooLarge: if it is longer than the app allows.
        UnsupportedMediaType: if it is declared as something else.
    """
    body = request.get_data(cache=False)
    if request.content_length is None and len(body) == request.max_content_length:
        raise RequestEntityTooLarge  # Werkzeug cuts a streamed body at the limit
    if not body and request.method == "GET":
        return {}
    if not request.is_json:
        raise UnsupportedMediaType("expected a body with Content-Type: application/json")
    _check_size(body)
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no valid JSON: {_without_content(error)}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be a JSON object, not {type(value).__name__}")
    return value


def _check_size(body: bytes) -> None:
    """Refuse what would take far more memory as values than as text, or nests too deeply.

    One pass in chunks, whatever the body holds.
    """
    depth = containers = strings = commas = 0
    is_inside = False
    for text in _without_escapes(body):
        chunk = np.frombuffer(text, np.uint8)
        quotes = chunk == ord('"')
        inside = np.logical_xor.accumulate(quotes) ^ is_inside
        is_inside = bool(inside[-1])
        outside = chunk[~inside]
        opening = (outside == ord("[")) | (outside == ord("{"))
        closing = (outside == ord("]")) | (outside == ord("}"))
        depths = depth + np.cumsum(opening.astype(np.int64) - closing)
        containers += int(opening.sum())
        strings += int(quotes.sum()) // 2
        commas += int((outside == ord(",")).sum())
        if depths.size:
            depth = int(depths[-1])
            if int(depths.max()) > MAX_DEPTH:
                raise BadRequest(f"the JSON body nests deeper than {MAX_DEPTH} levels")
        for count, most, what in (
            (containers, MAX_CONTAINERS, "arrays and objects"),
            (strings, MAX_STRINGS, "texts"),
            (commas, MAX_COMMAS, "values"),
        ):
            if count > most:
                raise RequestEntityTooLarge(f"the JSON body has more than {most} {what}")


def _without_escapes(body: bytes) -> Iterator[bytes]:
    """The body in chunks, without escaped backslashes and quotes; each has a byte at least."""
    carried = b""
    for start in range(0, len(body), _CHUNK):
        chunk = (carried + body[start : start + _CHUNK]).replace(b"\\\\", b"")
        carried = b"\\" if chunk.endswith(b"\\") else b""
        chunk = chunk.removesuffix(b"\\").replace(b'\\"', b"")
        if chunk:
            yield chunk


class _ConstantRefused(ValueError):
    """JSON knows neither NaN nor infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantRefused(f"{name} is not allowed in JSON")


def _without_content(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, _ConstantRefused | RecursionError):
        return str(error)
    return "a number is too long"  # the one other thing that the parser refuses


def _equal(given: str | None, expected: str) -> bool:
    return hmac.compare_digest((given or "").encode(), expected.encode())


def _proxy(request: Request) -> str | None:
    """The sign that a request came through a proxy, if it has one."""
    for name, _ in request.headers:
        if name.lower().startswith(_PROXY_HEADERS):
            return name
    # What nginx speaks by itself, without a word of whom it speaks for.
    return "HTTP/1.0" if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0" else None


def _is_from_a_page(request: Request) -> bool:
    """Whether a page of another site sent it; Label Studio sends neither of these headers."""
    origin = request.headers.get("Origin")
    is_own = origin is None or origin in (f"http://{request.host}", f"https://{request.host}")
    return not is_own or request.headers.get("Sec-Fetch-Site", "none") not in (
        "none",
        "same-origin",
    )


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return not address  # a unix socket has no address
