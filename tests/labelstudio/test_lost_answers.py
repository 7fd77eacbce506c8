"""Label Studio does what it is asked, and the answer is lost: nothing may be made twice."""

from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.regions import grid
from ralis_backend.labelstudio import client as client_module
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import LabelStudioError
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.setup import BACKEND_TITLE, ProjectSetup
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.tool import Crop, CropPrediction
from tests.labelstudio.flaky_label_studio import FAULTS, TIMEOUT_S, FlakyLabelStudio

pytestmark = pytest.mark.e2e  # each waits for answers that do not come

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels></View>'
)
REGIONS = grid((40, 80), (20, 20))
IMPORT = r"POST /api/projects/2/import"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", (0.0,))


@pytest.fixture
def server():
    with FlakyLabelStudio() as server:
        for title in ("Pool", "Regions"):
            server._add_project({}, {"title": title, "label_config": CONFIG, "description": ""})
        yield server


@pytest.fixture
def setup(server):
    client = LabelStudioClient(server.url, "token", timeout_s=TIMEOUT_S)
    return ProjectSetup(client, backend_url="http://backend.test")


@pytest.fixture
def tool(server, setup, tmp_path):
    client = setup._client
    yield LabelStudioTool(client, ImageFetcher(client, tmp_path, 0), setup)
    client.close()


def crops(count=8, number=1):
    picture = np.zeros((8, 8, 3), np.uint8)
    return [
        Crop(11, region, picture, picture, 1, number, rank, "uncertain", "entropy", "v1")
        for rank, region in enumerate(REGIONS[:count], start=1)
    ]


def until_done(call, tries=3):
    """The call, repeated as the worker repeats what failed."""
    for _ in range(tries - 1):
        try:
            return call()
        except LabelStudioError:
            pass
    return call()


def made_regions(server):
    places = [(it["data"]["row"], it["data"]["col"]) for it in server.tasks if it["project"] == 2]
    assert len(places) == len(set(places))
    return set(places)


ALL = {(region.row, region.col) for region in REGIONS}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_answer_to_an_import_makes_no_task_twice(server, tool, fault):
    server.faults[IMPORT] = [None, fault]  # the pictures arrive
    wanted = crops()
    tasks = until_done(lambda: tool.create_crop_tasks(tool.project(1), 2, wanted))
    assert made_regions(server) == ALL
    assert [(task.data["row"], task.data["col"]) for task in tasks] == [
        (crop.region.row, crop.region.col) for crop in wanted
    ]


@pytest.mark.sweep
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", [IMPORT, r"GET /api/projects/2/file-uploads", "GET /api/tasks"])
def test_an_answer_lost_on_the_way_there_costs_no_task_and_makes_none_twice(
    server, tool, call, fault
):
    server.faults[call] = [fault] * 3
    tasks = until_done(lambda: tool.create_crop_tasks(tool.project(1), 2, crops()), tries=5)
    assert made_regions(server) == ALL
    assert len(tasks) == len(REGIONS)


def test_another_process_finds_the_tasks_of_the_one_that_was_killed(server, tool, tmp_path):
    server.faults[IMPORT] = [None, "drop"]
    server.faults["GET /api/tasks"] = [None, "drop", "drop"]  # it cannot look either
    with pytest.raises(LabelStudioError):
        tool.create_crop_tasks(tool.project(1), 2, crops())
    client = LabelStudioClient(server.url, "token")
    again = LabelStudioTool(client, ImageFetcher(client, tmp_path, 0))
    assert len(again.create_crop_tasks(again.project(1), 2, crops())) == len(REGIONS)
    assert made_regions(server) == ALL
    client.close()


def test_only_what_is_missing_of_an_import_is_made(server, tool):
    server.is_cut_short = True
    with pytest.raises(LabelStudioError, match="made 4 of 8 tasks"):
        tool.create_crop_tasks(tool.project(1), 2, crops())
    server.is_cut_short = False
    num_files = len(server.files)
    tasks = tool.create_crop_tasks(tool.project(1), 2, crops())
    assert [task.id for task in tasks] == list(range(1, 9))
    assert made_regions(server) == ALL
    assert len(server.files) == num_files + 2 * 4


def test_the_same_region_in_a_later_round_is_another_task(server, tool):
    first = tool.create_crop_tasks(tool.project(1), 2, crops(3))
    later = tool.create_crop_tasks(tool.project(1), 2, crops(3, number=2))
    assert not {task.id for task in first} & {task.id for task in later}


def test_tasks_that_are_not_ours_do_not_stand_in_the_way(server, tool):
    for data in ({}, {"source_task": [1]}, {"row": {}}, {"image": "/a.png", "row": "0"}):
        server._import(2, {}, [{"data": data}])
    assert len(tool.create_crop_tasks(tool.project(1), 2, crops())) == len(REGIONS)


@pytest.mark.sweep
@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_answer_to_predictions_stores_none_twice(server, tool, fault):
    tasks = tool.create_crop_tasks(tool.project(1), 2, crops())
    server.faults[r"POST /api/projects/2/import/predictions"] = [fault]
    mask = np.zeros((20, 20), np.uint8)
    predictions = [
        CropPrediction(task.id, region, 1, mask, 0.5, 1, "")
        for task, region in zip(tasks, REGIONS, strict=True)
    ]
    until_done(lambda: tool.publish_crop_predictions(2, "v1", ["road"], predictions))
    stored = [it["task"] for it in server.predictions]
    assert sorted(stored) == [task.id for task in tasks]
    assert server.projects[2]["model_version"] == "ralis-v1"


def test_predictions_that_came_twice_after_all_are_sent_again(server, tool):
    (task,) = tool.create_crop_tasks(tool.project(1), 2, crops(1))
    publish = server._import_predictions

    def twice(number, query, content):
        server._import_predictions = publish
        server._do = server.__class__._do.__get__(server)
        publish(number, query, content)
        return publish(number, query, content)

    server._import_predictions = twice
    prediction = CropPrediction(task.id, REGIONS[0], 1, np.zeros((20, 20), np.uint8), 0.5, 1, "")
    with pytest.raises(LabelStudioError, match="some twice"):
        tool.publish_crop_predictions(2, "v1", ["road"], [prediction])
    tool.publish_crop_predictions(2, "v1", ["road"], [prediction])
    assert len(server.predictions) == 1


@pytest.mark.sweep
@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_answer_makes_no_second_project_webhook_or_backend(server, tool, setup, fault):
    for call in (
        "POST /api/projects",
        "POST /api/webhooks/",
        "POST /api/ml",
        "POST /api/dm/views/",
    ):
        server.faults[call] = [fault]
    until_done(lambda: setup.connect(tool.project(1), "crops"), tries=6)
    until_done(lambda: setup.connect(tool.project(1), "crops"))
    assert len(server.projects) == 3
    assert len(server.views) == 1
    assert [it["title"] for it in server.backends] == [BACKEND_TITLE]
    assert sorted(hook["project"] for hook in server.webhooks) == [1, 3]
