"""Log lines of the commands."""

from __future__ import annotations

import logging


def configure_logging(level: str) -> None:
    """Log lines to standard error, one per event."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for name in ("httpx", "httpcore", "alembic"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
