"""What the pages say of games under the whole network is what came out of them."""

from __future__ import annotations

import json

import pytest

from ralis_backend.core.policy.registry import DEFAULT
from tests import REPOSITORY

LABELS = REPOSITORY / "benchmarks" / "results" / "labels"
SETS = ("camvid", "clothing")


@pytest.fixture
def played():
    return {
        name: json.loads((LABELS / f"long/full-diverse-{name}/summary.json").read_text())
        for name in SETS
    }


def _told(pair) -> str:
    return f"{pair['lead']:+.2f} ({pair['low']:+.2f} to {pair['high']:+.2f})"


def test_the_page_gives_the_scores_of_the_whole_network(played):
    rows = [line.strip("|").split() for line in (LABELS / "README.md").read_text().splitlines()]
    for strategy in played["camvid"]["strategies"]:
        cells = [strategy]
        for summary in played.values():
            assert len(summary["seeds"]) == 5
            curve = summary["strategies"][strategy]["curve"]
            cells += [f"{100 * point['miou']:.1f}" for point in curve]
            pair = summary["pairs"][strategy].get("random")
            cells.append(_told(pair) if pair else "")
        assert " | ".join(cells).split() in rows


def test_the_page_and_the_readme_say_how_far_the_default_is_ahead_there(played):
    page = " ".join((LABELS / "README.md").read_text().split())
    leads = {name: summary["pairs"][DEFAULT] for name, summary in played.items()}
    for name in SETS:
        assert _told(leads[name]["coverage"]).replace(" (", ", ").rstrip(")") in page
    for behind in ("bald-rarity", "entropy"):
        lead = leads["clothing"][behind]
        assert lead["low"] > 0
        assert f"{lead['lead']:+.2f}, {lead['low']:+.2f} to {lead['high']:+.2f}" in page
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    camvid, clothing = (f"{leads[name]['random']['lead']:.1f}" for name in SETS)
    entropy = f"{leads['clothing']['entropy']['lead']:.1f}"
    assert (
        f"it is {camvid} points ahead of random on CamVid, level with `entropy`, and {clothing} on "
        f"clothing, {entropy} ahead of `entropy`" in readme
    )
    assert abs(leads["camvid"]["entropy"]["lead"]) < 0.1


def test_the_page_says_what_a_warm_replay_gives():
    folder = LABELS / "long" / "camvid-warm"
    pairs = json.loads((folder / "summary.json").read_text())["pairs"]
    page = " ".join((LABELS / "README.md").read_text().split())
    told = [
        [_told(pairs[policy][other]) for other in ("random", "ralis", "entropy", "coverage")]
        for policy in ("warm-s0", "warm-s1")
    ]
    of_first, of_second = page.split("Leads of the first: ")[1].split("Of the second: ")
    assert all(each in of_first for each in told[0])
    assert all(each in of_second for each in told[1])
    strategies = " ".join((REPOSITORY / "docs" / "strategies.md").read_text().split())
    for policy in ("warm-s0", "warm-s1"):
        assert _told(pairs[policy]["entropy"]).replace(" (", ", ")[:-1] in strategies.replace(
            " points", ""
        )
    trainings = [
        json.loads((LABELS.parent / "policies" / f"warm-s{seed}.json").read_text())["episodes"]
        for seed in (0, 1)
    ]
    for first, last in ((0, 15), (15, 30), (45, 60)):
        means = [100 * sum(it["score"] for it in run[first:last]) / 15 for run in trainings]
        assert f"{means[0]:.1f} and {means[1]:.1f} %" in page
