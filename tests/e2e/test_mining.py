"""More of one class on a real Label Studio, with real pictures and a segmenter that learns."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.cli.demo.annotators import CropAnnotator, InPlaceAnnotator
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.policy.registry import DEFAULT
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.offline.datasets import Dataset
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.store.wishes import REACHED
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.simulation.verdict import ReplayRules
from tests.e2e.pool import config
from tests.e2e.test_connection import Backend, settled
from tests.real_parts import SHARED, missing

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROADS = SHARED / "data/roads"
POTHOLE = 3
NUM_LABELLED = 10
WANTED = 30


class Mining(Backend):
    """As `Backend`, with a worker that learns from pictures of roads, for a short time."""

    def worker(self, spec):
        ranking = RankingConfig(region_size=(80, 128), regions_per_round=8, spec=spec)
        finetune = FinetuneConfig(steps=20, crop_size=(128, 128))
        rules = WorkerConfig(
            ranking=ranking,
            finetune=finetune,
            improve_s=0.0,
            poll_s=0.05,
            mode=self.mode,
            suggestions_per_image=2,
            replay=ReplayRules(num_games=2),
        )
        return Worker(self.store, self.tool, rules)


@pytest.fixture(scope="module")
def samples():
    """Pictures of roads: those that are labelled show potholes, of the others every second one."""
    if not ROADS.exists():
        missing(f"{ROADS} is not there; set RALIS_SHARED")
    dataset = Dataset.open(ROADS)
    showing, others = [], []
    for sample in dataset.samples.values():
        has_potholes = (sample.mask() == POTHOLE).sum() > 300
        (showing if has_potholes else others).append(sample)
        if len(showing) >= NUM_LABELLED + 8 and len(others) >= 8:
            break
    return dataset.class_names, showing[: NUM_LABELLED + 8] + others[:8]


def labels_and_boxes(names):
    """A brush for each class, and rectangles that show suggestions on whole images."""
    boxes = (
        '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
        "</RectangleLabels></View>"
    )
    return config(*names).replace("</View>", boxes)


@pytest.fixture
def pool(client, samples):
    """A pool of those pictures, and the labelled picture of each of its tasks."""
    names, chosen = samples
    made = client.create_project("Roads", labels_and_boxes(names))["id"]
    files = [
        (f"{number:02}.png", sample.image_path.read_bytes()) for number, sample in enumerate(chosen)
    ]
    client.upload_files(made, files)
    tasks = sorted(task["id"] for task in client.tasks(made))
    truth = dict(zip(tasks, chosen, strict=True))
    for task in tasks[:NUM_LABELLED]:
        mask = truth[task].mask()
        results = mask_to_results(
            mask, names, parse_label_config(labels_and_boxes(names)), key=str(task)
        )
        client.annotate(task, result=results, lead_time=1)
    yield made, truth
    client.delete_project(made)


def ralis(*arguments):
    answer = CliRunner().invoke(app, list(arguments))
    assert answer.exit_code == 0, answer.exception
    return answer.stdout


def read_all(backend, worker):
    """Nobody sends webhooks here."""
    (row,) = backend.store.projects.all()
    backend.store.projects.change(row.id, is_sync_requested=True)
    settled(worker)


def test_one_class_is_sought_from_the_command_to_its_end(
    client, label_studio, backend_url, tmp_path, pool, samples, monkeypatch, tiny_segmenters
):
    for name, value in {"RALIS_DATA_DIR": str(tmp_path), "RALIS_REGION_SIZE": "80x128"}.items():
        monkeypatch.setenv(name, value)
    number, truth = pool
    backend = Mining(label_studio, backend_url, tmp_path)
    regions_id = backend.connect(number).regions_id
    worker = backend.worker(tiny_segmenters)
    settled(worker)
    (row,) = backend.store.projects.all()
    assert row.current_version == 1

    of_project = ("--project", str(number))
    told = ralis(
        "mine", *of_project, "--class", "pothole", "--count", str(WANTED), "--share", "0.75"
    )
    assert f"looks for Pothole, {WANTED} regions" in told
    settled(worker)
    assert backend.store.projects.by_id(row.id).current_version == 1  # nothing was trained
    mined = [it for it in client.tasks(regions_id) if it["data"]["strategy"] == "presence:Pothole"]
    assert WANTED - 2 <= len(mined) <= WANTED
    assert all(it["data"]["reason"].startswith("looks for Pothole: ") for it in mined)
    strategies = {it["data"]["strategy"] for it in client.tasks(regions_id)}
    assert {"presence:Pothole", DEFAULT, "random"} <= strategies

    annotator = CropAnnotator(client, backend.tool.project(regions_id), truth, samples[0])
    assert sum(annotator.label_next() for _ in range(7)) == 7
    read_all(backend, worker)
    status = ralis("status", *of_project)
    assert "  seeks      Pothole, by presence:Pothole, in 75 % of each round: " in status
    assert f" of {WANTED} mined regions labelled" in status
    assert "hits by round: round 1: " in status
    assert "Looks for Pothole" in str(client.project(regions_id)["description"])

    assert "does not look for Pothole any more" in ralis("mine", *of_project, "--stop")
    settled(worker)
    waiting = [it for it in client.tasks(regions_id) if not it["total_annotations"]]
    left = [it for it in waiting if it["data"]["strategy"] == "presence:Pothole"]
    assert len(left) <= 2  # what the annotator may have open
    assert len(waiting) >= 8
    assert "seeks" not in ralis("status", *of_project)
    assert "stopped" in ralis("mine", *of_project)
    backend.close()


@pytest.mark.long
def test_on_whole_images_the_class_is_suggested_first_and_what_is_found_is_counted(
    client, label_studio, backend_url, tmp_path, pool, samples, monkeypatch, tiny_segmenters
):
    for name, value in {"RALIS_DATA_DIR": str(tmp_path), "RALIS_MODE": "in-place"}.items():
        monkeypatch.setenv(name, value)
    number, truth = pool
    backend = Mining(label_studio, backend_url, tmp_path, "in-place")
    assert backend.connect(number).regions_id is None
    worker = backend.worker(tiny_segmenters)
    settled(worker)

    ralis("mine", "--project", str(number), "--class", "pothole", "--count", "3")
    settled(worker)
    (row,) = backend.store.projects.all()
    assert row.current_version == 1  # nothing was trained
    waiting = [it for it in client.tasks(number) if not it["total_annotations"]]
    for task in waiting:
        (prediction,) = client.task(task["id"])["predictions"]
        assert prediction["model_version"] == "ralis-v1"
        boxes = [it for it in prediction["result"] if it["type"] == "rectanglelabels"]
        assert len(boxes) == 2
        assert boxes[0]["meta"]["text"][1].startswith("looks for Pothole: ")

    annotator = InPlaceAnnotator(client, backend.tool.project(number), truth, samples[0])
    assert sum(annotator.label_next() for _ in range(3)) == 6
    read_all(backend, worker)
    (wish,) = backend.store.wishes.all(row.id)
    assert wish.ended_by == REACHED
    labels = backend.store.labels.mined(row.id, wish.id)
    assert len(labels) >= 3
    assert {label.strategy for label in labels} == {"presence:Pothole"}
    assert "ended: " in ralis("status", "--project", str(number))
    backend.close()
