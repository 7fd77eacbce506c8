"""The demo as a newcomer runs it: real Label Studio, real images, a scripted annotator."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.cli.uploads import import_into
from ralis_backend.offline.datasets import Dataset
from ralis_backend.online.export import export_project
from ralis_backend.online.store import Store
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker.sync import Sync
from tests.e2e.pool import config
from tests.e2e.scripted import (
    check_dataset,
    check_results,
    command,
    environment,
    label_by_script,
    processes_of,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROUNDS = 1
"""A real network learns; two rounds are labelled in place, where a tiny one does."""


@pytest.fixture(scope="module")
def crops(demo_folder):
    out = demo_folder / "crops-out"
    return out, label_by_script(demo_folder, out, "crops", ROUNDS)


def test_a_script_labels_crops_and_the_segmenter_learns(crops, demo_folder):
    out, printed = crops
    check_results(out, printed, ROUNDS, 0.05)
    provenance = check_dataset(out, ROUNDS)
    assert {row["round"] for row in provenance} == {"1"}
    assert all(float(row["seconds"]) > 0 for row in provenance)
    assert processes_of(demo_folder) == []


def test_an_exported_dataset_comes_back_bit_by_bit(crops, client, tool, tmp_path):
    grown = Dataset.open(crops[0] / "dataset")
    made = client.create_project("Imported", config(*grown.class_names))
    target = tool.project(made["id"])
    assert import_into(client, tool, target, grown, print) == (len(grown.samples),) * 2
    assert import_into(client, tool, target, grown, print) == (0, 0)  # safe to repeat
    with closing(Store.open(f"sqlite:///{tmp_path}/ralis.db", tmp_path / "blobs")) as store:
        project = store.projects.register(
            target.uid, target.id, target.label_config, target.classes, target.title
        )
        Sync(store, tool, WorkerConfig(mode="in-place")).full(project)
        export_project(store, tool.image, target.uid, tmp_path / "again")
    client.delete_project(target.id)
    again = Dataset.open(tmp_path / "again")
    masks = {Path(key).name: sample.mask() for key, sample in again.samples.items()}
    assert set(masks) == {Path(key).name for key in grown.samples}
    for key, sample in grown.samples.items():
        np.testing.assert_array_equal(masks[Path(key).name], sample.mask())


@pytest.fixture
def hears_ctrl_c():
    """Let processes that are started now hear Ctrl-C, where a shell made this one ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.long
def test_ctrl_c_stops_everything_and_the_project_is_remembered(crops, demo_folder, hears_ctrl_c):
    process = subprocess.Popen(
        command(demo_folder, "--max-images", "4"),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = ""
    deadline = time.monotonic() + 200
    while "Ctrl-C" not in printed and time.monotonic() < deadline:
        line = process.stdout.readline()
        assert line or process.poll() is None, printed
        printed += line
    assert re.search(r"http://127\.0\.0\.1:\d+/projects/\d+/data", printed)
    assert "password" in printed
    assert len(processes_of(demo_folder)) >= 3
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Everything is stopped." in rest
    assert processes_of(demo_folder) == []
    assert len(json.loads((demo_folder / "demo.json").read_text())["projects"]) == 1
