"""Do strategies rank alike in the fast simulation and under the segmenter itself?

Reads two `summary.json` of `ralis benchmark`, of the same strategies and dataset, one of
`--fidelity fast` and one of `--fidelity full`; prints Spearman's rank correlation at each common
budget and of the areas under the curves, each with a 95 % interval over seeds, and
writes it to a JSON file.

    python benchmarks/fidelity_agreement.py fast/summary.json full/summary.json --out agreement.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ralis_backend.core.files import write_json
from ralis_backend.offline.benchmark.agreement import rank_agreement


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fast", type=Path)
    parser.add_argument("full", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    first, second = (json.loads(path.read_text()) for path in (options.fast, options.full))
    agreement = rank_agreement(first, second)
    print(f"{first['dataset']}: {', '.join(agreement['strategies'])}")
    for budget, found in agreement["spearman"].items():
        print(f"{budget:>8} regions: {_shown(found)}")
    print(f"area under curve: {_shown(agreement['spearman_of_areas'])}")
    if options.out:
        write_json(options.out, agreement)


def _shown(found: dict[str, float | None]) -> str:
    value, low, high = (
        "undefined" if found[key] is None else f"{found[key]:+.2f}"
        for key in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
