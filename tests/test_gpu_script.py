"""`make gpu`, tried with tiny sizes on the CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from importlib.metadata import packages_distributions

import numpy as np
import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu.data import copy_dataset, copy_hub
from benchmarks.gpu.measurements import MEASUREMENTS
from benchmarks.gpu.query_step import query_step
from benchmarks.gpu.timing import Setting
from ralis_backend.offline.benchmark.arenas import ArenaConfig
from ralis_backend.offline.datasets import Dataset
from tests import REPOSITORY

TINY = Setting(torch.device("cpu"), is_tiny=True)
IN_THE_IMAGE = {
    "torch", "torchvision", "triton", "numpy", "pillow", "setuptools", "filelock", "fsspec",
    "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "typing-extensions",
}  # fmt: skip


def _python(source: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source)]


@pytest.mark.e2e  # seconds each
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_each_measurement_gives_finite_numbers_as_json(name):
    result = json.loads(json.dumps(MEASUREMENTS[name](TINY), allow_nan=False))
    assert result


def test_the_authors_algorithm_gives_the_numbers_of_our_query_step():
    result = query_step(TINY)
    assert result["same_picks"] == result["pools"]
    assert result["max_entropy_difference"] < 1e-4
    assert result["pixels_of_another_class"] == 0
    assert result["histogram_variation"] < 0.01


def test_a_part_of_a_dataset_and_the_weights_can_be_carried(tmp_path, shared):
    copy_dataset(shared / "data/camvid", tmp_path / "camvid", ("d_s",), 3)
    part, whole = (Dataset.open(path) for path in (tmp_path / "camvid", shared / "data/camvid"))
    assert part.splits["d_s"] == whole.splits["d_s"]
    assert len(part.splits["test"]) == 3
    assert len(part.samples) == 13
    np.testing.assert_array_equal(part.split("test")[2].mask(), whole.split("test")[155].mask())
    copy_hub(shared / "hf-cache", tmp_path / "hub")
    (weights,) = (tmp_path / "hub").glob("models--*/snapshots/*/model.safetensors")
    assert not weights.is_symlink()
    assert weights.stat().st_size > 2**20
    with pytest.raises(ValueError, match=r"has no d_x; it has d_s"):
        copy_dataset(shared / "data/camvid", tmp_path / "other", ("d_x",), 3)


@pytest.mark.parametrize("count", [3, 58, 100, 1000])  # of 233
def test_a_benchmark_measures_there_on_the_images_it_measures_on_here(tmp_path, shared, count):
    whole = Dataset.open(shared / "data/camvid")
    copy_dataset(shared / "data/camvid", tmp_path / "camvid", ("d_s",), count)
    here, there = (
        ArenaConfig(dataset, (90, 80), "full", test_images=count).test_samples()
        for dataset in (whole, Dataset.open(tmp_path / "camvid"))
    )
    assert [sample.key for sample in there] == [sample.key for sample in here]
    assert len(here) == min(count, 233)


def test_a_measurement_is_the_last_line_its_process_prints():
    result = command.measured_apart(_python("print('noise'); print('{\"rate\": 2}')"), 60)
    assert result["rate"] == 2
    assert 0 <= result["seconds"] < 60


@pytest.mark.parametrize(
    ("source", "bound_s", "message"),
    [
        ("raise ValueError('out of memory')", 60, "code 1: .*out of memory"),
        ("import os; os.abort()", 60, "code -6"),
        ("import time; time.sleep(60)", 0.2, "bound of 0.2 s"),
        ("print('no number')", 60, "no number"),
        ("", 60, "printed nothing"),
        ("", 0, "no time was left"),
    ],
)
def test_a_measurement_that_fails_or_hangs_says_so(source, bound_s, message):
    result = command.measured_apart(_python(source), bound_s)
    assert list(result) == ["error"]
    assert re.search(message, result["error"], re.DOTALL)


@pytest.mark.parametrize(("failing", "code"), [("training", 1), ("none", 0)])
def test_a_failure_is_written_down_and_the_others_still_run(
    failing, code, monkeypatch, tmp_path, capsys
):
    def fake(name, setting):
        return _python("raise ValueError" if name == failing else "print('{\"rate\": 2}')")

    monkeypatch.setattr(command, "_command", fake)
    monkeypatch.setattr(command, "_tests", lambda bound_s: {"summary": "3 passed"})
    names = ["ranking-480x360", "training", "game"]
    out = tmp_path / "results" / "gpu.json"
    arguments = ["--device", "cpu", "--tiny", "--out", str(out), "--only", *names]
    assert command.main(arguments) == code
    report = json.loads(out.read_text())
    assert list(report["measurements"]) == names
    assert [name for name in names if "error" in report["measurements"][name]] == [failing][:code]
    assert {"device", "torch", "cuda", "python", "commit"} <= set(report)


def test_failed_tests_fail_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "_command", lambda name, setting: _python("print('{}')"))
    monkeypatch.setattr(command, "_tests", lambda bound_s: {"error": "1 failed"})
    arguments = ["--device", "cpu", "--tiny", "--out", str(tmp_path / "gpu.json")]
    assert command.main([*arguments, "--only", "game"]) == 1


def test_without_cuda_it_says_how_to_try_it(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="--device cpu --tiny"):
        command.main([])


@pytest.mark.e2e  # loads everything anew
def test_the_wheels_and_the_image_are_all_that_it_imports():
    listed = (REPOSITORY / "benchmarks" / "gpu" / "wheels.txt").read_text().splitlines()
    names = {line for line in listed if line and not line.startswith("#")}
    allowed = names | IN_THE_IMAGE | {"ralis-backend"}
    missing = [
        module
        for module, owners in packages_distributions().items()
        if not any(
            owner.lower().replace("_", "-") in allowed or owner.startswith(("nvidia", "cuda"))
            for owner in owners
        )
    ]
    source = f"""
        import sys
        sys.modules.update(dict.fromkeys({missing!r}))  # as if they were not installed
        import benchmarks.gpu.measurements, tests.conftest, segmentation_models_pytorch
        import tests.gpu.test_core, tests.gpu.test_games, tests.gpu.test_stand_in
    """
    ended = subprocess.run(_python(source), cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
