"""The token that Label Studio hands over at `/setup`, kept for web and worker between requests.

It is the legacy token of the project's creator, sent also where legacy tokens are switched off and
it is not accepted. It stands in for `LABEL_STUDIO_API_KEY` where that is not set, and is sent to
`LABEL_STUDIO_URL` alone, whatever address came with it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from ralis_backend.core.files import OWNER_ONLY, write_bytes
from ralis_backend.core.text import printable, shortened
from ralis_backend.hosts import host_form, is_this_machine
from ralis_backend.labelstudio.client import without_credentials
from ralis_backend.labelstudio.network import Network

logger = logging.getLogger(__name__)

ANSWER_S = 1.0
"""How long Label Studio may take to say whether a token is its own; it waits for us meanwhile."""
REFUSED_FOR_S = 30.0
MAX_REFUSED = 20
"""Tokens refused within that time, beyond which none is tried."""

_TOKEN = re.compile(r"[0-9A-Za-z]{20,64}")


class TokenFile:
    """One token in a file that its owner alone can read.

    Args:
        path: need not exist; its folder is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str | None:
        """The token that was kept last; None if there is none."""
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return token if _TOKEN.fullmatch(token) else None

    def keep(self, token: str) -> None:
        """Keep a token for later calls.

        A file that cannot be written is logged: the call that brought the token goes on.
        """
        try:
            write_bytes(self._path, token.encode("ascii"), mode=OWNER_ONLY)
        except OSError as error:
            logger.warning("Label Studio's token cannot be kept in %s: %s", self._path, error)
            return
        logger.info(
            "LABEL_STUDIO_API_KEY is not set: using the token that Label Studio handed over, which "
            "works where legacy tokens are on"
        )


class Handover:
    """Decides which tokens of `/setup` are kept: what comes must be of Label Studio and must work.

    Args:
        tokens: where they are kept.
        addresses: under which Label Studio is known, besides names of this machine, which it gives
            where it was not told its own.
        works: whether Label Studio accepts a token; None if it does not answer.
        may_replace: whether a token that works is replaced by another that does; only where the
            callers of `/setup` are authenticated.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        tokens: TokenFile,
        addresses: Sequence[str],
        works: Callable[[str], bool | None],
        *,
        may_replace: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._places = {_place(address) for address in addresses}
        self._works = works
        self._may_replace = may_replace
        self._clock = clock
        self._refused: dict[str, float] = {}
        self._looking = threading.Lock()

    def offer(self, token: object, hostname: object) -> None:
        """Keep a token for later calls, if it is one that may be kept; else log why not.

        Args:
            token: what came under `access_token`.
            hostname: the address under which Label Studio says that it is found.
        """
        if (
            not isinstance(token, str)
            or not _TOKEN.fullmatch(token)
            or token == self._tokens.read()
        ):
            return
        if self._was_refused(token) or not self._looking.acquire(blocking=False):
            return
        try:
            reason = self._reason_against(token, hostname)
            if reason is None:
                self._tokens.keep(token)
                return
            self._refused[_digest(token)] = self._clock()
            logger.warning("a token that /setup handed over is not used: %s", reason)
        finally:
            self._looking.release()

    def _reason_against(self, token: str, hostname: object) -> str | None:
        if not self._is_label_studio(hostname):
            place = printable(shortened(without_credentials(str(hostname)), 100))
            return (
                f"it came from {place!r}, which is not known as "
                "Label Studio; set LABEL_STUDIO_PUBLIC_URL if it is"
            )
        works = self._works(token)
        if works is None:
            return "Label Studio does not answer at LABEL_STUDIO_URL, so that it cannot be tried"
        if not works:
            return (
                "Label Studio does not accept it, since legacy tokens are off; set "
                "LABEL_STUDIO_API_KEY to a personal access token (Account & Settings)"
            )
        known = None if self._may_replace else self._tokens.read()
        if known is not None and self._works(known) is not False:
            return "the one in use works, and callers are not authenticated; set RALIS_AUTH_USER"
        return None

    def _is_label_studio(self, hostname: object) -> bool:
        place = _place(hostname) if isinstance(hostname, str) else None
        return place is not None and (place in self._places or is_this_machine(place[0]))

    def _was_refused(self, token: str) -> bool:
        """Whether a token was refused just now: Label Studio hands it over with every next task."""
        since = self._clock() - REFUSED_FOR_S
        self._refused = {key: at for key, at in self._refused.items() if at > since}
        return _digest(token) in self._refused or len(self._refused) >= MAX_REFUSED


def accepts(url: str, token: str, network: Network | None = None) -> bool | None:
    """Whether the Label Studio at `url` accepts a legacy token; None if it does not answer soon."""
    network = network or Network()
    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/api/current-user/whoami",
            headers={"Authorization": f"Token {token}"},
            timeout=ANSWER_S,
            verify=network.ssl_context,
            proxy=network.proxy_of(url),
            trust_env=False,
        )
        if answer.status_code >= 500 or answer.status_code == 429:
            return None
        return answer.status_code == 200 and isinstance(answer.json(), dict)
    except httpx.HTTPError:
        return None
    except ValueError:  # a login page
        return False


def _place(address: str) -> tuple[str, int | None] | None:
    """Host and port of an address; None if it has none."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return (host_form(parts.hostname), port) if parts.hostname else None
    except ValueError:
        return None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
