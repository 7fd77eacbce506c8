from __future__ import annotations

from ralis_backend.core.policy import AgnosticPolicy
from ralis_backend.offline.training.linear import fit_linear
from tests.offline.training.any_config import CONFIG


def test_the_linear_ranker_is_fitted_and_saved(source, tmp_path):
    policy = fit_linear({"tiny": source}, CONFIG, tmp_path / "linear-0.5")
    saved = AgnosticPolicy.load(tmp_path / "linear-0.5.safetensors")
    assert saved.spec.architecture == "linear"
    assert saved.spec.training["scored_classes"] == "shown"
    assert (saved.network.score.weight == policy.network.score.weight).all()
    assert saved.network.score.weight.abs().max() > 0
