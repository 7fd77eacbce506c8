"""Failed attempts to authenticate, counted by address: too many, and the address has to wait."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ralis_backend.hosts import ip_of

WINDOW_S = 60.0
MAX_FAILURES = 10
"""Of an address in a window. Nothing more from it is looked at until the window ends."""
MAX_FAILURES_OF_FRIENDS = 300
"""Of an address that has authenticated: else one wrong webhook, which any member of a project can
make in Label Studio, would shut Label Studio out."""
MAX_ADDRESSES = 10_000


@dataclass
class _Address:
    began_at: float
    num_failures: int = 0
    is_friend: bool = False


class Attempts:
    """Safe to share between threads; each process counts for itself.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._addresses: OrderedDict[str, _Address] = OrderedDict()  # the longest unused first
        self._lock = threading.Lock()

    def wait_s(self, address: str | None) -> float:
        """How long an address has to wait before anything from it is looked at; mostly 0."""
        with self._lock:
            known = self._addresses.get(_network(address))
            if known is None:
                return 0.0
            most = MAX_FAILURES_OF_FRIENDS if known.is_friend else MAX_FAILURES
            left_s = known.began_at + WINDOW_S - self._clock()
            return max(0.0, left_s) if known.num_failures >= most else 0.0

    def failed(self, address: str | None) -> int:
        """Count a failure; how many the address has had in this window."""
        with self._lock:
            known = self._used(address)
            if self._clock() - known.began_at >= WINDOW_S:
                known.began_at, known.num_failures = self._clock(), 0
            known.num_failures += 1
            return known.num_failures

    def succeeded(self, address: str | None) -> None:
        """Remember that whoever calls from there knows the credentials."""
        with self._lock:
            self._used(address).is_friend = True

    def _used(self, address: str | None) -> _Address:
        key = _network(address)
        known = self._addresses.setdefault(key, _Address(self._clock()))
        self._addresses.move_to_end(key)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        return known


def _network(address: str | None) -> str:
    """Whom an address belongs to: of IPv6 everyone has a whole /64."""
    ip = ip_of(address or "")
    if ip is None:
        return ""
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network(f"{ip}/64", strict=False))
