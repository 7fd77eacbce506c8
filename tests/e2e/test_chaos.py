"""Kills, lost webhooks, a failing Label Studio and a full disk: every annotation is exported once.

`make chaos KILLS=50` is the long form.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ralis_backend.cli.demo.annotators import CropAnnotator
from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.offline.datasets import Dataset, Sample
from ralis_backend.online.store import Store
from tests.cli.process import RALIS
from tests.e2e.bad_network import BadNetwork
from tests.e2e.chaos import Annotator, Crew, Harm, SmallDisk
from tests.e2e.conftest import TOKEN, server_in
from tests.e2e.test_kill import CONFIG, NAMES, wait_for
from tests.plug_in import with_tiny_segmenter

KILLS = int(os.environ.get("RALIS_CHAOS_KILLS", "3"))
SEED = int(os.environ.get("RALIS_CHAOS_SEED", time.time_ns() % 10**6))
IS_LONG = KILLS > 3
GAP_S = (3.0, 12.0) if IS_LONG else (1.0, 3.0)
LASTING_S = (2.0, 4.0) if IS_LONG else (1.0, 2.0)
NUM_IMAGES = 8 if IS_LONG else 4
REGIONS = 4
HEAL_S = 300.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600 + 60 * KILLS)]


@pytest.fixture
def server(
    request: pytest.FixtureRequest, label_studio_data: Path, tmp_path: Path
) -> Iterator[LabelStudioServer]:
    """The session's, or where it is restarted one of its own."""
    if not IS_LONG:
        yield request.getfixturevalue("label_studio")
        return
    shutil.copytree(label_studio_data, tmp_path / "label-studio")
    with server_in(tmp_path / "label-studio") as own:
        yield own


def test_every_annotation_is_exported_once_and_right_whatever_is_killed(
    server: LabelStudioServer, shared: Path, tmp_path: Path
):
    print(f"RALIS_CHAOS_KILLS={KILLS} RALIS_CHAOS_SEED={SEED}")  # noqa: T201
    rng = random.Random(SEED)
    with ExitStack() as stack:
        client = LabelStudioClient(server.url, TOKEN)
        stack.callback(client.close)
        disk = stack.enter_context(SmallDisk(tmp_path / "ralis"))
        port = free_port()
        to_tool = stack.enter_context(BadNetwork(server.url))
        to_backend = stack.enter_context(BadNetwork(f"http://127.0.0.1:{port}"))
        segmenter = with_tiny_segmenter(tmp_path / "site")
        environment = _environment(to_tool.url, to_backend.url, disk.folder, segmenter)
        pool_id, truth = _make_pool(client, shared, tmp_path)
        crew = stack.enter_context(Crew(port, environment, tmp_path))
        harm = Harm(crew, to_tool, disk, server if IS_LONG else None, rng, LASTING_S)
        try:
            wait_for("the web server", lambda: _answers(f"http://127.0.0.1:{port}/health"))
            _ralis(environment, "connect", "--project", str(pool_id))
            store = Store.open(f"sqlite:///{disk.folder / 'ralis.db'}", disk.folder / "blobs")
            stack.callback(store.close)
            _wait_for_version(store, 0)
            to_backend.choose = harm.webhook
            with Annotator(lambda: _annotator(client, store, truth, tmp_path), 0.5) as annotator:
                harm.run(KILLS, GAP_S)
            to_backend.choose = None
            began = time.monotonic()
            _wait_for_rest(store, client)
            healed_s = time.monotonic() - began
            version = store.projects.all()[0].current_version
            for _ in range(REGIONS):
                annotator.num_submitted += _annotator(client, store, truth, tmp_path).label_next()
            _wait_for_version(store, version + 1)
            _wait_for_rest(store, client)
            out = ("--out", str(tmp_path / "dataset"))
            _ralis(environment, "export", "--project", str(pool_id), *out)
        except BaseException:
            print(harm.done, crew.log())  # noqa: T201
            raise
        _check_export(tmp_path / "dataset", client, store, truth)
        report = {
            "kills": KILLS,
            "seed": SEED,
            "annotations": annotator.num_submitted,
            "done": dict(sorted(harm.done.items())),
            "requests_harmed": to_tool.num_harmed,
            "ended_by_themselves": crew.num_ended,
            "seconds_to_heal": round(healed_s, 1),
            "versions": version + 1,
            "full_disk": disk.can_fill,
        }
        print(json.dumps(report))  # noqa: T201
        if IS_LONG and (out := os.environ.get("RALIS_CHAOS_OUT")):
            Path(out).write_text(json.dumps(report, indent=1) + "\n")


