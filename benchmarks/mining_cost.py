"""Seconds to look for a class among regions that are described already, by their number.

Scoring, ordering and explaining, as the worker does it for one look at a pool; the picks are the
1,000 best, and taking more of them costs nothing.

    OMP_NUM_THREADS=1 python -m benchmarks.mining_cost --out benchmarks/results/mining_cost.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.mining import POLICIES, REGION_SIZE
from benchmarks.ranking_cost import NUM_CLASSES, pool_cost
from ralis_backend.core.files import write_json
from ralis_backend.core.policy.registry import find_strategy

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
SEARCHES = ("presence", "misical-linear", "misical")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    content = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.mining_cost",
        "searches": [cost(name, size, options.turns) for size in SIZES for name in SEARCHES],
        "load_before": round(load, 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps(content, indent=1))
    if options.out is not None:
        write_json(options.out, content)


def cost(name: str, num_regions: int, turns: int) -> dict[str, Any]:
    """Median seconds of a look at so many regions, after one that warms up."""
    class_names = [f"class {index}" for index in range(NUM_CLASSES)]
    chooser = find_strategy(f"{name}:class 3", POLICIES, class_names, REGION_SIZE)
    figures = [pool_cost(num_regions, chooser) for _ in range(turns + 1)][1:]
    return figures[0] | {"seconds": statistics.median(it["seconds"] for it in figures)}


if __name__ == "__main__":
    main()
