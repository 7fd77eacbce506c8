"""A worker that goes on training between rounds, on a real Label Studio."""

from __future__ import annotations

import threading
import time

import pytest

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.course import ContinuingConfig
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.further import CONVERGED, Further
from ralis_backend.online.worker import Worker, WorkerConfig, promotion
from tests.e2e.test_connection import Backend
from tests.e2e.test_tool import config
from tests.online.fake_tool import picture

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CLASSES = ("dark", "bright")
CONFIG = config(*CLASSES)


class Improving(Backend):
    """As `Backend`, with a worker that learns quickly."""

    def worker(self):
        ranking = RankingConfig(
            strategy="entropy",
            region_size=(32, 32),
            regions_per_round=4,
            spec=SegmenterSpec(1, "tiny", encoder_weights=None),
        )
        rules = WorkerConfig(
            ranking=ranking,
            finetune=FinetuneConfig(steps=2, batch_size=2, crop_size=(32, 32)),
            continuing=ContinuingConfig(50.0, decay=0.9, updates_per_look=20, patience=2),
            poll_s=0.05,
        )
        return Worker(self.store, self.tool, rules)


@pytest.fixture
def pool(client):
    """Sixteen images, fifteen of them labelled as a whole."""
    made = client.create_project("Goes on", CONFIG)["id"]
    pictures = [picture(number) for number in range(1, 17)]
    files = [(f"{number}.png", content) for number, (content, _) in enumerate(pictures)]
    client.upload_files(made, files)
    tasks = sorted(client.tasks(made), key=lambda task: task["id"])
    for task, (_, mask) in list(zip(tasks, pictures, strict=True))[:15]:
        results = mask_to_results(mask, CLASSES, parse_label_config(CONFIG), key=str(task["id"]))
        client.annotate(task["id"], result=results, lead_time=1)
    yield made
    client.delete_project(made)


def test_annotators_get_a_better_version_of_the_same_labels_in_the_same_round(
    client, label_studio, backend_url, tmp_path, pool, tiny_segmenters, monkeypatch
):
    monkeypatch.setattr(promotion, "WORTH", 0.0)  # Label Studio takes longer than such trainings
    backend = Improving(label_studio, backend_url, tmp_path)
    regions_id = backend.connect(pool).regions_id
    (row,) = backend.store.projects.all()
    stop = threading.Event()
    worker = threading.Thread(target=backend.worker().run, args=(stop,))
    worker.start()
    try:
        until = time.monotonic() + 240
        while time.monotonic() < until and not rests(backend, row.id):
            time.sleep(0.2)
    finally:
        stop.set()
        worker.join()
    project = backend.store.projects.by_id(row.id)
    first, *others = backend.store.versions.all(row.id)
    assert others
    assert all(version.round_version == first.number for version in others)
    assert project.published_version == others[-1].number
    assert others[-1].metrics["validation_miou"] > first.metrics["validation_miou"] + 0.01
    assert client.project(regions_id)["model_version"] == f"ralis-{others[-1].name}"
    waiting = list(client.tasks(regions_id))
    assert len(waiting) == 6  # every region of the sixteenth image, once
    assert {task["data"]["round"] for task in waiting} <= {1, 2}
    assert project.round == 1
    assert project.last_error is None
    backend.close()


def rests(backend, row_id):
    """Whether the version in use has converged and is what annotators see."""
    project = backend.store.projects.by_id(row_id)
    version = backend.store.versions.find(row_id, project.current_version)
    if version is None or project.published_version != version.number:
        return False
    return Further.of(version.metrics).ended == CONVERGED
