"""How many threads the worker computes with: one for each core that nobody else keeps busy.

A parallel part of a network ends when its slowest thread does, and the worker is nice: beside one
busy process on two cores, two threads had a twentieth of the speed of one. Threads that sleep while
they wait cost a fifth of it where nobody else is busy (`benchmarks/busy_machine.py`).
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

logger = logging.getLogger(__name__)

ADAPT_EVERY_S = 2.0
ROUNDING = 0.3
"""A core counts as free where the others leave this much less than all of it."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class CpuTime:
    """Readings of the clocks, in seconds since some moment in the past.

    wall: of the clock on the wall.
    machine: of all cores, what any process and the hypervisor's other guests took of them.
    own: what this process took.
    """

    wall: float
    machine: float
    own: float


class FreeCores:
    """Has torch compute with as many threads as cores are free, and looks again now and then.

    To be used from the thread that computes: OpenMP counts for each thread.

    Args:
        most: threads at most; None: what torch has chosen (`OMP_NUM_THREADS` where it is set), and
            no more than the cores that this process may use.
        read: gives the clocks.
    """

    def __init__(self, most: int | None = None, read: Callable[[], CpuTime] | None = None) -> None:
        self._most = most or max(1, min(torch.get_num_threads(), usable_cores()))
        self._read = read or read_clocks
        self._before = self._read()

    def adapt(self) -> int:
        """The number of threads from now on; cheap enough for each image and training step."""
        if self._most == 1:
            return self._use(1)
        clocks = self._read()
        if clocks.wall - self._before.wall < ADAPT_EVERY_S:
            return torch.get_num_threads()
        others = taken_by_others(self._before, clocks)
        self._before = clocks
        return self._use(threads_beside(others, num_cores=os.cpu_count() or 1, most=self._most))

    def _use(self, num_threads: int) -> int:
        before = torch.get_num_threads()
        if num_threads != before:
            torch.set_num_threads(num_threads)
            logger.debug("computing with %d threads instead of %d", num_threads, before)
        return num_threads


def threads_beside(others: float, num_cores: int, most: int) -> int:
    """Threads for what others leave free, at least 1 and at most `most`.

    Args:
        others: cores that other processes keep busy, 0 to `num_cores`.
        num_cores: of the machine.
        most: threads that this process may use.
    """
    return max(1, min(most, math.floor(num_cores - others + ROUNDING)))


def taken_by_others(before: CpuTime, after: CpuTime) -> float:
    """Cores that everyone else kept busy between two readings."""
    taken = (after.machine - before.machine) - (after.own - before.own)
    return max(0.0, taken / (after.wall - before.wall))


def read_clocks() -> CpuTime:
    """The clocks now. Within a container the machine is the host: its other guests count."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return CpuTime(time.monotonic(), sum(times) - idle - counted_twice, time.process_time())


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: its affinity and its container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, math.floor(_quota(cgroup) + ROUNDING)))


def _quota(cgroup: Path) -> float:
    """Cores that a container is limited to; infinite without a limit. Both versions of cgroups."""
    try:
        limit, period = (cgroup / "cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text("ascii").strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text("ascii").strip()
        except OSError:
            return 1e9
    if not limit.isdigit() or not period.isdigit() or int(period) == 0:  # "max", or -1
        return 1e9
    return int(limit) / int(period)
