from __future__ import annotations

import json
import re
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.cli.errors import is_expected
from ralis_backend.core.segmenter import load
from tests.tiny_segmenter import TinySegmenter

SHORT = (
    "--init", "random", "--cycles", "2", "--updates", "3", "--crop", "32x32", "--batch", "2",
    "--device", "cpu",
)  # fmt: skip
FEW_MAPS = ("--strides", "16,8", "--maps", "3")


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_segmenters, tiny_dataset):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RALIS_ARCHITECTURE", TinySegmenter.kind)
    monkeypatch.setenv("RALIS_ENCODER_WEIGHTS", "none")

    def invoke(*arguments: str):
        command = ["train-segmenter", "--dataset", str(tiny_dataset.root), "--out", "mine"]
        few = () if "--reward" in arguments else FEW_MAPS
        return CliRunner().invoke(app, [*command, *SHORT, *few, *arguments])

    return invoke


def test_a_segmenter_is_trained_from_the_command_line(run, tmp_path):
    done = run("--reward", "image", *FEW_MAPS, "--wrong", "0.2", "--stars", "5", "--seed", "4")
    assert done.exit_code == 0, done.output
    assert re.search(r"mIoU [\d.]+ -> [\d.]+ % on test", done.output)
    assert load(tmp_path / "mine.safetensors").num_classes == 3
    results = json.loads((tmp_path / "mine.json").read_text())
    assert results["seed"] == 4
    assert results["recipe"]["noise"] == {"wrong_share": 0.2, "num_stars": 5}
    assert [point["updates"] for point in results["curve"]] == [0, 3, 6]


def test_ctrl_c_leaves_a_run_that_goes_on(run, tmp_path):
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    from ralis_backend.offline import segmenter_training

    real = segmenter_training.train
    with patch.object(segmenter_training, "train", interrupted):
        stopped = run()
    assert stopped.exit_code == 130
    assert "the same command goes on" in stopped.output
    assert "mine.json" in stopped.output
    assert len(json.loads((tmp_path / "mine.json").read_text())["curve"]) == 2
    done = run()
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "mine.json").read_text())["curve"]) == 3


def test_ctrl_c_before_the_first_cycle_is_done_says_that_nothing_is_kept(run, tmp_path):
    from ralis_backend.offline import segmenter_training

    with patch.object(segmenter_training, "train", side_effect=KeyboardInterrupt):
        stopped = run()
    assert stopped.exit_code == 130
    assert "nothing is kept; the same command begins anew" in " ".join(stopped.output.split())
    assert not (tmp_path / "mine.json").exists()


def test_what_another_run_differs_in_is_named(run):
    assert run().exit_code == 0
    other = run("--cycles", "3", "--batch", "1")
    assert "recipe.cycles, recipe.finetune.batch_size" in str(other.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strides", "8,16"), "must fall"),
        (("--strides", ""), "whole numbers separated by commas"),
        (("--strides", "eight"), "whole numbers separated by commas"),
        (("--crop", "32"), "--crop '32' must look like"),
        (("--crop", "30x30"), "multiples of 32"),
        (("--reward", "money"), "unknown reward 'money'"),
        (("--init", "missing.safetensors"), "nor the file of a segmenter"),
        (("--out", "learned.json"), "leave out .json"),
        (("--device", "cuda:77"), "device 'cuda:77' cannot be used"),
        (("--reward", "pixel", "--wrong", "0.5"), "--wrong cannot go with --reward pixel"),
        (
            ("--reward", "none", "--wrong", "0", "--stars", "5", "--strides", "8"),
            "--strides and --wrong and --stars cannot go with --reward none",
        ),
        (("--reward", "pixel", "--strides", "8"), "--strides cannot go with --reward pixel"),
        (("--reward", "none", "--maps", "4"), "--maps cannot go with --reward none"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(run, arguments, message):
    failed = run(*arguments)
    assert isinstance(failed.exception, ValueError)
    assert message in str(failed.exception)


def test_a_path_that_looks_like_markup_is_shown_as_it_is(run, tmp_path):
    out = tmp_path / "[red]x" / "[" / "]"
    done = run("--out", str(out))
    assert done.exit_code == 0, done.output
    assert f"{out}.safetensors is the segmenter" in done.output.replace("\n", "")


def test_a_loss_that_is_no_number_is_an_expected_error(run):
    from ralis_backend.offline import segmenter_training

    failing = FloatingPointError("the loss is not finite; lower learning_rate")
    with patch.object(segmenter_training, "train", side_effect=failing):
        stopped = run()
    assert stopped.exit_code == 1
    assert is_expected(stopped.exception)
