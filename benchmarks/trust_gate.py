"""Whom does the trust gate let rank? Replays on random draws of a dataset's regions.

A learned policy, a placebo and `random` are judged as the backend judges a policy, on as many
labelled regions as a project has after a few rounds; verdicts and leads go to a JSON file.

    python benchmarks/trust_gate.py --dataset ../shared/data/camvid \
        --out benchmarks/results/labels/trust-gate-camvid.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ralis_backend.core.acquisition import strategy
from ralis_backend.core.files import write_json
from ralis_backend.core.policy.registry import find_strategy
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.simulation.verdict import (
    BASELINE,
    HEURISTICS,
    ReplayRules,
    replay,
    verdict,
)

POLICIES = Path(__file__).resolve().parent.parent / "policies"
JUDGED = ("any", "any-set", "any-shuffled")
REGION_SIZE = (90, 80)
DRAWS = ((120, 0), (120, 1), (240, 2), (240, 3), (120, 4))
"""Labelled regions, and the seed that draws them."""


def main() -> None:
    """Play, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    options = parser.parse_args()
    dataset = Dataset.open(options.dataset)
    pool = PointFeatures(dataset, REGION_SIZE, options.cache).split("d_v")
    strategies = {name: strategy(name) for name in (*HEURISTICS, BASELINE)} | {
        name: find_strategy(name, POLICIES, dataset.class_names, REGION_SIZE) for name in JUDGED
    }
    draws = []
    for count, seed in DRAWS:
        chosen = np.random.default_rng(seed).choice(len(pool), count, replace=False)
        scores = replay(pool.take(np.sort(chosen)), strategies, ReplayRules(), seed)
        verdicts = {name: verdict(scores, name).to_json() for name in (*JUDGED, BASELINE)}
        for name, found in verdicts.items():
            print(f"{count} regions, draw {seed}: {name} {found['verdict']}", flush=True)
        draws.append({"regions": count, "seed": seed, "verdicts": verdicts})
    against = [*HEURISTICS, BASELINE]
    write_json(options.out, {"dataset": dataset.name, "against": against, "draws": draws})


if __name__ == "__main__":
    main()
