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


def _is_ours_or_a_warning(record: logging.LogRecord) -> bool:
    """Not what others trace: Pillow writes out who stands in a picture's tags, httpx addresses."""
    is_ours = record.name.partition(".")[0] == __name__.partition(".")[0]
    return is_ours or record.levelno >= logging.WARNING


def configure_logging(level: str) -> None:
    """Log lines to standard error, one per event; of other packages' none below a warning."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_is_ours_or_a_warning)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # "depth is 1" is no news
