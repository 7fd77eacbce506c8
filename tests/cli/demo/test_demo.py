import json
import signal
import socket
import stat
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.cli.demo import pool as pools
from ralis_backend.cli.demo.evaluation import Score, score, spread
from ralis_backend.cli.demo.experiment import Round, describe, results_json
from ralis_backend.cli.demo.workplace import Workplace, port_near, stopped_by_signals
from ralis_backend.core.files import write_json
from ralis_backend.core.segmenter import SegmenterSpec, build
from ralis_backend.offline.datasets import DatasetClass, write_dataset

CLASSES = [DatasetClass("road & <rail>", (128, 64, 128)), DatasetClass('a "b"', (1, 2, 3))]


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    write_dataset(
        tmp_path / "toy",
        CLASSES,
        [
            (
                split,
                f"{split}/x{index}",
                rng.integers(0, 256, (40, 56, 3)).astype(np.uint8),
                rng.integers(0, 2, (40, 56)).astype(np.uint8),
            )
            for split, count in (("d_v", 5), ("d_r", 2), ("test", 3))
            for index in range(count)
        ],
    )
    return tmp_path / "toy"


def test_a_dataset_is_labelled_on_d_v_and_judged_on_the_others(dataset):
    pool = pools.from_dataset(dataset, max_images=3)
    assert [sample.key for sample in pool.samples] == ["d_v/x0", "d_v/x2", "d_v/x4"]
    assert (len(pool.validation), len(pool.test)) == (2, 3)
    assert pool.is_labelled


def test_a_folder_that_is_a_dataset_is_read_as_one(dataset):
    assert len(pools.from_folder(dataset, (), None).test) == 3


def test_pictures_without_masks_cannot_be_labelled_by_a_script(tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    assert not pools.from_folder(tmp_path, ("sky", "road"), None).is_labelled


def test_scenes_are_drawn_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "NUM_SCENES", {"d_v": 2, "d_r": 1, "test": 1})
    drawn = []
    for _ in range(2):
        pool = pools.from_scenes(tmp_path, 3, None, lambda done, total: drawn.append(done))
    assert drawn == [1, 2, 3, 4]
    assert (len(pool.samples), len(pool.validation), len(pool.test)) == (2, 1, 1)
    assert len(pool.dataset.classes) >= 8


def test_the_fingerprint_tells_other_images_and_modes_apart(dataset):
    pool = pools.from_dataset(dataset, None)
    assert pool.fingerprint("crops") == pools.from_dataset(dataset, None).fingerprint("crops")
    assert pool.fingerprint("crops") != pool.fingerprint("in-place")
    assert pool.fingerprint("crops") != pools.from_dataset(dataset, 2).fingerprint("crops")


@pytest.mark.parametrize(("mode", "num_boxes"), [("crops", 0), ("in-place", 1)])
def test_the_label_config_has_a_brush_per_class(mode, num_boxes):
    root = ET.fromstring(pools.label_config(CLASSES, mode, "Suggested region"))
    labels = root.findall(".//BrushLabels/Label")
    assert [label.get("value") for label in labels] == ["road & <rail>", 'a "b"']
    assert labels[0].get("background") == "#804080"
    assert len(root.findall(".//RectangleLabels/Label")) == num_boxes


def test_tasks_find_their_sample_by_the_uploaded_name(dataset):
    pool = pools.from_dataset(dataset, None)
    found = pools.samples_by_task({7: "/data/upload/1/0a1b2c3d-x3.png"}, pool.names)
    assert found[7].key == "d_v/x3"
    with pytest.raises(ValueError, match=r"task 8 shows .*other\.png"):
        pools.samples_by_task({8: "/data/upload/1/0a1b2c3d-other.png"}, pool.names)


def test_a_score_is_one_matrix_over_all_images(dataset):
    from ralis_backend.core.features import predicted_mask
    from ralis_backend.core.metrics import confusion_matrix, mean_iou

    segmenter = build(SegmenterSpec(2, encoder_weights=None))
    samples = pools.from_dataset(dataset, None).test
    seen = []
    result = score(segmenter, samples, lambda: seen.append(1))
    predictions = [predicted_mask(segmenter.forward_pass(s.image())) for s in samples]
    together = confusion_matrix(np.stack(predictions), np.stack([s.mask() for s in samples]), 2)
    assert result.miou == pytest.approx(mean_iou(together))
    assert (len(seen), result.num_images, len(result.class_ious)) == (3, 3, 2)


def test_no_image_gives_no_score():
    result = score(build(SegmenterSpec(2, encoder_weights=None)), [], lambda: None)
    assert np.isnan(result.miou)


def test_a_limited_evaluation_is_spread_over_the_split(dataset):
    samples = pools.from_dataset(dataset, None).samples
    assert [s.key for s in spread(samples, 2)] == ["d_v/x0", "d_v/x4"]
    assert len(spread(samples, 99)) == len(spread(samples, None)) == 5


def test_the_workplace_remembers_its_credentials_and_hides_them(tmp_path):
    first = Workplace.open(tmp_path / "demo")
    first.projects["abc"] = 3
    first.save()
    again = Workplace.open(tmp_path / "demo")
    assert again == first
    assert len(again.token) == 40
    mode = stat.S_IMODE((tmp_path / "demo/demo.json").stat().st_mode)
    assert mode == 0o600


def test_a_damaged_workplace_says_what_to_do(tmp_path):
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(ValueError, match="delete the folder"):
        Workplace.open(tmp_path)


def test_a_taken_port_is_avoided():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port_near(port) != port
    assert port_near(port) == port


def test_sigterm_ends_the_demo_like_ctrl_c():
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "a", "--dataset", "b"], "exclude each other"),
        (["--mode", "sideways"], "choose crops or in-place"),
        (["--region-size", "12"], "is not height x width"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo", *arguments])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
    assert not (tmp_path / ".demo").exists()
