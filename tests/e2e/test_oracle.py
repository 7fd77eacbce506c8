"""The demo as a newcomer runs it: real Label Studio, real images, a scripted annotator."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.cli.demo.workplace import Workplace, port_near
from ralis_backend.cli.uploads import import_into
from ralis_backend.core.images import encode_png
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.offline.datasets import Dataset, plain_folder
from ralis_backend.online.export import export_project
from ralis_backend.online.file_names import uploaded_name
from ralis_backend.online.store import Store
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker.sync import Sync
from tests.e2e.conftest import LABEL_STUDIO
from tests.e2e.scripted import (
    check_dataset,
    check_results,
    command,
    environment,
    label_by_script,
    processes_of,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def crops(demo_folder):
    out = demo_folder / "crops-out"
    return out, label_by_script(demo_folder, out, "crops", 3)


def test_a_script_labels_crops_and_the_segmenter_learns(crops, demo_folder):
    out, printed = crops
    check_results(out, printed, 3)
    provenance = check_dataset(out, 3)
    assert {row["round"] for row in provenance} == {"1", "2", "3"}
    assert all(float(row["seconds"]) > 0 for row in provenance)
    assert processes_of(demo_folder) == []


def pictures(folder):
    """A folder of pictures without masks, with names as people have them."""
    folder.mkdir(exist_ok=True)
    for name in ("写真12", "हिन्दी 1", "\U0001f33e field", "x" * 150):
        (folder / f"{name}.png").write_bytes(encode_png(np.zeros((40, 40, 3), np.uint8)))
    return plain_folder(folder)


def test_an_exported_dataset_comes_back_bit_by_bit(crops, demo_folder, tmp_path):
    grown = Dataset.open(crops[0] / "dataset")
    workplace = Workplace.open(demo_folder)
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
        bare = tool.project(client.create_project("Pictures", target.label_config)["id"])
        assert import_into(client, tool, bare, pictures(tmp_path / "new"), print) == (4, 0)
        assert import_into(client, tool, bare, pictures(tmp_path / "new"), print) == (0, 0)
        shown = [uploaded_name(task.image) for task in tool.tasks(bare.id)]
        assert set(shown) == {"field.png", f"{'x' * 60}.png", "写真12.png", "हनद_1.png"}
        assert len(shown) == 4
        client.close()
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


def test_ctrl_c_stops_everything_and_the_project_is_remembered(crops, demo_folder, hears_ctrl_c):
    process = subprocess.Popen(
        command(demo_folder), env=environment(), stdout=subprocess.PIPE, text=True
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
