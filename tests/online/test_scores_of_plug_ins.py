"""What a plug-in strategy gives for scores is taken as it is meant, or refused saying why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core.acquisition import STRATEGIES, PoolState, Scorer
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy.registry import find_strategy
from ralis_backend.online.choosing import ChosenStrategy
from ralis_backend.online.ranking import reasons_of, scores_of, values_of
from ralis_backend.online.store.tables import Project


@pytest.mark.parametrize(
    "given",
    [[1, 2, 3], (1.0, 2.0, 3.0), np.arange(1, 4, dtype=np.uint8), np.float64([1, 2, 3])],
)
def test_numbers_of_any_kind_are_scores(given: object):
    values = values_of(given, 3)
    assert values.dtype == np.float32
    assert values.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.zeros(4), r"shape \(4,\), expected \(3,\)"),
        (np.zeros((3, 1)), r"shape \(3, 1\)"),
        (np.float32(1), r"shape \(\)"),
        (None, r"shape \(\)"),
        ([], r"shape \(0,\)"),
        (["1", "2", "3"], "type <U1, expected real numbers"),
        ([1j, 2, 3], "type complex128"),
        ([object(), 2, 3], "type object"),
        ([None, 2.0, 3.0], "type object"),
    ],
)
def test_what_is_no_number_for_each_region_is_refused(given: object, why: str):
    with pytest.raises(ValueError, match=why):
        values_of(given, 3)


class _Plug(Scorer):
    name = "plug"

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        return [0.5] * (len(actions) + 1)  # type: ignore[return-value]


@pytest.mark.parametrize("is_pointwise", [False, True])
def test_scores_are_checked_whether_regions_are_looked_at_alone_or_together(is_pointwise: bool):
    plug = _Plug()
    plug.is_pointwise = is_pointwise
    features = RegionFeatures(5, {})
    state = PoolState(np.zeros((0, 3)), None, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"shape \(4,\), expected \(3,\)"):
        scores_of(plug, state, features, np.arange(3))


def _break(_plug: object) -> str:
    raise RuntimeError("no such thing")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"name": property(_break)}, "breaks in saying what it is: no such thing"),
        ({"needs": property(_break)}, "breaks in saying what it is: no such thing"),
        ({"is_trained": property(_break)}, "breaks in saying what it is: no such thing"),
        ({"name": None}, "its name is None, expected text"),
        ({"name": "\ud800"}, "expected text"),
        ({"needs": {"entropy"}}, "expected `Needs`"),
    ],
)
def test_a_strategy_that_does_not_say_what_it_is_cannot_be_used(
    said: dict[str, object], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setitem(STRATEGIES._things, "plug", type("_Odd", (_Plug,), said)())
    with pytest.raises(ValueError, match=why):
        find_strategy("plug", tmp_path, ["dark", "bright"], (32, 32))


def test_reasons_can_be_stored_whatever_characters_they_have():
    plug = _Plug()
    plug.reasons = lambda *_: ["half \ud800", "nul \0"]  # type: ignore[method-assign]
    features = RegionFeatures(2, {})
    state = PoolState(np.zeros((0, 3)), None, 2, np.random.default_rng(0))
    project = Project(tool_id=1, classes=[])
    assert reasons_of(ChosenStrategy(plug), state, features, project) == ["half ?", "nul ?"]
