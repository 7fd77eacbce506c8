"""What a request must pass before a route sees it: authentication."""

from __future__ import annotations

import hmac
import logging
import math
import re
from typing import TYPE_CHECKING

from flask import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, TooManyRequests, Unauthorized

from ralis_backend.app.attempts import Attempts
from ralis_backend.core.text import printable
from ralis_backend.hosts import host_form, host_of, ip_of, is_this_machine
from ralis_backend.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ralis_backend.labelstudio.webhook_secret import WebhookSecret

logger = logging.getLogger(__name__)

WEBHOOK_PATH = "/webhook"

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
        self._own_host = host_of(settings.backend_url) if settings.backend_url else None
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
        try:
            name = host_form(match["ip"] or match["name"])
        except ValueError:
            return False
        return name == self._own_host or is_this_machine(name)

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
    ip = ip_of(address or "")
    return not address if ip is None else ip.is_loopback  # a unix socket has no address
