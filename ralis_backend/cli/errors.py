"""Expected errors -> one line on standard error and an exit code that says what they are."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ralis_backend.core.text import printable_lines
from ralis_backend.core.unavailable import UnavailableError

REFUSED = 2
"""Exit code of a command that says why it does not do what was asked."""
CANNOT_START = 78
"""Exit code of a server that would fail in the same way when started again (`EX_CONFIG`)."""
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_WRONG_PLACE = {
    **dict.fromkeys(
        _NO_PERMISSION,
        "a place that the user who runs this may read and write: give that user the right, or name "
        "another place",
    ),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR), "a folder: move the file away, or name another place"
    ),
    errno.EISDIR: "a file, not a folder",
    errno.ENOENT: "a path that exists",
    errno.ENAMETOOLONG: "a shorter path",
    errno.ELOOP: "a path whose links lead somewhere",
}
"""What was expected of a path, by errors that stay until somebody does something about it."""


def is_expected(error: Exception) -> bool:
    """Whether its message says all: a traceback would tell people nothing more."""
    from ralis_backend.online.store import is_refusal
    from ralis_backend.online.tool import ToolError

    if isinstance(error, OSError):
        return error.filename is not None or error.errno in (*_NO_PERMISSION, *_NO_ROOM)
    if is_refusal(error):
        return True
    # a training whose loss is no number says what to change
    return isinstance(error, ValueError | ToolError | FloatingPointError)


def tell(error: Exception) -> None:
    """Write the message of an expected error."""
    text = str(_in_words(error))
    if isinstance(error, OSError) and error.errno in _WRONG_PLACE:
        text += f"; expected {_WRONG_PLACE[error.errno]}"
    logging.getLogger(__name__).debug("traceback", exc_info=error)
    typer.secho(f"ralis: {printable_lines(text)}", fg="red", err=True)


@contextmanager
def starting() -> Iterator[None]:
    """Around the start of a server: what no restart can mend ends it with `CANNOT_START`."""
    try:
        yield
    except Exception as error:
        if not is_expected(error) or not _lasts(error):
            raise
        tell(error)
        sys.exit(CANNOT_START)


def _lasts(error: Exception) -> bool:
    if isinstance(_in_words(error), UnavailableError):
        return False
    return not isinstance(error, OSError) or error.errno in _WRONG_PLACE


def _in_words(error: Exception) -> Exception:
    """A database's refusal as an error whose message says what to do; any other as it is."""
    from ralis_backend.online.store import StoreError, refusal

    return refusal(error) if isinstance(error, StoreError) else error
