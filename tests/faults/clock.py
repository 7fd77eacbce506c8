"""The store's clock, which tests may set forward: nobody waits for a pause to pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from unittest import mock

from ralis_backend.online.store import database


class Clock:
    """Real time plus what was skipped."""

    def __init__(self) -> None:
        self.skipped = timedelta()

    def now(self, zone: tzinfo | None = None) -> datetime:
        """As `datetime.now`."""
        return datetime.now(zone) + self.skipped

    def skip(self, seconds: float) -> None:
        """Set the clock forward."""
        self.skipped += timedelta(seconds=seconds)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The store's time is this clock's."""
        with mock.patch.object(database, "datetime", self):
            yield
