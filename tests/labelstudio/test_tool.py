"""How Label Studio is read where it answers oddly; the healthy answers are in tests/e2e."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

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
    assert not project.shows_boxes


def test_a_project_with_rectangles_for_suggested_regions_shows_boxes(tool, label_studio):
    boxes = '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
    number = label_studio.add_project(
        CONFIG.replace("</View>", f"{boxes}</RectangleLabels></View>")
    )
    assert tool.project(number).shows_boxes


def test_tasks_are_read_with_the_key_of_the_label_config(tool, label_studio):
    label_studio.tasks[1] = [task(1, {"photo": "a.png"}), task(2, {"$undefined$": "b.png"})]
    assert [(found.id, found.image) for found in tool.tasks(1)] == [(1, "a.png"), (2, "b.png")]


def test_a_task_that_lost_its_image_is_still_a_task(tool, label_studio):
    label_studio.tasks[1] = [task(1, {"caption": "no picture"})]
    (found,) = tool.tasks(1)
    with pytest.raises(ValueError, match="task 1 has no image"):
        tool.image(found)


def test_a_malformed_task_is_named_and_the_others_are_read(tool, label_studio, caplog):
    odd_time = {**task(4, {"photo": "d.png"}), "created_at": "yesterday"}
    label_studio.tasks[1] = [task(1, {"photo": "a.png"}), task(2, None), task(3, {}), odd_time]
    with caplog.at_level(logging.WARNING):
        found = list(tool.tasks(1))
    assert "project 1, task number 2 of the list: task 2 has no data" in caplog.text
    assert "project 1, task number 4 of the list: task 4: created_at" in caplog.text
    # Label Studio counts them all, and a list that lacks some is not believed
    assert [(it.id, it.image) for it in found] == [(1, "a.png"), (2, ""), (3, ""), (4, "")]
    assert found[1].created_at == found[0].created_at
    assert found[3].created_at is None


def test_a_task_belongs_to_the_project_it_was_listed_in(tool, label_studio):
    label_studio.tasks[1] = [{**task(1, {"photo": "/data/upload/2/a.png"}), "project": 2}]
    (found,) = tool.tasks(1)
    assert found.project_id == 1
    with pytest.raises(ValueError, match="task 1 of project 1 shows a file of project 2"):
        tool.image(found)


def annotation(number, **values):
    fields = {"id": number, "result": [], "created_at": "2025-11-21T05:00:00Z", "completed_by": 1}
    return {**fields, **values}


def exported(task_id, *annotations):
    return {**task(task_id, {"photo": "s3://a.png"}), "annotations": list(annotations)}


def test_annotations_come_task_by_task(tool, label_studio):
    listed = [annotation(7, lead_time=2.5), annotation(8, was_cancelled=True)]
    label_studio.exports[1] = [exported(1, *listed), exported(2)]
    first, second = tool.annotations(1, [1, 2, 3])
    assert (first.task.id, [it.id for it in first.annotations]) == (1, [7, 8])
    assert [it.is_skipped for it in first.annotations] == [False, True]
    assert first.annotations[0].task_created_at == first.task.created_at
    assert (second.task.id, second.annotations) == (2, [])


def test_a_malformed_annotation_is_named_and_its_neighbours_are_read(tool, label_studio):
    label_studio.exports[1] = [exported(1, annotation(7, created_at=None), annotation(8))]
    (found,) = tool.annotations(1, [1])
    assert [it.id for it in found.annotations] == [8]
    assert found.unreadable.keys() == {7}
    assert "created_at is None" in found.unreadable[7]


@pytest.mark.parametrize("annotations", [None, {}, [None], [{"id": "x"}], ["annotation"]])
def test_a_task_whose_annotations_cannot_be_told_is_left_out(tool, label_studio, annotations):
    label_studio.exports[1] = [{**exported(1), "annotations": annotations}, exported(2)]
    assert [found.task.id for found in tool.annotations(1, [1, 2])] == [2]


def test_a_tasks_state_is_another_one_when_its_annotations_changed(tool, label_studio):
    listed = {**task(1, {}), "updated_at": "2025-11-21T05:00:00.000001Z"}
    counts = {"total_annotations": 1, "cancelled_annotations": 0}
    states = []
    for changes in (
        {},
        {"updated_at": "2025-11-21T05:00:00.000002Z"},
        {"total_annotations": 2},
        {"cancelled_annotations": 1},
        {"created_at": "2025-11-21T04:41:01Z"},
    ):
        label_studio.tasks[1] = [{**listed, **counts, **changes}]
        (found,) = tool.tasks(1)
        states.append(found.state)
    assert len(set(states)) == len(states)
    label_studio.exports[1] = [{**listed, **counts, "annotations": [], "data": {"other": 1}}]
    (read,) = tool.annotations(1, [1])
    assert read.task.state == states[0]
    assert read.task.num_annotations == 1


def test_what_changed_since_is_asked_for_in_utc(tool, label_studio):
    moment = datetime(2025, 11, 21, 6, 0, 0, 5, timezone(timedelta(hours=1)))
    assert list(tool.tasks(1, moment)) == []
    condition = label_studio.queries[-1]["filters"]["items"][0]
    assert condition == {
        "filter": "filter:tasks:updated_at",
        "type": "Datetime",
        "operator": "greater_or_equal",
        "value": "2025-11-21T05:00:00.000005Z",
    }


def test_a_project_says_how_many_tasks_and_annotations_it_has(tool, label_studio):
    assert (tool.project(1).num_tasks, tool.project(1).num_annotations) == (None, None)
    counts = {"total_annotations_number": 5, "skipped_annotations_number": 2, "task_number": 9}
    label_studio.projects[1].update(counts)
    assert (tool.project(1).num_tasks, tool.project(1).num_annotations) == (9, 7)
