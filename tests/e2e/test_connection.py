"""Connecting on a real Label Studio, several at once, and what others have predicted there."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from ralis_backend.app import create_app
from ralis_backend.cli.connect import create_connector
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.connection import Connector, Wishes
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.labelstudio.regions_project import pool_of
from ralis_backend.labelstudio.setup import ProjectSetup
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.labelstudio.view import VIEW, VIEW_TITLE
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.settings import Settings
from ralis_backend.wiring import create_store
from tests.e2e.conftest import TOKEN
from tests.e2e.pool import CLASSES, SIZE, config, png
from tests.local_server import serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


class Backend:
    """A data folder with its own connections to Label Studio."""

    def __init__(self, label_studio, backend_url, folder, mode="crops"):
        self.client = LabelStudioClient(label_studio.url, TOKEN)
        self.setup = ProjectSetup(
            self.client, backend_url=backend_url, user="user", password="secret"
        )
        fetcher = ImageFetcher(self.client, folder / "images", 10**8)
        self.tool = LabelStudioTool(self.client, fetcher, self.setup)
        self.store = Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")
        self.mode = mode

    def connect(self, project_id, start_from=None):
        connector = Connector(self.store, self.client, self.tool, self.setup)
        return connector.connect(connector.pool(project_id), Wishes(self.mode, start_from))

    def worker(self):
        ranking = RankingConfig(
            strategy="entropy",
            region_size=(20, 20),
            regions_per_round=4,
            spec=SegmenterSpec(1, "tiny", encoder_weights=None),
        )
        finetune = FinetuneConfig(steps=2, batch_size=2, crop_size=(32, 32))
        return Worker(
            self.store,
            self.tool,
            WorkerConfig(mode=self.mode, ranking=ranking, finetune=finetune, poll_s=0.05),
        )

    def close(self):
        self.store.close()
        self.client.close()


@pytest.fixture
def make_backend(label_studio, backend_url, tmp_path):
    made = []

    def make(mode="crops"):
        made.append(Backend(label_studio, backend_url, tmp_path, mode))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def make_pool(client):
    made = []

    def make():
        project_id = client.create_project("A pool", config(*CLASSES))["id"]
        client.upload_files(project_id, [("a.png", png()[1])])
        made.append(project_id)
        return project_id

    yield make
    for project in list(client.projects()):
        if project["id"] in made or str(pool_of(project)).partition(".")[0] in map(str, made):
            client.delete_project(project["id"])


def settled(worker):
    for _ in range(60):
        if not worker.advance_all():
            return
    raise AssertionError("the worker never comes to rest")


def test_three_commands_and_a_worker_at_once_make_everything_once(
    client, make_backend, make_pool, tiny_segmenters
):
    pools = [make_pool() for _ in range(2)]
    stop = threading.Event()
    workers = [threading.Thread(target=make_backend().worker().run, args=(stop,))]
    failures = []

    def connect(backend, project_id):
        try:
            backend.connect(project_id)
        except Exception as error:
            failures.append(error)

    commands = [
        threading.Thread(target=connect, args=(make_backend(), project_id))
        for project_id in pools
        for _ in range(3)
    ]
    for thread in [*workers, *commands]:
        thread.start()
    for thread in commands:
        thread.join()
    until = time.monotonic() + 60
    while time.monotonic() < until and not all(counts(client, pool)["tasks"] for pool in pools):
        time.sleep(0.2)
    stop.set()
    for thread in workers:
        thread.join()
    assert failures == []
    for pool in pools:
        found = counts(client, pool)
        assert found == {"regions": 1, "backends": 1, "webhooks": [1, 1], "views": 1, "tasks": 8}


def counts(client, pool):
    regions = [it for it in client.projects() if str(pool_of(it)).partition(".")[0] == str(pool)]
    return {
        "regions": len(regions),
        "backends": len(client.backends(pool)),
        "webhooks": [len(client.webhooks(it)) for it in (pool, *(it["id"] for it in regions))],
        "views": sum(len(client.views(it["id"])) for it in regions),
        "tasks": sum(it["task_number"] for it in regions),
    }


def test_the_tab_is_kept_by_label_studio_as_it_was_made(client, make_backend, make_pool):
    regions_id = make_backend().connect(make_pool()).regions_id
    (view,) = client.views(regions_id)
    assert view["data"]["title"] == VIEW_TITLE
    assert view["data"]["hiddenColumns"] == VIEW["hiddenColumns"]
    assert view["data"]["ordering"] == VIEW["ordering"]


@pytest.mark.parametrize("mode", ["crops", "in-place"])
def test_predictions_of_others_stay_and_are_what_annotators_begin_with(
    client, make_backend, make_pool, mode, tiny_segmenters
):
    pool = make_pool()
    (task,) = client.tasks(pool)
    mask = np.full(SIZE, VOID, np.uint8)
    mask[10:50, 5:60] = 1
    results = mask_to_results(mask, CLASSES, parse_label_config(config(*CLASSES)), key="sam")
    broken = {**results[0], "value": {"format": "rle", "rle": [1], "brushlabels": ["car"]}}
    stored = [
        {"task": task["id"], "model_version": "sam", "result": [broken, *results], "score": 0.3},
        {"task": task["id"], "model_version": "v0", "result": [], "score": 0.3},
        {"task": task["id"], "result": [], "score": 0.3},
    ]
    client.import_predictions(pool, stored)
    theirs = {it["id"] for it in client.predictions(task["id"])}
    assert len(theirs) == 3
    backend = make_backend(mode)
    backend.connect(pool, "sam")
    settled(backend.worker())
    assert theirs <= {it["id"] for it in client.predictions(task["id"])}
    (row,) = backend.store.projects.all()
    assert (row.published_version, row.last_error) == (0, None)
    place = pool if mode == "in-place" else row.regions_tool_id
    assert client.project(place)["model_version"] == "ralis-v0"
    shown = [
        it
        for listed in client.tasks(place)
        for it in client.predictions(listed["id"])
        if it["model_version"] == "ralis-v0"
    ]
    assert shown
    assert any(
        stroke["value"].get("brushlabels") == ["car"] for it in shown for stroke in it["result"]
    )
    backend.store.projects.change(row.id, published_version=None)
    settled(backend.worker())
    assert theirs <= {it["id"] for it in client.predictions(task["id"])}


def test_disconnecting_leaves_nothing_of_ours_but_the_labels(client, make_backend, make_pool):
    pool = make_pool()
    backend = make_backend()
    regions_id = backend.connect(pool).regions_id
    row = backend.store.projects.by_tool_id(pool)
    connector = Connector(backend.store, backend.client, backend.tool, backend.setup)
    connector.disconnect(row, deletes_regions=False)
    assert (client.backends(pool), client.webhooks(pool)) == ([], [])
    assert client.webhooks(regions_id) == []
    assert backend.connect(pool).regions_id == regions_id
    connector.disconnect(row, deletes_regions=True)
    assert regions_id not in {it["id"] for it in client.projects()}


def test_a_backend_that_answers_while_it_is_taken_off_stays_off(
    client, label_studio, make_pool, tmp_path, closed_stores
):
    pool = make_pool()
    settings = Settings(
        _env_file=None,
        label_studio_url=label_studio.url,
        label_studio_api_key=TOKEN,
        data_dir=tmp_path / "ralis",
    )
    store = create_store(settings)
    with serving(create_app(settings)) as url:
        settings.backend_url = url
        connector = create_connector(settings, store)
        connector.connect(connector.pool(pool), Wishes("crops"))
        assert len(store.projects.all()) == 1
        connector.disconnect(store.projects.by_tool_id(pool), deletes_regions=True)
        for part in (connector, connector._tool, connector._setup):  # the command's process ends
            part._client.close()
    assert (client.backends(pool), store.projects.all()) == ([], [])
