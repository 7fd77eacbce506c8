"""A worker shows that it lives, from a thread of its own: also while a step takes long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ralis_backend.online.owner import is_dead
from ralis_backend.online.store import Store

logger = logging.getLogger(__name__)

EVERY_S = 10.0


class Pulse:
    """Beats while the block runs.

    Args:
        store: not guarded.
        name: of the worker.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="pulse")

    def __enter__(self) -> Pulse:
        self._forget_the_dead()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._try(lambda: self._store.workers.end(self._name))

    def _keep(self) -> None:
        while True:
            self._try(lambda: self._store.workers.beat(self._name))
            if self._done.wait(EVERY_S):
                return

    def _forget_the_dead(self) -> None:
        def forget() -> None:
            for name in self._store.workers.seen():
                if is_dead(name):
                    self._store.workers.end(name)

        self._try(forget)

    def _try(self, act: Callable[[], None]) -> None:
        """Only people look at it: a database that refuses must not end the worker."""
        try:
            act()
        except Exception as error:
            logger.debug("the worker's pulse: %s", error)
