"""What other work on the machine costs the worker: threads, waiting, and the allocator, compared.

Each way to start the worker ranks images and trains for a few seconds, as nice as the worker is:
alone, and beside processes that keep one and two cores busy. The ways take turns; a figure is the
median over the turns, as a ratio to one thread alone with the allocator as it is.

    python benchmarks/busy_machine.py --out benchmarks/results/busy_machine.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.cli.supervisor import ALLOCATOR
from ralis_backend.cli.worker import NICENESS
from ralis_backend.core.files import write_json
from ralis_backend.core.segmenter import SegmenterSpec, build

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
ADAPTS = {"RALIS_BENCHMARK_ADAPTS": "1"}
CORES = os.cpu_count() or 1
EVERY = {"OMP_NUM_THREADS": str(CORES)}
WAYS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "every core": EVERY,
    "every core, threads that sleep": EVERY | PASSIVE,
    "free cores": ADAPTS,
    "free cores, threads that sleep": ADAPTS | PASSIVE,
    "free cores, allocator: ralis serve": ADAPTS | ALLOCATOR,
}
BURN = "while True: pass"
SIZES = {"480x360": ((360, 480), 11), "2048x1024": ((1024, 2048), 19)}


def main() -> None:
    """Measure, print and write; with `--work`, be the worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each kind of work")
    parser.add_argument("--busy", default=",".join(str(number) for number in range(CORES + 1)))
    parser.add_argument("--ways", default=";".join(WAYS))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.seconds)))
        return
    load = round(os.getloadavg()[0], 2)
    ways = options.ways.split(";")
    rates = compare(ways, [int(number) for number in options.busy.split(",")], options)
    content = {
        "command": "python benchmarks/busy_machine.py",
        "cores": CORES,
        "niceness": NICENESS,
        "beside_busy_processes": rates,
        "load_before": load,
        "python": platform.python_version(),
    }
    print(json.dumps(content, indent=1))
    if options.out is not None:
        write_json(options.out, content)


def compare(ways: list[str], loads: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """For each number of busy processes and way: speed over that of the first way alone."""
    figures: dict[int, dict[str, list[dict[str, float]]]] = {
        load: {name: [] for name in ways} for load in loads
    }
    for _ in range(options.turns):
        for load in loads:
            with busy(load):
                for name in ways:
                    figures[load][name].append(measure(WAYS[name], options.seconds))
                    print(load, name, figures[load][name][-1], file=sys.stderr)
    medians = {
        load: {name: median_of(found) for name, found in by_way.items()}
        for load, by_way in figures.items()
    }
    alone = medians[loads[0]][ways[0]]
    return {
        str(load): {
            name: {
                kind: round(value if kind == "peak_mb" else value / alone[kind], 2)
                for kind, value in found.items()
            }
            for name, found in by_way.items()
        }
        for load, by_way in medians.items()
    }


def median_of(figures: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {kind: statistics.median(each[kind] for each in figures) for kind in figures[0]}


@contextmanager
def busy(number: int) -> Iterator[None]:
    """So many processes that never rest."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(number)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def measure(variables: dict[str, str], seconds: float) -> dict[str, float]:
    """What a worker started with these variables of the environment reaches."""
    inherited = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    inherited.pop("OMP_NUM_THREADS", None)  # torch chooses where a way does not
    ended = subprocess.run(
        [sys.executable, __file__, "--work", "--seconds", str(seconds)],
        env=inherited | variables,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(ended.stdout)


def work(seconds: float) -> dict[str, float]:
    """Images ranked and training steps done in a second, and the largest resident set in MB."""
    from ralis_backend.online.worker.cores import FreeCores

    adapt = FreeCores().adapt if os.environ.get("RALIS_BENCHMARK_ADAPTS") else lambda: 0
    os.nice(NICENESS)
    rng = np.random.default_rng(0)
    rates = {}
    for name, (size, num_classes) in SIZES.items():
        segmenter = build(SegmenterSpec(num_classes, encoder_weights=None))
        image = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
        rates[f"images of {name} a second"] = ranking_rate(segmenter, image, seconds, adapt)
    rates["training steps a second"] = training_rate(rng, seconds, adapt)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**rates, "peak_mb": peak_mb}


def ranking_rate(segmenter: Any, image: Any, seconds: float, adapt: Callable[[], int]) -> float:
    """Images looked at in a second, for the default strategy and the predicted mask."""
    from ralis_backend.core.acquisition import strategy
    from ralis_backend.core.features import describe, predicted_mask
    from ralis_backend.core.policy.registry import DEFAULT
    from ralis_backend.core.regions import grid

    needs = strategy(DEFAULT).needs
    regions = grid(image.shape[:2], (128, 128))

    def look() -> None:
        adapt()
        forward = segmenter.forward_pass(image, needs.maps)
        describe(forward, regions, needs.features)
        predicted_mask(forward)

    return rate_of(look, seconds)


def rate_of(step: Callable[[], None], seconds: float) -> float:
    """Steps in a second, after one that warms up."""
    step()
    started = time.perf_counter()
    number = 0
    while time.perf_counter() < started + seconds or not number:
        step()
        number += 1
    return number / (time.perf_counter() - started)


def training_rate(rng: np.random.Generator, seconds: float, adapt: Callable[[], int]) -> float:
    """Training steps in a second, as the worker trains: batches of 4 crops of 192x192."""
    from ralis_backend.core.learning.config import FinetuneConfig
    from ralis_backend.core.learning.crops import LabelledImage
    from ralis_backend.core.learning.finetune import finetune
    from ralis_backend.core.regions import grid

    (size, num_classes) = SIZES["480x360"]
    image = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
    mask = rng.integers(0, num_classes, size).astype(np.uint8)
    segmenter = build(SegmenterSpec(num_classes, encoder_weights=None))
    moments: list[float] = []

    def should_stop() -> bool:
        adapt()
        moments.append(time.perf_counter())
        return len(moments) > 3 and moments[-1] - moments[1] > seconds

    images = [LabelledImage(lambda: image, mask, tuple(grid(size, (90, 80))))]
    finetune(segmenter, images, FinetuneConfig(steps=10_000), seed=0, should_stop=should_stop)
    return (len(moments) - 2) / (moments[-1] - moments[1])  # without the first, that warms up


if __name__ == "__main__":
    main()
