"""The token that Label Studio hands over at `/setup`, kept for web and worker between requests.

It is the legacy token of the project's creator, sent also where legacy tokens are switched off and
it is not accepted. It stands in for `LABEL_STUDIO_API_KEY` where that is not set, and is sent to
`LABEL_STUDIO_URL` alone, whatever address came with it.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ralis_backend.core.files import OWNER_ONLY, write_bytes

logger = logging.getLogger(__name__)

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

    def keep(self, token: object) -> None:
        """Keep a token for later calls; anything that is no legacy token is ignored.

        A file that cannot be written is logged: the call that brought the token goes on.
        """
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or token == self.read():
            return
        try:
            write_bytes(self._path, token.encode("ascii"), mode=OWNER_ONLY)
        except OSError as error:
            logger.warning("Label Studio's token cannot be kept in %s: %s", self._path, error)
            return
        logger.info(
            "LABEL_STUDIO_API_KEY is not set: using the token that Label Studio handed over, which "
            "works where legacy tokens are on"
        )
