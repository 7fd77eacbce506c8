"""A call -> how long it takes, on the CPU's clock and on the device's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_WARM_UPS = 2


@dataclass(frozen=True)
class Setting:
    """Where and how much is measured.

    device: `cuda`, or `cpu` to try the command itself. is_tiny: sizes that only show that it works.
    seconds: what each timed call may take altogether; it is made at least once.
    """

    device: torch.device
    is_tiny: bool = False
    seconds: float = 2.5


def timed(call: Callable[[], object], setting: Setting) -> dict[str, float]:
    """The median time of `call` in ms, once it is warm, and how often it was made.

    `wall_ms` is what its caller waits until the device is done; `device_ms`, on CUDA alone, what
    passes between its first and its last kernel.
    """
    for _ in range(_WARM_UPS):  # kernels are loaded and chosen at first
        call()
    stopwatch = _on_cuda if setting.device.type == "cuda" else _on_cpu
    turns = [stopwatch(call)]
    begun = time.perf_counter()
    while time.perf_counter() - begun < setting.seconds and not setting.is_tiny:
        turns.append(stopwatch(call))
    medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    return {name: round(value, 3) for name, value in medians.items()} | {"calls": len(turns)}


def _on_cpu(call: Callable[[], object]) -> dict[str, float]:
    started = time.perf_counter()
    call()
    return {"wall_ms": 1000 * (time.perf_counter() - started)}


def _on_cuda(call: Callable[[], object]) -> dict[str, float]:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    started = time.perf_counter()
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    wall_ms = 1000 * (time.perf_counter() - started)
    return {"wall_ms": wall_ms, "device_ms": first.elapsed_time(last)}
