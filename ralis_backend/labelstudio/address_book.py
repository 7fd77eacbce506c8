"""The addresses that Label Studio gives as its own at `/setup`, kept for web and worker.

Whoever may call `/setup` can add one. It is a name and nothing more: what tasks say lies there is
asked of `LABEL_STUDIO_URL`, and no request goes to it.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from ralis_backend.core.files import OWNER_ONLY, write_bytes
from ralis_backend.hosts import host_form

logger = logging.getLogger(__name__)

MOST_ADDRESSES = 8
"""The ones that came last; Label Studio says its own with every next task."""
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\[\]:-]{1,255}(/[A-Za-z0-9._~/-]{0,200})?")


class AddressBook:
    """Addresses in a file, read anew when it has changed.

    Args:
        path: need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read_at: tuple[int, int] | None = None
        self._known: tuple[str, ...] = ()

    def known(self) -> tuple[str, ...]:
        """The addresses, the newest last; none where the file is missing or damaged."""
        try:
            state = self._path.stat()
            if self._read_at != (state.st_mtime_ns, state.st_ino):
                content = json.loads(self._path.read_bytes())
                self._known = tuple(it for it in content if _is_address(it))[-MOST_ADDRESSES:]
                self._read_at = (state.st_mtime_ns, state.st_ino)
        except (OSError, ValueError, TypeError, RecursionError):
            return ()
        return self._known

    def offer(self, hostname: object) -> None:
        """Remember what `/setup` said under `hostname`, if it is an address and a new one."""
        if not isinstance(hostname, str) or not _is_address(hostname):
            return
        place = place_of(hostname)
        with self._lock:
            known = self.known()
            if place in {place_of(each) for each in known}:
                return
            content = json.dumps([*known, hostname][-MOST_ADDRESSES:]).encode()
            try:
                write_bytes(self._path, content, mode=OWNER_ONLY)
            except OSError as error:
                logger.warning("Label Studio's address cannot be kept in %s: %s", self._path, error)
                return
        logger.info("Label Studio says that its address is %s", hostname)


def place_of(address: str) -> tuple[str, int] | None:
    """Host and port of an http(s) address; 80 and 443 are one: proxies change between them."""
    with suppress(ValueError):
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
        if parts.hostname and port is not None:
            return host_form(parts.hostname), 443 if port == 80 else port
    return None


def _is_address(value: object) -> bool:
    return (
        isinstance(value, str) and bool(_ADDRESS.fullmatch(value)) and place_of(value) is not None
    )
