from __future__ import annotations

import pytest

from ralis_backend.core import weights
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec
from ralis_backend.core.policy.registry import (
    DEFAULT,
    check_policy_name,
    check_usable,
    find_strategy,
    policy_digest,
    unused_policies,
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coverage", "'coverage' would never be used: .* the strategy 'coverage'"),
        ("default", f"the strategy '{DEFAULT}'"),
        ("placebo-untrained", "the strategy 'placebo-untrained'"),
        ("ralis", "the policy 'ralis-camvid'"),
        ("ralis-wiou", "the policy 'ralis-camvid-wiou'"),
        ("a:b", "what follows ':' in the name of a strategy is a class"),
    ],
)
def test_a_name_under_which_no_policy_is_found_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        check_policy_name(name)


@pytest.mark.parametrize("name", ["mine", "any", "linear", "misical", "ralis-camvid", "any-0.5"])
def test_a_name_under_which_a_policy_is_found_is_free(name, tmp_path):
    check_policy_name(name)
    AgnosticPolicy.untrained(AgnosticSpec(), 3, name).save(tmp_path / f"{name}.safetensors")
    found = find_strategy(name, tmp_path, ["a", "b"], (8, 8))
    assert isinstance(found, AgnosticPolicy)
    assert unused_policies(tmp_path) == []


def test_files_that_are_never_used_are_named(tmp_path):
    for name in ("coverage", "mine", "ralis", "a:b"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    coverage, ralis, colon = unused_policies(tmp_path)
    assert "coverage.safetensors is never used: 'coverage' stands for the strategy" in coverage
    assert "ralis.safetensors is never used: 'ralis' stands for the policy 'ralis-ca" in ralis
    assert "a:b.safetensors is never used: what follows ':' is a class; rename" in colon


def test_a_policy_is_known_by_its_file_and_a_formula_by_its_name(tmp_path):
    path = tmp_path / "mine.safetensors"
    AgnosticPolicy.untrained(AgnosticSpec(), 0, "mine").save(path)
    first = policy_digest("mine", tmp_path)
    assert first == policy_digest("mine:Car", tmp_path)
    AgnosticPolicy.untrained(AgnosticSpec(), 1, "mine").save(path)
    assert policy_digest("mine", tmp_path) not in (None, first)
    assert policy_digest("coverage", tmp_path) is None
    assert policy_digest("gone", tmp_path) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("presence", "'presence' looks for one class, named as 'presence:CLASS'"),
        ("presence:", "named as 'presence:CLASS'"),
        ("misical", "'misical' looks for one class"),
        ("entropy:Car", "'entropy' looks for no single class; leave out ':Car'"),
        ("nobody", "unknown strategy 'nobody'"),
        ("damaged", "damaged.safetensors is truncated"),
        ("segmenter", "segmenter.safetensors holds a segmenter, no policy"),
    ],
)
def test_what_no_project_could_rank_with_is_refused_at_once(tmp_path, name, message):
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    weights.save(tmp_path / "segmenter.safetensors", {}, {"kind": "segmenter"})
    with pytest.raises(ValueError, match=message):
        check_usable(name, tmp_path)


@pytest.mark.parametrize("name", ["default", "entropy", "presence:Car", "ralis", "misical:Car"])
def test_what_a_project_can_rank_with_is_usable(tmp_path, name):
    check_usable(name, tmp_path)
