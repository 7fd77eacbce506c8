"""The policies in the repository: they load, fit CamVid, and their cards say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core import weights
from ralis_backend.core.policy import PolicyDoesNotFit, RalisPolicy
from ralis_backend.offline.datasets import read_classes
from ralis_backend.online.policies import SHIPPED, find_strategy

ROOT = Path(__file__).resolve().parent.parent
POLICIES = ROOT / "policies"
COMPARISON = ROOT / "benchmarks" / "results" / "policies" / "comparison.json"


@pytest.mark.parametrize(("short", "name"), SHIPPED.items())
def test_a_shipped_policy_fits_camvid_and_nothing_else(short: str, name: str, shared: Path):
    classes = [it.name for it in read_classes(shared / "data" / "camvid" / "classes.json")]
    policy = find_strategy(short, POLICIES, classes[::-1], (90, 80))
    assert isinstance(policy, RalisPolicy)
    assert policy.name == short
    others = [it.name for it in read_classes(shared / "data" / "dubai_aerial" / "classes.json")]
    with pytest.raises(PolicyDoesNotFit):
        find_strategy(short, POLICIES, others, (90, 80))


@pytest.mark.parametrize("name", SHIPPED.values())
def test_its_settings_lie_beside_it_and_it_was_really_trained(name: str):
    results = json.loads((POLICIES / f"{name}.json").read_text())
    policy = RalisPolicy.load(POLICIES / f"{name}.safetensors")
    assert policy.spec.training["config"] == results["config"]
    assert len(results["episodes"]) == results["config"]["episodes"]
    _, metadata = weights.load(POLICIES / f"{name}.safetensors")
    assert metadata["spec"]["classes"] == results["classes"]
    assert np.isfinite([it["reward"] for it in results["episodes"]]).all()


@pytest.mark.parametrize(("short", "name"), SHIPPED.items())
def test_its_card_gives_the_scores_of_the_comparison(short: str, name: str):
    card = (POLICIES / f"{name}.md").read_text()
    comparison = json.loads(COMPARISON.read_text())
    for strategy, entry in comparison["strategies"].items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {strategy} |"))
        for point in entry["curve"]:
            assert f"{100 * point['miou']:.1f} (" in row
    assert f"RALIS_STRATEGY={short}`" in card
    assert "fully labelled images" in card
