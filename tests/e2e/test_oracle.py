"""The demo as a newcomer runs it: real Label Studio, real images, a scripted annotator."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.cli.demo.workplace import Workplace, port_near
from ralis_backend.cli.uploads import import_into
from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.offline.datasets import Dataset
from ralis_backend.online.export import export_project
from ralis_backend.online.store import Store
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker.sync import Sync
from tests.e2e.conftest import LABEL_STUDIO, missing

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CAMVID = Path(os.environ.get("RALIS_SHARED", "../shared")) / "data/camvid"
ROUNDS, REGIONS = 3, 6


def command(folder, *arguments):
    return [
        *(sys.executable, "-m", "ralis_backend.cli", "demo"),
        *("--folder", str(folder), "--port", str(free_port()), "--backend-port", str(free_port())),
        *("--max-images", "8", "--eval-images", "4", "--region-size", "90x80"),
        *("--regions-per-round", str(REGIONS), "--dataset", str(CAMVID)),
        *arguments,
    ]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def label_by_script(folder, out, mode):
    arguments = ("--oracle", "--rounds", str(ROUNDS), "--mode", mode, "--out", str(out))
    done = subprocess.run(
        command(folder, *arguments), env=environment(), capture_output=True, text=True, timeout=800
    )
    logs = "".join(path.read_text()[-3000:] for path in folder.glob("backends/*/backend.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return done.stdout


def processes_of(folder):
    """Processes whose command line or environment names the demo's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in text:
                found.append(text.split(b"\0")[:4])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    for needed in (CAMVID, LABEL_STUDIO):
        if not needed.exists():
            missing(f"{needed} is not there; run `make setup`, or set RALIS_SHARED")
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def crops(folder):
    out = folder / "crops-out"
    return out, label_by_script(folder, out, "crops")


@pytest.fixture(scope="module")
def in_place(folder, crops):
    out = folder / "in-place-out"
    return out, label_by_script(folder, out, "in-place")


def check_results(out, printed):
    content = json.loads((out / "results.json").read_text())
    rounds = content["rounds"]
    assert [done["trained_version"] for done in rounds] == ["v1", "v2", "v3"]
    assert [done["regions"] for done in rounds] == [REGIONS, 2 * REGIONS, 3 * REGIONS]
    for done in rounds:
        assert 0 < done["validation"]["miou"] < 1
        assert done["test"]["images"] == 4
        assert {"label", "sync", "train", "rank", "publish", "eval"} <= set(done["seconds"])
    assert rounds[-1]["test"]["miou"] > 0.05  # it has learned something
    with Image.open(out / "curve.png") as image:
        assert image.size[0] > 400
    assert "learning curve" in printed
    assert "Everything is stopped." in printed


def check_dataset(out):
    """Inside the labelled regions the masks are the truth, bit by bit; all else is VOID."""
    truth, grown = Dataset.open(CAMVID), Dataset.open(out / "dataset")
    assert grown.class_names == truth.class_names
    with (out / "dataset/provenance.csv").open() as file:
        provenance = list(csv.DictReader(file))
    assert len(provenance) == ROUNDS * REGIONS
    for key, sample in grown.samples.items():
        original = truth.samples[f"train/{Path(key).name}"]
        expected = np.full((360, 480), VOID, np.uint8)
        for row in provenance:
            if row["image"] == key:
                top, left = int(row["row"]), int(row["col"])
                box = np.s_[top : top + int(row["height"]), left : left + int(row["width"])]
                expected[box] = original.mask()[box]
        np.testing.assert_array_equal(sample.mask(), expected)
        assert sample.content() == original.content()
    return provenance


def test_a_script_labels_crops_and_the_segmenter_learns(crops, folder):
    out, printed = crops
    check_results(out, printed)
    provenance = check_dataset(out)
    assert {row["round"] for row in provenance} == {"1", "2", "3"}
    assert all(float(row["seconds"]) > 0 for row in provenance)
    assert processes_of(folder) == []


def test_a_script_labels_whole_images_in_place(in_place, folder):
    out, printed = in_place
    check_results(out, printed)
    check_dataset(out)
    assert processes_of(folder) == []


def test_an_exported_dataset_comes_back_bit_by_bit(crops, folder, tmp_path):
    grown = Dataset.open(crops[0] / "dataset")
    workplace = Workplace.open(folder)
    with workplace.label_studio(LABEL_STUDIO, port_near(8080)) as server:
        client = LabelStudioClient(server.url, workplace.token)
        tool = LabelStudioTool(client, ImageFetcher(client, tmp_path / "images", 10**9))
        labels = "".join(f'<Label value="{name}"/>' for name in grown.class_names)
        made = client.create_project(
            "Imported",
            '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
            f"{labels}</BrushLabels></View>",
        )
        target = tool.project(made["id"])
        assert import_into(client, tool, target, grown, print) == (len(grown.samples),) * 2
        assert import_into(client, tool, target, grown, print) == (0, 0)  # safe to repeat
        store = Store.open(f"sqlite:///{tmp_path}/ralis.db", tmp_path / "blobs")
        project = store.projects.register(
            target.uid, target.id, target.label_config, target.classes, target.title
        )
        Sync(store, tool, WorkerConfig(mode="in-place")).full(project)
        export_project(store, tool.image, target.uid, tmp_path / "again")
        store.close()
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


def test_ctrl_c_stops_everything_and_the_project_is_remembered(crops, folder, hears_ctrl_c):
    process = subprocess.Popen(
        command(folder), env=environment(), stdout=subprocess.PIPE, text=True
    )
    printed = ""
    deadline = time.monotonic() + 200
    while "Ctrl-C" not in printed and time.monotonic() < deadline:
        line = process.stdout.readline()
        assert line or process.poll() is None, printed
        printed += line
    assert re.search(r"http://127\.0\.0\.1:\d+/projects/\d+/data", printed)
    assert "password" in printed
    assert len(processes_of(folder)) >= 3
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Everything is stopped." in rest
    assert processes_of(folder) == []
    assert len(json.loads((folder / "demo.json").read_text())["projects"]) == 1
