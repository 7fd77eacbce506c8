"""What a request must pass before a route sees it: authentication, and bounds on its JSON."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from typing import Any, NoReturn

import numpy as np
from flask import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    RequestEntityTooLarge,
    Unauthorized,
    UnsupportedMediaType,
)

from ralis_backend.settings import Settings

MAX_DEPTH = 64
"""Label Studio's deepest bodies nest about a dozen levels."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CHUNK = 1 << 20


class Access:
    """Who may call: basic authentication or a bearer token, compared in constant time."""

    def __init__(self, settings: Settings) -> None:
        self._user = settings.auth_user
        self._password = settings.auth_password
        self._token = settings.auth_token
        self._is_open = settings.allow_anonymous
        self._has_credentials = settings.has_credentials

    def check(self, request: Request) -> None:
        """Return if the caller may go on.

        Raises:
            Unauthorized: without or with wrong credentials.
            Forbidden: if no credentials are configured and the caller is another machine.
        """
        if not self._has_credentials:
            self._check_anonymous(request)
        elif not (self._is_user(request) or self._is_token(request)):
            raise Unauthorized(
                "wrong or missing credentials; give Label Studio the user and password of "
                "RALIS_AUTH_USER and RALIS_AUTH_PASSWORD (its webhook: run `ralis connect`)",
                www_authenticate=WWWAuthenticate("basic", {"realm": "RALIS backend"}),
            )

    def _check_anonymous(self, request: Request) -> None:
        if self._is_open or _is_loopback(request.remote_addr):
            return
        raise Forbidden(
            "no credentials are configured, so only this machine is served; set RALIS_AUTH_USER "
            "and RALIS_AUTH_PASSWORD (or RALIS_ALLOW_ANONYMOUS=true)"
        )

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
    if _depth_exceeds(body, MAX_DEPTH):
        raise BadRequest(f"the JSON body nests deeper than {MAX_DEPTH} levels")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no valid JSON: {_without_content(error)}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be a JSON object, not {type(value).__name__}")
    return value


def _depth_exceeds(body: bytes, limit: int) -> bool:
    """Whether brackets outside strings nest deeper; in chunks, so that memory stays bounded."""
    brackets = _STRING.sub(b"", body).translate(None, _ALL_BUT_BRACKETS)
    depth = 0
    for start in range(0, len(brackets), _CHUNK):
        chunk = np.frombuffer(brackets, np.uint8, min(_CHUNK, len(brackets) - start), start)
        is_opening = (chunk == ord("[")) | (chunk == ord("{"))
        depths = depth + np.cumsum(np.where(is_opening, 1, -1))
        if int(depths.max()) > limit:
            return True
        depth = int(depths[-1])
    return False


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


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return not address  # a unix socket has no address
