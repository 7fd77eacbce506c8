"""Both kinds of Label Studio's tokens: sent as it is, or exchanged for a short-lived one first."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Generator

import httpx

from ralis_backend.labelstudio.errors import LabelStudioError, Unauthorised, Unavailable

REFRESH_EARLY_S = 30.0
_TOKEN = re.compile(r"[0-9a-fA-F]{40}|[^.]+\.[^.]+\.[^.]+")


class TokenAuth(httpx.Auth):
    """Both kinds of token: a legacy token as it is, a personal one by way of access tokens.

    A personal access token is a refresh token; sent as a bearer it is refused. It is exchanged
    for an access token that lasts minutes, exchanged again before that expires.

    Args:
        url: Label Studio's address.
        api_key: either token, or a function that gives the legacy token that Label Studio handed
            over, None while it has not.

    Raises:
        ValueError: if the token has characters that no token has.
    """

    def __init__(self, url: str, api_key: str | Callable[[], str | None]) -> None:
        self._url = url
        self._api_key = api_key.strip() if isinstance(api_key, str) else ""
        self._handed_over = api_key if callable(api_key) else None
        if not re.fullmatch(r"[!-~]*", self._api_key):  # else the refusal would quote the token
            raise ValueError(
                "LABEL_STUDIO_API_KEY has spaces or special characters in it; copy the token anew"
            )
        self.is_personal = self._api_key.count(".") == 2
        self._access = ""
        self._expires = 0.0
        self._lock = threading.Lock()

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header; a refused access token is exchanged once more."""
        if not self.is_personal:
            if token := self._legacy_token():
                request.headers["Authorization"] = f"Token {token}"
            yield request
            return
        with self._lock:
            if time.time() > self._expires - REFRESH_EARLY_S:
                self._remember((yield self._exchange(request)))
            access = self._access
        request.headers["Authorization"] = f"Bearer {access}"
        response = yield request
        if response.status_code == 401:
            with self._lock:
                if self._access == access:
                    self._remember((yield self._exchange(request)))
                request.headers["Authorization"] = f"Bearer {self._access}"
            yield request

    @property
    def kind(self) -> str:
        """What the token is, for people."""
        if self.is_personal:
            return "personal access token"
        if self._handed_over is None:
            return "legacy token"
        return "legacy token handed over by Label Studio" if self._handed_over() else "no token"

    def advice(self) -> str:
        """What to do when Label Studio answers 401."""
        if self._handed_over is None and not _TOKEN.fullmatch(self._api_key):
            return (
                f"LABEL_STUDIO_API_KEY ({len(self._api_key)} characters) is neither kind of token: "
                "a personal access token has three parts with dots between, a legacy token is 40 "
                "hexadecimal digits; copy it anew from Account & Settings"
            )
        if self._handed_over is None:
            return (
                f"LABEL_STUDIO_API_KEY (a {self.kind}) is not accepted. Legacy tokens are off in "
                "new installations: use a personal access token (Account & Settings), or switch "
                "legacy tokens on under Organization > API Tokens Settings"
            )
        if not self._handed_over():
            return (
                "LABEL_STUDIO_API_KEY is not set; set it to a token from Account & Settings. "
                "Without, the backend takes the token that Label Studio hands over when the "
                "backend is connected to a project, where legacy tokens are on"
            )
        return (
            "LABEL_STUDIO_API_KEY is not set, and the token that Label Studio handed over is not "
            "accepted, since legacy tokens are off; set it to a personal access token (Account & "
            "Settings), or switch legacy tokens on under Organization > API Tokens Settings"
        )

    def _legacy_token(self) -> str | None:
        return self._handed_over() if self._handed_over else self._api_key

    def _exchange(self, request: httpx.Request) -> httpx.Request:
        """Asks for an access token, as patiently as `request` waits for its own answer."""
        return httpx.Request(
            "POST",
            f"{self._url}/api/token/refresh/",
            json={"refresh": self._api_key},
            extensions={"timeout": request.extensions.get("timeout", {})},
        )

    def _remember(self, response: httpx.Response) -> None:
        response.read()
        if response.status_code >= 500 or response.status_code == 429:
            raise Unavailable(f"Label Studio answered {response.status_code} to the token exchange")
        if response.status_code == 404 or response.is_redirect:
            raise LabelStudioError(
                f"{self._url} exchanges no personal access tokens ({response.status_code}); "
                "LABEL_STUDIO_URL probably points to another server or to a login page"
            )
        try:
            self._access = str(response.json()["access"])
        except (ValueError, KeyError, TypeError):
            raise Unauthorised(
                "LABEL_STUDIO_API_KEY is a personal access token that Label Studio does not accept "
                f"({response.status_code}): it was revoked, has expired, or belongs to another "
                "server; make a new one under Account & Settings > Personal Access Token"
            ) from None
        self._expires = _expiry(self._access)


def _expiry(access: str) -> float:
    """When an access token ends, in unix seconds; 0 if it does not say."""
    try:
        part = access.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return 0.0
