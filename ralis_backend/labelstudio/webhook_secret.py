"""What a project's webhooks carry: a secret of its own that opens nothing else.

Label Studio shows the headers of webhooks to everyone who may read the project, so they must not
hold the backend's credentials. Each project's secret is derived from one in the data folder.
"""

from __future__ import annotations

import hashlib
import hmac
import os
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
            self._key = bytes.fromhex(self._path.read_text("ascii"))
            if len(self._key) != _SECRET_BYTES:
                raise ValueError(
                    f"{self._path} holds {len(self._key)} bytes, expected {_SECRET_BYTES}; delete "
                    "it, and start web and worker again"
                )
        return self._key

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
