"""The policies in the repository: they load, fit what they say, and their cards are true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    formulas,
    mining,
    mining_classes,
    mining_full,
    mining_rounds,
    mining_training,
)
from ralis_backend.core import weights
from ralis_backend.core.acquisition import Aimed
from ralis_backend.core.policy import AgnosticPolicy, MisicalPolicy, PolicyDoesNotFit, RalisPolicy
from ralis_backend.core.policy.adaptive import KNOBS, AdaptivePolicy
from ralis_backend.core.policy.registry import MINER, SHIPPED, find_strategy
from ralis_backend.offline.datasets import read_classes
from tests import REPOSITORY

POLICIES = REPOSITORY / "policies"
RESULTS = REPOSITORY / "benchmarks" / "results"
COMPARISON = RESULTS / "labels" / "long" / "camvid-policies" / "summary.json"
RALIS = {short: name for short, name in SHIPPED.items() if name.startswith("ralis-")}
FOR_ANY_LABELS = ("any-set", "any-camvid", "any-aerial", "any-shuffled", "linear")
MINERS = ("misical", "misical-linear")
ADAPTIVE = "any"


def test_every_policy_in_the_folder_has_a_card_and_a_results_file():
    names = {path.stem for path in POLICIES.glob("*.safetensors")}
    assert names == {*RALIS.values(), *FOR_ANY_LABELS, *MINERS, ADAPTIVE}
    rows = (POLICIES / "README.md").read_text()
    for name in names:
        assert (POLICIES / f"{name}.json").is_file()
        assert f"({name}.md)" in rows


@pytest.mark.parametrize(("short", "name"), RALIS.items())
def test_a_ralis_policy_fits_camvid_and_nothing_else(short: str, name: str, shared: Path):
    classes = [it.name for it in read_classes(shared / "data" / "camvid" / "classes.json")]
    policy = find_strategy(short, POLICIES, classes[::-1], (90, 80))
    assert isinstance(policy, RalisPolicy)
    assert policy.name == short
    others = [it.name for it in read_classes(shared / "data" / "dubai_aerial" / "classes.json")]
    with pytest.raises(PolicyDoesNotFit):
        find_strategy(short, POLICIES, others, (90, 80))


@pytest.mark.parametrize("name", RALIS.values())
def test_the_settings_of_a_ralis_policy_lie_beside_it_and_it_was_really_trained(name: str):
    results = json.loads((POLICIES / f"{name}.json").read_text())
    policy = RalisPolicy.load(POLICIES / f"{name}.safetensors")
    assert policy.spec.training["config"] == results["config"]
    assert len(results["episodes"]) == results["config"]["episodes"]
    _, metadata = weights.load(POLICIES / f"{name}.safetensors")
    assert metadata["spec"]["classes"] == results["classes"]
    assert np.isfinite([it["reward"] for it in results["episodes"]]).all()


@pytest.mark.parametrize(("short", "name"), RALIS.items())
def test_the_card_of_a_ralis_policy_gives_the_scores_of_the_comparison(short: str, name: str):
    card = (POLICIES / f"{name}.md").read_text()
    comparison = json.loads(COMPARISON.read_text())
    for strategy, entry in comparison["strategies"].items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {strategy} |"))
        for point in entry["curve"]:
            assert f"{100 * point['miou']:.1f} (" in row
    assert f"RALIS_STRATEGY={short}`" in card
    assert "fully labelled images" in card


@pytest.mark.parametrize("name", FOR_ANY_LABELS)
def test_a_policy_for_any_labels_was_trained_as_its_results_say(name: str):
    results = json.loads((POLICIES / f"{name}.json").read_text())
    policy = find_strategy(name, POLICIES, ["a", "b"], (64, 48))
    assert isinstance(policy, AgnosticPolicy)
    assert policy.spec.training["config"] == results["config"]
    assert policy.spec.training["labelled_regions"] == results["labelled_regions"]
    assert (np.array(policy.spec.low) <= np.array(policy.spec.high)).all()
    if "curve" in results:
        assert len(results["curve"]) == results["config"]["generations"]


@pytest.mark.parametrize("name", FOR_ANY_LABELS)
def test_the_card_of_a_policy_for_any_labels_gives_what_was_measured(name: str):
    card = (POLICIES / f"{name}.md").read_text()
    results = json.loads((POLICIES / f"{name}.json").read_text())
    assert ("counted as one with an IoU of 0" in card) == ("scored_classes" not in results)
    short = {file: short for short, file in SHIPPED.items()}.get(name, name)
    short = {"any-set": "any"}.get(short, short)  # as it was called when it played
    played = 0
    for path in (RESULTS / "labels" / "long").glob("*-weight-*/summary.json"):
        pairs = json.loads(path.read_text())["pairs"]
        if short not in pairs:
            continue
        played += 1
        for other in ("random", "bald-rarity"):
            lead = pairs[short][other]
            assert f"{lead['lead']:+.2f} ({lead['low']:+.2f} to {lead['high']:+.2f})" in card
    assert played


def test_the_policy_that_adapts_was_trained_as_its_results_say_and_its_card_is_theirs():
    results = json.loads((POLICIES / f"{ADAPTIVE}.json").read_text())
    policy = find_strategy(ADAPTIVE, POLICIES, ["a", "b"], (64, 48))
    assert isinstance(policy, AdaptivePolicy)
    for name in ("config", "labelled_regions", "datasets", "seed"):
        assert policy.spec.training[name] == results[name]
    gains = dict(zip(KNOBS, policy.gains, strict=True))
    for name in KNOBS:
        np.testing.assert_allclose(gains[name], results["gains"].get(name, np.zeros(9)), atol=1e-4)
    assert (np.array(policy.spec.low) < np.array(policy.spec.high)).all()
    played = {
        path.stem: json.loads(path.read_text()) for path in sorted(formulas.RESULTS.glob("*.json"))
    }
    card = "\n".join(formulas.card(played, results))
    assert (POLICIES / f"{ADAPTIVE}.md").read_text() == card


@pytest.mark.parametrize("name", MINERS)
def test_a_policy_that_looks_for_a_class_was_trained_as_its_results_say(name: str):
    results = json.loads((POLICIES / f"{name}.json").read_text())
    policy = MisicalPolicy.load(POLICIES / f"{name}.safetensors")
    assert policy.spec.training["config"] == results["config"]
    assert policy.spec.training["labelled_regions"] == results["labelled_regions"]
    assert (np.array(policy.spec.low) <= np.array(policy.spec.high)).all()
    if policy.spec.architecture == "mlp":
        assert len(results["episodes"]) == results["config"]["episodes"]
    assert isinstance(find_strategy(f"{SHIPPED[name]}:b", POLICIES, ["a", "b"], (64, 48)), Aimed)


def test_the_page_on_mining_shows_the_tables_that_the_results_make():
    page = (REPOSITORY / "docs" / "mining-figures.md").read_text()
    rows = mining.tables(RESULTS / "mining")
    assert len(rows) > 40
    assert "\n".join(rows).strip() in page
    for further in (mining_full, mining_rounds, mining_training, mining_classes):
        rows = further.table(further.RESULTS)
        assert len(rows) > 3
        assert "\n".join(rows).strip() in page


@pytest.mark.parametrize("name", MINERS)
def test_the_card_of_a_policy_that_looks_for_a_class_gives_what_was_measured(name: str):
    card = (POLICIES / f"{name}.md").read_text()
    begins = f"| {name} |", f"| {name}, unseen |"
    rows = [row for row in mining.tables(RESULTS / "mining") if row.startswith(begins)]
    assert len(rows) >= 4
    for row in rows:
        assert row in card


def test_the_default_miner_is_at_least_as_good_as_any_that_never_saw_the_dataset():
    for path in (RESULTS / "mining").glob("*.json"):
        games = json.loads(path.read_text())["games"]
        names = {name for game in games for found in game.values() for name in found}
        gathered = {name: mining.by_seed(games, name, 1).mean() for name in names}
        unseen = [gathered[name] for name in names if name.endswith("unseen")]
        assert gathered[MINER] > max(unseen) - 0.02
