"""What is missing now and may be there later, without anybody's doing."""

from __future__ import annotations


class UnavailableError(ValueError):
    """Something that is needed cannot be had now: it starts, is busy, or is full.

    Trying again may help, unlike with any other `ValueError` of a start.
    """
