"""How Label Studio is read where it answers oddly; the healthy answers are in tests/e2e."""

from __future__ import annotations

import logging

import pytest

from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.tool import LabelStudioTool
from tests.labelstudio.fake_label_studio import FakeLabelStudio

CONFIG = (
    '<View><Image name="image" value="$photo"/>'
    '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels></View>'
)


@pytest.fixture
def label_studio():
    fake = FakeLabelStudio()
    fake.add_project(CONFIG)
    return fake


@pytest.fixture
def tool(label_studio, tmp_path):
    client = label_studio.client
    return LabelStudioTool(client, ImageFetcher(client, tmp_path, 0))


def task(task_id, data):
    return {"id": task_id, "created_at": "2025-11-21T04:41:00Z", "data": data}


def test_a_project_is_read_with_its_classes(tool):
    project = tool.project(1)
    assert (project.uid, project.title) == ("1.1763700000", "Streets")
    assert [label.name for label in project.classes] == ["road"]


def test_tasks_are_read_with_the_key_of_the_label_config(tool, label_studio):
    label_studio.tasks[1] = [task(1, {"photo": "a.png"}), task(2, {"$undefined$": "b.png"})]
    assert [(found.id, found.image) for found in tool.tasks(1)] == [(1, "a.png"), (2, "b.png")]


def test_a_task_that_lost_its_image_is_still_a_task(tool, label_studio):
    label_studio.tasks[1] = [task(1, {"caption": "no picture"})]
    (found,) = tool.tasks(1)
    with pytest.raises(ValueError, match="task 1 has no image"):
        tool.image(found)


def test_a_malformed_task_is_named_and_the_others_are_read(tool, label_studio, caplog):
    label_studio.tasks[1] = [task(1, {"photo": "a.png"}), task(2, None), task(3, {})]
    with caplog.at_level(logging.WARNING):
        assert [found.id for found in tool.tasks(1)] == [1, 3]
    assert "project 1, task number 2 of the list: task 2 has no data" in caplog.text


def test_a_task_belongs_to_the_project_it_was_listed_in(tool, label_studio):
    label_studio.tasks[1] = [{**task(1, {"photo": "/data/upload/2/a.png"}), "project": 2}]
    (found,) = tool.tasks(1)
    assert found.project_id == 1
    with pytest.raises(ValueError, match="task 1 of project 1 shows a file of project 2"):
        tool.image(found)
