from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.cli.benchmark import _entrant, _label_cost
from ralis_backend.cli.benchmark_display import duration
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.policy.registry import DEFAULT
from ralis_backend.offline.benchmark.run import Entrant

SMALL = (
    "--strategies", "random,entropy", "--seeds", "1", "--budgets", "8,12", "--region-size", "32x32",
    "--jobs", "1", "--updates", "10",
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Features of the tiny dataset are computed by the first test that needs them."""
    return tmp_path_factory.mktemp("points")


@pytest.fixture
def run(tiny_dataset, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RALIS_ENCODER_WEIGHTS", "none")

    def invoke(*options: str):
        folders = ("--dataset", str(tiny_dataset.root), "--cache", str(cache), "--out", "results")
        fixed = ("benchmark", *folders)
        return CliRunner().invoke(app, [*fixed, *SMALL, *options])

    return invoke


@pytest.mark.e2e
def test_a_comparison_says_what_it_did_and_how_to_repeat_it(run, tmp_path):
    done = run(
        "--strategies",
        "random,equal,oracle-rarity",
        "--initial",
        "k-center",
        "--initial-regions",
        "4",
        "--class-weight-power",
        "0.5",
    )
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert content["config"]["initial"] == "k-center"
    assert content["arena"]["head"]["class_weight_power"] == 0.5
    assert content["arena"]["measured_on"] == "test"
    assert content["strategies"]["oracle-rarity"]["label_cost"] is None
    text = (tmp_path / "results" / "report.md").read_text()
    assert "ralis benchmark --dataset" in text
    assert "--initial k-center" in text
    assert "--test-images" not in text
    other = run("--class-weight-power", "0")
    assert "was played by other rules" in str(other.exception)
    assert "head is" in str(other.exception)


@pytest.mark.e2e
def test_the_segmenter_itself_plays_from_the_command_line(run, tmp_path, monkeypatch):
    small = FinetuneConfig(batch_size=1, crop_size=(32, 32))
    monkeypatch.setattr("ralis_backend.offline.benchmark.arenas.RECIPE", small)
    done = run("--fidelity", "full", "--updates", "4", "--test-images", "1",
               "--image-scale", "0.5", "--regions-per-step", "6", "--budgets", "2,3",
               "--strategies", "random")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "4 games of the full segmenter take about" in done.output
    content = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert content["arena"]["test_images"] == 1
    assert content["arena"]["region_size"] == [16, 16]
    assert content["config"]["final_updates"] == 4


def test_ctrl_c_says_that_the_same_command_goes_on(run, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ralis_backend.offline.benchmark.run.play_all", stop)
    done = run()
    assert done.exit_code == 130
    assert "the same command goes on" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategies", "random,best"], "unknown strategy 'best'; expected one of "),
        (["--strategies", "oracle-best"], "oracle-coverage, oracle-error, which know the labels"),
        (["--strategies", "random,random"], "'random' is named twice"),
        (["--strategies", ","], "no strategy is named"),
        (["--budgets", "8,99"], "exceeds the pool's 30 regions"),
        (["--budgets", "8,many"], "must be whole numbers"),
        (["--region-size", "0x8"], "must look like 90x80"),
        (["--region-size", "90x80"], "choose smaller regions, as --region-size 64x80"),
        (["--fidelity", "slow"], "choose fast or full"),
        (["--initial", "best"], "expected one of random, k-center"),
        (["--image-scale", "0.5"], "lower the cost of --fidelity full"),
        (["--measure-on", "nowhere"], "no split 'nowhere'"),
    ],
)
def test_wrong_options_are_refused_before_any_game(run, tmp_path, options, message):
    done = run(*options)
    assert isinstance(done.exception, ValueError)
    assert message in str(done.exception)
    assert not (tmp_path / "results" / "runs").exists()


def test_a_policy_costs_the_labels_of_three_splits():
    card = {
        "num_images": {"d_s": 10, "d_t": 100, "d_v": 257, "d_r": 101, "test": 233},
        "num_regions": {"pool": 2400, "state_set": 240},
    }
    assert _label_cost(card) == 24 * 211
    assert _label_cost({"labelled_regions": {"camvid": 2400, "aerial": 1536}}) == 3936


def test_a_policy_that_looks_for_a_class_costs_its_labels_as_well(tmp_path):
    for name in ("mine", "seeks"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
        (tmp_path / f"{name}.json").write_text('{"labelled_regions": {"tiny": 30}}')
    assert _entrant("mine", tmp_path) == Entrant("mine", 30, tmp_path / "mine.safetensors")
    found = _entrant("seeks:box", tmp_path)
    assert found == Entrant("seeks:box", 30, tmp_path / "seeks.safetensors")
    assert _entrant("seeker:box", tmp_path) == Entrant("seeker:box")
    assert _entrant("default", tmp_path) == Entrant("default", stands_for=DEFAULT)


def test_durations_are_short():
    assert duration(20) == "0 min"
    assert duration(3700) == "1 h 2 min"
