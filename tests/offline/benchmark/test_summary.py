from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.offline.benchmark.agreement import rank_agreement
from ralis_backend.offline.benchmark.markdown import machine, report
from ralis_backend.offline.benchmark.plot import draw
from ralis_backend.offline.benchmark.summary import PoolCosts, summary

NUM_REGIONS = 400
POOL = PoolCosts(
    np.tile([30, 20, 10, 0], (NUM_REGIONS, 1)), np.where(np.arange(NUM_REGIONS) < 100, 10, 20)
)


def make_run(name: str, seed: int, mious: list[float]) -> dict:
    curve = [
        {"regions": regions, "miou": miou, "ious": [miou, None, miou / 2], "class_entropy": 1.0}
        for regions, miou in zip((100, 200, 400), mious, strict=True)
    ]
    return {
        "strategy": name, "seed": seed, "curve": curve, "seconds_per_selection": 0.1,
        "seconds": 60.0, "labelled": list(range(NUM_REGIONS)),
    }  # fmt: skip


def summed(curves: dict[str, list[list[float]]], pool: PoolCosts = POOL, **changes) -> dict:
    runs = [
        make_run(name, seed, mious)
        for name, seeds in curves.items()
        for seed, mious in enumerate(seeds)
    ]
    return summary(runs, [0.4, 0.5, 0.6], "toy", pool, **changes)


def with_facts(content: dict) -> dict:
    """As `run` completes it."""
    rules = {
        "initial": "random", "initial_regions": 48, "regions_per_step": 24, "pool_size": 10,
        "updates_per_step": 60, "initial_updates": 200, "final_updates": 600,
    }  # fmt: skip
    arena = {"fidelity": "fast", "pool_regions": NUM_REGIONS, "head": {"hidden": 128}}
    return content | {"config": rules, "arena": arena, "absent_classes": [1]}


def test_a_summary_by_hand():
    content = summed({"a": 3 * [[0.2, 0.4, 0.5]], "b": 3 * [[0.1, 0.2, 0.3]]})
    assert content["all_labels_miou"] == 0.5
    entry = content["strategies"]["a"]
    assert entry["curve"][1] == {"regions": 200, "miou": 0.4, "low": 0.4, "high": 0.4}
    wanted = round(200 * 2 ** ((0.96 * 0.5 - 0.4) / 0.1), 1)
    assert entry["regions_to"]["0.96"] == {
        "value": wanted, "low": wanted, "high": wanted, "reached": 3,
    }  # fmt: skip
    assert content["strategies"]["b"]["regions_to"]["0.90"] == {
        "value": None, "low": None, "high": None, "reached": 0,
    }  # fmt: skip
    assert entry["nauc"]["value"] == pytest.approx((0.3 + 0.45) / 2 / 0.5)
    assert entry["clicks"] == [1000, 3000, 7000]
    assert entry["clicks_to"]["0.90"]["value"] == round(3000 * (7 / 3) ** 0.5)
    assert content["rare_classes"] == [2]
    assert entry["rare_iou"][2]["value"] == 0.25
    assert entry["seed_mious"]["1"] == [0.2, 0.4, 0.5]
    lead = content["pairs"]["a"]["b"]
    assert lead["wins"] == lead["seeds"] == 3
    assert lead["lead"] == pytest.approx(100 * (0.375 - 0.2))
    assert lead["regions_ratio"]["0.96"]["value"] is None
    assert lead["regions_ratio"]["0.96"]["high"] == pytest.approx(wanted / 400, abs=1e-3)
    assert content["pairs"]["b"]["a"]["wins"] == 0
    json.dumps(content, allow_nan=False)


def test_seeds_that_differ_together_leave_a_pair_exact():
    rng = np.random.default_rng(0)
    shift = 0.05 * rng.normal(size=(8, 1))
    curves = np.array([[0.2, 0.4, 0.5]]) + shift
    content = summed({"a": (curves + 0.02).tolist(), "b": curves.tolist()})
    point = content["strategies"]["a"]["curve"][0]
    assert point["high"] - point["low"] > 0.02
    assert content["pairs"]["a"]["b"]["low"] == content["pairs"]["a"]["b"]["high"] == 2.0


