"""What is said of learners is what was measured."""

from __future__ import annotations

import json

from benchmarks import learners
from tests import REPOSITORY


def test_a_lead_is_that_of_a_pair_and_a_mean_that_of_all_seeds():
    runs = [
        {"learner": learner, "regions": 48, "updates": 9, "seed": seed, "miou": miou}
        for learner, seed, miou in (
            ("paint", 1, 0.40), ("paint", 2, 0.44), ("unlabelled", 2, 0.41), ("unlabelled", 3, 0.5),
        )
    ]  # fmt: skip
    assert learners.table(runs)[2:] == ["| 48 | 9 | 42.0 (2 seeds) | 45.5 (2 seeds) | -3.0 |"]


def test_the_page_of_figures_gives_the_table_of_the_results():
    path = REPOSITORY / "benchmarks" / "results" / "labels" / "learners-camvid-cuda.json"
    runs = json.loads(path.read_text())["runs"]
    assert "\n".join(learners.table(runs)) in (REPOSITORY / "docs" / "figures.md").read_text()
