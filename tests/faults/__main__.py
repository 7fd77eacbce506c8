"""Every fault at every point, in turn: `python -m tests.faults`, or `make faults`.

python -m tests.faults --every 50 --seed 7 --only train,kill
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

from tests.faults.run import Summary, run

RESULTS = Path("benchmarks/results/faults.json")


def main() -> int:
    """Run, print, write; the number of faults that did harm, 1 at most."""
    options = _options()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.disable(logging.CRITICAL)
    started = time.monotonic()
    summary = run(
        every=options.every,
        seed=options.seed,
        only=[name for name in options.only.split(",") if name],
        name=options.case,
        processes=options.processes,
        limit_s=options.limit_s,
        log=print,
    )
    seconds = round(time.monotonic() - started)
    print(summary.text())
    print(f"{summary.num_faults} faults in {seconds} s, {len(summary.harmful)} of them did harm")
    if options.out is not None:
        options.out.write_text(json.dumps(_json(summary, options, seconds), indent=1) + "\n")
    return int(bool(summary.harmful))


def _json(summary: Summary, options: argparse.Namespace, seconds: int) -> dict[str, object]:
    return {
        "every": options.every,
        "seed": options.seed,
        "seconds": seconds,
        "faults": summary.num_faults,
        "did_harm": len(summary.harmful),
        "by_step_and_kind": summary.table(),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="every k-th fault, and one of each")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--only", default="", help="steps, kinds and modes, separated by commas")
    parser.add_argument("--case", default="", help="one case, as it is named in what is printed")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="begin none after this")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
