import json

from ralis_backend.cli.demo.evaluation import Score
from ralis_backend.cli.demo.experiment import Round, describe, results_json, told
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
    training["epoch"] = 4 / 3
    assert describe(training) == "training v2, epoch 1.33, loss 0.512"
    assert describe({}) == "waiting for the worker"


def test_a_round_says_what_changed_and_what_comes_next():
    nothing = Score(float("nan"), (), 0)
    first = Round(1, "v1", "v1", True, 24, 0.01, Score(0.4, (), 3), nothing, {"label": 1.0})
    second = Round(2, "v1", "v2", False, 48, 0.02, Score(0.43, (), 3), nothing, {"label": 2.5})
    assert told(first, None, 2).splitlines() == [
        "[bold]Round 1: v1 is in use[/bold], 24 labelled regions (+24), 1.00 % of the pool",
        "  validation mIoU 40.0",
        "  seconds: label 1.0",
        "  next: round 2 of 2, the regions from which v1 would learn most",
    ]
    assert told(second, first, 2).splitlines() == [
        "[bold]Round 2: v1 is in use[/bold], 48 labelled regions (+24), 2.00 % of the pool",
        "  v2 was worse on the held-out regions and is not used",
        "  validation mIoU 40.0 → 43.0 (+3.0)",
        "  seconds: label 2.5",
        "  next: the learning curve, and the labels as a dataset",
    ]
