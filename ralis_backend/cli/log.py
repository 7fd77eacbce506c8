"""Log lines of the commands."""

from __future__ import annotations

import logging

from ralis_backend.core.text import printable


class LineFormatter(logging.Formatter):
    """One event, one line, whatever names from outside hold; tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line, without what moves the cursor."""
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback if there is one."""
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


def configure_logging(level: str) -> None:
    """Log lines to standard error, one per event."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "alembic"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # "depth is 1" is no news
