"""`kill -9` in the middle of training: no label is lost, nothing is made twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.cli.demo.annotators import CropAnnotator
from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.cli.demo.workplace import Backend
from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.offline.datasets import Dataset
from ralis_backend.online.store import Store
from tests.e2e.conftest import TOKEN
from tests.plug_in import with_tiny_segmenter

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(400)]

REGIONS = 4
CLASSES = "".join(f'<Label value="c{index}"/>' for index in range(11))
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    f'<BrushLabels name="brush" toName="image">{CLASSES}</BrushLabels></View>'
)
NAMES = [f"c{index}" for index in range(11)]


@pytest.fixture
def environment(label_studio: LabelStudioServer, tmp_path: Path) -> dict[str, str]:
    return {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": TOKEN,
        "RALIS_DATA_DIR": str(tmp_path / "ralis"),
        "RALIS_AUTH_USER": "label-studio",
        "RALIS_AUTH_PASSWORD": "secret",
        "RALIS_REGIONS_PER_ROUND": str(REGIONS),
        "OMP_NUM_THREADS": "1",
        "RALIS_IMPROVE_MINUTES": "0",
        **with_tiny_segmenter(tmp_path / "site"),
    }


@pytest.fixture
def store(environment: dict[str, str], tmp_path: Path) -> Iterator[Store]:
    folder = tmp_path / "ralis"
    folder.mkdir()
    opened = Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")
    yield opened
    opened.close()


def wait_for(
    what: str, is_true: Callable[[], bool], timeout_s: float = 150.0, poll_s: float = 0.1
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_true():
            return
        time.sleep(poll_s)
    raise AssertionError(f"{what} did not happen within {timeout_s} s")


def test_a_kill_in_mid_training_loses_no_label_and_makes_nothing_twice(
    environment: dict[str, str],
    store: Store,
    client: LabelStudioClient,
    shared: Path,
    tmp_path: Path,
):
    samples = list(Dataset.open(shared / "data/camvid").samples.values())[:5]
    pool_id = int(client.create_project("killed", CONFIG)["id"])
    files = [(f"image{i}.jpg", sample.image_path.read_bytes()) for i, sample in enumerate(samples)]
    client.upload_files(pool_id, files)
    port = free_port()
    environment["RALIS_BACKEND_URL"] = f"http://127.0.0.1:{port}"
    tool = LabelStudioTool(client, ImageFetcher(client, tmp_path / "images", 10**8))
    truth = dict(zip([task.id for task in tool.tasks(pool_id)], samples, strict=True))

    def annotator() -> CropAnnotator:
        regions_project = tool.project(store.projects.all()[0].regions_tool_id or 0)
        return CropAnnotator(client, regions_project, truth, NAMES)

    def is_training() -> bool:
        return store.projects.all()[0].progress.get("state") == "training"

    with Backend(port, environment, tmp_path / "backend.log") as backend:
        backend.wait_ready()
        backend.run("connect", "--project", str(pool_id))
        wait_for("the first queue", lambda: store.projects.all()[0].published_version == 0)
        uid = store.projects.all()[0].uid
        for _ in range(REGIONS):
            assert annotator().label_next() == 1
        wait_for("training", is_training, poll_s=0.01)
        assert backend._process is not None
        os.killpg(backend._process.pid, signal.SIGKILL)
        backend._process.wait()

    project = store.projects.all()[0]
    assert project.current_version == 0
    for _ in range(2):  # while nobody listens: these webhooks are lost
        assert annotator().label_next() == 1

    with Backend(port, environment, tmp_path / "backend.log") as backend:
        backend.wait_ready()
        wait_for(
            "the new version's queue",
            lambda: (store.projects.all()[0].published_version or 0) >= 1,
        )
        wait_for("rest", lambda: backend.status(uid).get("state") == "idle")

    labels = store.labels.of(project.id)
    assert len(labels) == REGIONS + 2
    images = {image.id: image for image in store.images.of(project.id)}
    for label in labels:
        expected = truth[images[label.image_id].task_id].mask()[label.region.slices]
        np.testing.assert_array_equal(store.labels.mask(label), expected)
        assert (expected != VOID).any()
    regions_id = store.projects.all()[0].regions_tool_id or 0
    tasks = list(client.tasks(regions_id))
    places = [tuple(task["data"][name] for name in ("source_task", "row", "col")) for task in tasks]
    assert len(places) == len(set(places))
    assert {row.task_id for row in store.queue.open(project.id)} <= {task["id"] for task in tasks}
    numbers = [version.number for version in store.versions.all(project.id)]
    assert numbers == list(range(len(numbers)))
