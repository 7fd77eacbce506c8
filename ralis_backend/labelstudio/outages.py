"""Hosts that fail to deliver -> how they are asked: patiently, in haste, or not at all for a while.

A pool of which each image is waited for in vain as long as the first one takes days. So a host that
has failed five times in a row is down: it is asked once a minute at most, and any answer ends that.
An image that was refused meanwhile was not asked for, and has not failed: it comes before those
that have, so that each time another one finds out whether the host is back (`Images.fail`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from ralis_backend.labelstudio.errors import Unavailable
from ralis_backend.labelstudio.image_addresses import ImageNotAllowed

DOWN_AFTER = 5
"""Failures in a row: one that fails now and then is not down."""
PROBE_S = 60.0
"""One that is down is asked once in so long whether it is back."""
PATIENT_EVERY_S = 600.0
"""One that fails is asked in haste; once in so long patiently, for it may be no more than slow."""


class HostUnavailable(Unavailable):
    """A host has not delivered, or is down.

    was_asked: whether it was asked.
    failing_s: for how many seconds it has given no answer but failures.
    """

    def __init__(self, why: str, host: str, *, was_asked: bool, failing_s: float) -> None:
        super().__init__(why)
        self.host, self.was_asked, self.failing_s = host, was_asked, failing_s


@dataclass
class _Outage:
    """How often in a row a host has failed, since when, and when it was asked, and waited for."""

    num_failures: int = 0
    since: float = inf
    asked_at: float = -inf
    waited_at: float = -inf
    why: str = ""


class Outages:
    """What is known of hosts that fail; safe to share between threads.

    clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of: dict[str, _Outage] = {}

    @contextmanager
    def asking(self, host: str) -> Iterator[bool]:
        """Around one request to a host; gives whether it is not to be waited for long.

        Any answer ends an outage, one that says that there is no such file as well.

        Raises:
            HostUnavailable: in place of `Unavailable`; at once, if the host is down.
        """
        outage = self._of.get(host, _Outage())
        moment = self._clock()
        num_failures = outage.num_failures
        failing_s = moment - min(outage.since, moment)  # another thread may have excused it since
        if num_failures >= DOWN_AFTER and moment - outage.asked_at < PROBE_S:
            why = (
                f"the last {num_failures} images from there failed, so it was not asked for this "
                f"one; it is asked once a minute at most; the last answer: {outage.why}"
            )
            raise HostUnavailable(why, host, was_asked=False, failing_s=failing_s)
        outage.asked_at = moment  # nobody else needs to ask meanwhile
        is_hasty = moment - outage.waited_at < PATIENT_EVERY_S
        try:
            yield is_hasty
        except Unavailable as error:
            self._of[host] = outage
            outage.num_failures += 1
            outage.why = str(error)
            outage.asked_at = failed_at = self._clock()
            outage.since = since = min(outage.since, failed_at)
            if not is_hasty:
                outage.waited_at = failed_at
            failing_s = failed_at - since
            raise HostUnavailable(str(error), host, was_asked=True, failing_s=failing_s) from error
        except ImageNotAllowed:  # nobody was asked
            raise
        except Exception:
            self._of.pop(host, None)
            raise
        self._of.pop(host, None)

    def excuse(self, start: str) -> None:
        """Hosts whose names begin so have failed for another reason: they are not down."""
        for host, outage in list(self._of.items()):
            if host.startswith(start):
                outage.num_failures, outage.since = 0, inf