def _environment(
    tool_url: str, backend_url: str, folder: Path, segmenter: dict[str, str]
) -> dict[str, str]:
    return {
        "LABEL_STUDIO_URL": tool_url,
        "LABEL_STUDIO_API_KEY": TOKEN,
        "RALIS_DATA_DIR": str(folder),
        "RALIS_AUTH_USER": "label-studio",
        "RALIS_AUTH_PASSWORD": "secret",
        "RALIS_BACKEND_URL": backend_url,
        "RALIS_REGIONS_PER_ROUND": str(REGIONS),
        "RALIS_REGION_SIZE": "90x80",
        "RALIS_SYNC_SECONDS": "3",
        "OMP_NUM_THREADS": "1",
        **segmenter,
    }


def _make_pool(
    client: LabelStudioClient, shared: Path, tmp_path: Path
) -> tuple[int, dict[int, Sample]]:
    samples = list(Dataset.open(shared / "data/camvid").samples.values())[:NUM_IMAGES]
    pool_id = int(client.create_project("chaos", CONFIG)["id"])
    files = [(f"image{i}.jpg", sample.image_path.read_bytes()) for i, sample in enumerate(samples)]
    client.upload_files(pool_id, files)
    ids = [int(task["id"]) for task in client.tasks(pool_id)]
    return pool_id, dict(zip(ids, samples, strict=True))


def _annotator(
    client: LabelStudioClient, store: Store, truth: dict[int, Sample], tmp_path: Path
) -> CropAnnotator:
    tool = LabelStudioTool(client, ImageFetcher(client, tmp_path / "images", 10**8))
    regions_id = store.projects.all()[0].regions_tool_id or 0
    return CropAnnotator(client, tool.project(regions_id), truth, NAMES)


def _ralis(environment: dict[str, str], *arguments: str) -> None:
    command = [*RALIS, *arguments]
    subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=300)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def _wait_for_version(store: Store, number: int) -> None:
    def is_published() -> bool:
        projects = store.projects.all()
        published = projects[0].published_version if projects else None
        return published is not None and published >= number

    wait_for(f"a queue of v{number}", is_published, HEAL_S)


def _wait_for_rest(store: Store, client: LabelStudioClient) -> None:
    """Until everything that was submitted has been read, learned from and published."""

    def is_at_rest() -> bool:
        (project,) = store.projects.all() or [None]
        if project is None or project.published_version != project.current_version:
            return False
        if store.events.has_unread(project) or project.last_error is not None:
            return False
        regions = client.tasks(project.regions_tool_id or 0)
        submitted = sum(task["total_annotations"] for task in regions)
        labels = len(store.labels.every(project.id))
        return bool(labels == submitted and project.progress.get("state") == "idle")

    wait_for("rest", is_at_rest, HEAL_S)


def _check_export(
    out: Path, client: LabelStudioClient, store: Store, truth: dict[int, Sample]
) -> None:
    """Each submitted region once, its mask the truth; all else is void; no region twice."""
    project = store.projects.all()[0]
    tasks = list(client.tasks(project.regions_tool_id or 0))
    places = Counter(_place(task["data"]) for task in tasks)
    assert [place for place, count in places.items() if count > 1] == []
    submitted = {_place(task["data"]) for task in tasks if task["total_annotations"]}
    names = {image.task_id: image.ref.rsplit("-", 1)[-1].split(".")[0] for image in _images(store)}
    with (out / "provenance.csv").open() as file:
        rows = list(csv.DictReader(file))
    exported = [
        (row["image"].split("/")[-1], *(int(row[name]) for name in ("row", "col"))) for row in rows
    ]
    assert sorted(exported) == sorted((names[task], row, col) for task, row, col in submitted)
    grown = Dataset.open(out)
    masks = {key.split("/")[-1]: sample.mask() for key, sample in grown.samples.items()}
    for task_id, name in names.items():
        own = [place for place in submitted if place[0] == task_id]
        expected = np.full((360, 480), VOID, np.uint8)
        for _, row, col in own:
            box = np.s_[row : row + 90, col : col + 80]
            expected[box] = truth[task_id].mask()[box]
        if own:
            np.testing.assert_array_equal(masks[name], expected)


def _place(shown: dict[str, Any]) -> tuple[int, int, int]:
    return int(shown["source_task"]), int(shown["row"]), int(shown["col"])


def _images(store: Store) -> list[Any]:
    return store.images.of(store.projects.all()[0].id)
