from __future__ import annotations

import pytest
import torch

from ralis_backend.core import weights
from ralis_backend.core.checkpoints import OtherRun, load, save

FACTS = {"seed": 3, "sizes": (4, 5)}  # a tuple, which JSON gives back as a list


def test_a_run_goes_on_from_what_it_saved(tmp_path):
    path = tmp_path / "new" / "checkpoint.safetensors"
    assert load(path, FACTS) is None
    save(path, {"weight": torch.arange(3.0)}, {"episode": 7}, FACTS)
    found = load(path, FACTS)
    assert found is not None
    assert torch.equal(found[0]["weight"], torch.arange(3.0))
    assert found[1] == {"episode": 7}


def test_another_runs_checkpoint_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save(path, {"weight": torch.zeros(1)}, {"episode": 7}, FACTS)
    with pytest.raises(OtherRun, match=r"other settings.*differs in seed\); delete it"):
        load(path, {**FACTS, "seed": 4})
    with pytest.raises(OtherRun, match="differs in rules, sizes"):
        load(path, {"seed": 3, "rules": 1})


def test_a_file_that_names_no_run_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    weights.save(path, {"weight": torch.zeros(1)}, {"episode": 7})
    with pytest.raises(OtherRun, match="differs in seed, sizes"):
        load(path, FACTS)


def test_a_failed_save_leaves_the_checkpoint_before_it(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save(path, {"weight": torch.zeros(1)}, {"episode": 7}, FACTS)
    with pytest.raises(weights.WeightsError, match="NaN"):
        save(path, {"weight": torch.full((1,), torch.nan)}, {"episode": 8}, FACTS)
    found = load(path, FACTS)
    assert found is not None
    assert found[1] == {"episode": 7}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_damaged_checkpoint_says_so(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"half")
    with pytest.raises(weights.WeightsError, match="truncated"):
        load(path, FACTS)


def test_what_differs_within_a_fact_is_named(tmp_path):
    path = tmp_path / "run.checkpoint"
    save(path, {}, {}, {"recipe": {"cycles": 2, "noise": {"stars": 5}}, "seed": 0})
    with pytest.raises(OtherRun, match=r"differs in recipe\.cycles, recipe\.noise\.stars\);"):
        load(path, {"recipe": {"cycles": 3, "noise": {"stars": None}}, "seed": 0})
