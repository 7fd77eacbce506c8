from __future__ import annotations

import json

import pytest

from ralis_backend.core.policy import AgnosticPolicy
from ralis_backend.offline.training.evolution import evolve
from tests.offline.training.any_config import CONFIG


@pytest.mark.e2e  # slow
def test_a_training_that_was_interrupted_goes_on_as_if_it_was_not(source, tmp_path):
    def told(progress: object) -> None:
        raise KeyboardInterrupt

    whole = evolve({"tiny": source}, CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evolve({"tiny": source}, CONFIG, tmp_path / "halved-0.5", on_progress=told)
    halved = evolve({"tiny": source}, CONFIG, tmp_path / "halved-0.5")
    for one, other in zip(whole.network.parameters(), halved.network.parameters(), strict=True):
        assert (one == other).all()
    facts = json.loads((tmp_path / "halved-0.5.json").read_text())
    assert facts["labelled_regions"] == {"tiny": 30}
    assert facts["scored_classes"] == "shown"
    assert len(facts["curve"]) == 2
    saved = AgnosticPolicy.load(tmp_path / "halved-0.5.safetensors")
    assert len(saved.spec.low) == len(saved.spec.high) == 18
    assert (saved.spec.low[-1], saved.spec.high[-1]) == (0, 1)  # progress is no sign of drift
    with pytest.raises(ValueError, match="other settings"):
        evolve({"tiny": source}, CONFIG, tmp_path / "halved-0.5", seed=1)
