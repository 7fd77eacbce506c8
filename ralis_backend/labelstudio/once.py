"""What is made in Label Studio is made once: looked for before, and again if the answer is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ralis_backend.labelstudio.errors import NotFound, Unavailable

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")


def found_or_made(
    what: str, find: Callable[[], _Made | None], make: Callable[[], _Made]
) -> tuple[_Made, bool]:
    """What `find` gives, made if there is none; and whether it was made now.

    Args:
        what: is made, for the log.
        find: looks for it by a mark of ours.
        make: makes it, with that mark.

    Raises:
        Unavailable: if Label Studio's answer is lost and it was not made, as far as can be seen.
    """
    found = find()
    if found is not None:
        return found, False
    try:
        return make(), True
    except Unavailable as error:
        found = find()
        if found is None:
            raise
        logger.warning("%s is there: %s", what, error)
        return found, True


def deleted(delete: Callable[[int], None], number: int) -> None:
    """Delete it; that somebody else was faster is as good."""
    try:
        delete(number)
    except NotFound:
        logger.debug("%d is gone already", number)
