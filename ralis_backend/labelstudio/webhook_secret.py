"""What a project's webhooks carry: a secret of its own that opens nothing else.

Label Studio shows the headers of webhooks to everyone who may read the project, so they must not
hold the backend's credentials. Each project's secret is derived from one in the data folder.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from ralis_backend.core.files import OWNER_ONLY, write_bytes

_SECRET_BYTES = 32


class WebhookSecret:
    """The secret from which those of all projects are derived.

    Args:
        path: of its file, made on first use. Delete it, and start web and worker again, to give
            every project's webhooks a new secret.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None

    def headers(self, uid: str) -> dict[str, str]:
        """What the webhooks of a project must carry."""
        return {"Authorization": f"Bearer {self._bearer(uid)}"}

    def opens(self, bearer: str) -> str | None:
        """The uid of the project whose webhooks carry this token; None if it is none of ours."""
        uid, separator, _ = bearer.partition("/")
        if not separator or not bearer.isascii():
            return None
        return uid if hmac.compare_digest(bearer, self._bearer(uid)) else None

    def fingerprint(self) -> str:
        """Changes with the secret, and gives nothing of it away."""
        return hashlib.sha256(b"fingerprint" + self._secret()).hexdigest()[:16]

    def _bearer(self, uid: str) -> str:
        return f"{uid}/{hmac.new(self._secret(), uid.encode(), hashlib.sha256).hexdigest()}"

    def _secret(self) -> bytes:
        if self._key is None:
            if not self._path.exists():
                self._make()
            self._key = self._read()
        return self._key

    def _read(self) -> bytes:
        # None of its content is said: it may be most of the secret.
        digits = 2 * _SECRET_BYTES
        try:
            content = self._path.read_bytes()[: digits + 100].strip()
        except OSError as error:
            raise ValueError(
                f"{self._path} cannot be read ({error.strerror}): it must be a file of the user "
                "that web and worker run as, who alone may read it"
            ) from None
        if not re.fullmatch(rb"[0-9a-fA-F]{%d}" % digits, content):
            raise ValueError(
                f"{self._path} is damaged: expected {digits} hexadecimal digits. Put it back from "
                "a backup; or delete it, and start web and worker again: each project's webhooks "
                "get a new secret then"
            )
        return bytes.fromhex(content.decode())

    def _make(self) -> None:
        """Write a new secret, unless another process is faster: then that one's holds."""
        partial = self._path.with_name(f".{self._path.name}-{secrets.token_hex(8)}")
        write_bytes(partial, secrets.token_hex(_SECRET_BYTES).encode(), mode=OWNER_ONLY)
        try:
            os.link(partial, self._path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
