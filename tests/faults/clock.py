"""The clocks of store and worker, which tests may set forward: nobody waits for a pause to pass."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from unittest import mock

from ralis_backend.online.store import database
from ralis_backend.online.worker import standing


class Clock:
    """Real time plus what was skipped."""

    def __init__(self) -> None:
        self.skipped = timedelta()

    def now(self, zone: tzinfo | None = None) -> datetime:
        """As `datetime.now`."""
        return datetime.now(zone) + self.skipped

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return time.monotonic() + self.skipped.total_seconds()

    def skip(self, seconds: float) -> None:
        """Set the clock forward."""
        self.skipped += timedelta(seconds=seconds)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The time of store and worker is this clock's."""
        with (
            mock.patch.object(database, "datetime", self),
            mock.patch.object(standing, "time", self),
        ):
            yield
