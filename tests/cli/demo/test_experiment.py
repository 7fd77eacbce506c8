import json

from ralis_backend.cli.demo.evaluation import Score
from ralis_backend.cli.demo.experiment import Round, describe, results_json
from ralis_backend.core.files import write_json


def test_results_are_valid_json_without_nan(tmp_path):
    done = Round(
        1, "v1", "v1", True, 24, 0.01, Score(0.5, (0.25, float("nan")), 3),
        Score(float("nan"), (), 0), {"label": 1.0},
    )  # fmt: skip
    content = results_json(["ralis", "demo"], {"seed": 0}, ["road", "sky"], [done])
    write_json(tmp_path / "results.json", content)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["command"] == "ralis demo"
    assert stored["rounds"][0]["validation"]["class_iou"] == {"road": 0.25, "sky": None}
    assert stored["rounds"][0]["test"]["miou"] is None


def test_the_workers_state_is_told_in_words():
    training = {"state": "training", "training_version": "v2", "epoch": 3, "loss": 0.51234}
    assert describe(training) == "training v2, epoch 3, loss 0.512"
    assert describe({}) == "waiting for the worker"