def test_a_ratio_of_labels_by_hand():
    content = summed({"a": 2 * [[0.28, 0.48, 0.5]], "b": 2 * [[0.2, 0.38, 0.48]]})
    pair = content["pairs"]["a"]["b"]
    assert pair["regions_ratio"]["0.96"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert pair["clicks_ratio"]["0.96"]["value"] == pytest.approx(3000 / 7000, abs=1e-4)


def test_break_even_compares_with_the_best_strategy_that_cost_no_label():
    curves = {
        "mine": [[0.28, 0.48, 0.5]], "random": [[0.2, 0.38, 0.47]], "entropy": [[0.28, 0.47, 0.48]],
        "worse": [[0.1, 0.2, 0.3]], "oracle": [[0.5, 0.5, 0.5]],
    }  # fmt: skip
    content = summed(curves, label_costs={"mine": 1000, "worse": 1000, "oracle": None})
    assert content["strategies"]["mine"]["break_even"] == {
        "against": "entropy", "regions_saved": 200.0, "datasets": 5.0,
    }  # fmt: skip
    assert content["strategies"]["worse"]["break_even"]["datasets"] is None
    assert "break_even" not in content["strategies"]["random"]
    assert "break_even" not in content["strategies"]["oracle"]


def test_strategies_of_other_seeds_are_refused():
    runs = [make_run("a", 0, [0.1, 0.2, 0.3]), make_run("b", 1, [0.1, 0.2, 0.3])]
    with pytest.raises(ValueError, match=r"b was played with seeds \[1\] and a with \[0\]"):
        summary(runs, [0.5], "toy", POOL)


def test_the_report_says_what_was_done_and_found():
    content = summed(
        {"mine": 3 * [[0.3, 0.48, 0.5]], "random": 3 * [[0.1, 0.2, 0.3]]}, label_costs={"mine": 99}
    )
    text = report(with_facts(content), ("road", "sky", "pole"), "ralis benchmark --x", machine())
    assert "| mine | 30.0 (30.0–30.0) | 48.0 (48.0–48.0)" in text
    assert "absent and not counted: sky" in text
    assert "Rare classes (the rarest third of those in the pool, by pixels): pole" in text
    assert "| head.hidden | 128 |" in text
    assert "ralis benchmark --x" in text
    assert "3 of 3" in text
    assert "Break-even of `mine`: training it used 99 labelled regions" in text
    assert "background" not in text


def test_a_background_is_no_rare_class_and_the_report_says_that_it_is_not_scored():
    pool = replace(POOL, background=2)
    content = with_facts(summed({"mine": 2 * [[0.3, 0.4, 0.5]]}, pool=pool))
    assert content["rare_classes"] == [1]
    content["arena"]["background"] = 2
    text = report(content, ("road", "sky", "soil"), "ralis benchmark", "a machine")
    assert "the rarest third of those in the pool, without the background, by pixels): sky" in text
    assert "that it holds, without the background, soil (absent" in text


def test_many_strategies_are_drawn(tmp_path):
    curves = {f"strategy-{index}": 2 * [[0.1, 0.2, 0.3 + index / 100]] for index in range(12)}
    draw(summed(curves), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_agreement_of_two_summaries_by_hand():
    first = summed({"a": [[0.1, 0.2, 0.3]], "b": [[0.2, 0.3, 0.4]], "c": [[0.3, 0.4, 0.5]]})
    other = summed({"a": [[0.1, 0.2, 0.5]], "b": [[0.2, 0.3, 0.4]], "c": [[0.3, 0.4, 0.3]]})
    found = rank_agreement(first, other)
    assert found["spearman"]["100"]["value"] == 1
    assert found["spearman"]["400"]["value"] == -1
    assert found["spearman_of_areas"]["value"] == 1
    with pytest.raises(ValueError, match="at least three strategies"):
        rank_agreement(first, summed({"a": [[0.1, 0.2, 0.3]]}))


def test_agreement_is_uncertain_where_seeds_disagree():
    rng = np.random.default_rng(0)
    noisy = {name: (0.3 + 0.05 * rng.normal(size=(5, 3))).tolist() for name in "abcd"}
    found = rank_agreement(summed(noisy), summed(noisy))["spearman"]["200"]
    assert found["value"] == 1
    assert found["low"] < 0.5
