"""How long values have stood as they are, by this process' own clock alone.

Wall clocks jump and differ between machines; what is waited for is therefore a value that another
process may change, seen to stand still.
"""

from __future__ import annotations

import time
from collections.abc import Hashable


class Standing:
    """Remembers since when each value was seen as it is; the first look is where it begins."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[object, float]] = {}

    def seconds(self, name: Hashable, value: object) -> float:
        """Seconds for which `name` has had this value, at every look in between."""
        moment = time.monotonic()
        known = self._seen.get(name)
        if known is None or known[0] != value:
            self._seen[name] = known = (value, moment)
        return moment - known[1]
