"""The end of a worker whose step hangs: a thread cannot be ended, a process can."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys

logger = logging.getLogger(__name__)

STALLED = 75
"""Exit code, EX_TEMPFAIL: whatever keeps the worker running starts it again."""


def end_process(message: str) -> None:
    """Say why and where, and end this process at once; its supervisor starts another."""
    logger.critical("%s; this worker ends, to be started again", message)
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback(sys.__stderr__)
    logging.shutdown()
    os._exit(STALLED)
