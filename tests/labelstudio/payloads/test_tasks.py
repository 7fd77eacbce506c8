import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from PIL import Image

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads.tasks import (
    TaskError,
    crop_data,
    crop_files,
    crop_key,
    parse_task,
    parse_tasks,
    parse_time,
    project_uid,
)
from ralis_backend.online.tool import Crop, ToolTask

UID = "3.1763700000"


def payload(**changes):
    return {
        "id": 7,
        "created_at": "2025-11-21T04:41:00.5Z",
        "data": {"photo": "/data/upload/3/0a1b2c3d-a.png", "source": 5},
        **changes,
    }


def test_a_task_is_its_id_its_time_and_the_image_under_the_configs_key():
    assert parse_task(payload(), "photo") == ToolTask(
        id=7,
        created_at=datetime(2025, 11, 21, 4, 41, 0, 500_000, UTC),
        image="/data/upload/3/0a1b2c3d-a.png",
        data={"photo": "/data/upload/3/0a1b2c3d-a.png", "source": 5},
    )


def test_a_file_from_before_the_label_config_stands_under_a_key_of_its_own():
    assert parse_task(payload(data={"$undefined$": "early.png"}), "photo").image == "early.png"
    both = {"$undefined$": "early.png", "photo": "late.png"}
    assert parse_task(payload(data=both), "photo").image == "late.png"


@pytest.mark.parametrize("data", [{}, {"photo": None}, {"photo": ["a.png"]}, {"image": "a.png"}])
def test_a_task_without_an_image_under_the_key_is_a_task_all_the_same(data):
    assert parse_task(payload(data=data), "photo").image == ""


def test_a_task_that_does_not_say_when_it_was_made_has_no_time():
    undated = payload()
    del undated["created_at"]
    assert parse_task(undated, "photo").created_at is None


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (None, "no JSON object with a numeric id"),
        ("7", "no JSON object with a numeric id"),
        (payload(id="7"), "no JSON object with a numeric id"),
        (payload(id=True), "no JSON object with a numeric id"),
        (payload(data=None), "task 7 has no data"),
        (payload(data=["a.png"]), "task 7 has no data"),
        (payload(created_at="yesterday"), "task 7: created_at: 'yesterday' is no time"),
        (payload(created_at=5), "task 7: created_at: '5' is no time"),
    ],
)
def test_a_malformed_task_is_named_with_what_is_wrong(task, message):
    with pytest.raises(TaskError, match=message):
        parse_task(task, "photo")


def test_a_malformed_task_in_a_list_costs_no_other():
    first, second, third = parse_tasks([payload(), payload(data=None), payload(id=9)], "photo")
    assert (first.id, third.id) == (7, 9)
    assert isinstance(second, TaskError)
    assert str(second).startswith("task number 2 of the list: task 7 has no data")


@pytest.mark.parametrize(
    "project",
    [
        "3.1763700000",
        {"id": 3, "created_at": "2025-11-21T04:40:00.987654Z"},
        {"id": 3, "created_at": "2025-11-21T06:40:00+02:00"},
        {"id": 3, "created_at": "2025-11-21T04:40:00"},
    ],
)
def test_a_project_is_its_id_and_the_whole_second_of_its_creation(project):
    assert project_uid(project) == UID


@pytest.mark.parametrize(
    "project", [{"id": 3}, {"id": True, "created_at": "2025-11-21T04:40:00Z"}, "x.1", 3, None]
)
def test_what_names_no_project_is_refused_saying_how_one_is_named(project):
    with pytest.raises(ValueError, match=r"names no project: expected .*created_at"):
        project_uid(project)


def test_a_project_of_no_time_is_refused_saying_how_times_are_written():
    with pytest.raises(ValueError, match="'yesterday' is no time; expected one such as 2025"):
        project_uid({"id": 3, "created_at": "yesterday"})


def test_times_name_their_zone_or_are_utc():
    assert parse_time("2025-01-31T12:00:00Z") == datetime(2025, 1, 31, 12, tzinfo=UTC)
    assert parse_time("2025-01-31T12:00:00") == datetime(2025, 1, 31, 12, tzinfo=UTC)
    assert parse_time("2025-01-31T12:00:00+02:00") == datetime(
        2025, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))
    )


CROP = Crop(
    source_task=7,
    region=Region(2, 3, 4, 6),
    image=np.full((8, 12, 3), (200, 10, 30), np.uint8),
    context=np.full((20, 10, 3), (10, 10, 200), np.uint8),
    scale=2,
    round=1,
    rank=5,
    reason="uncertain",
    strategy="entropy",
    version="v1",
)


def test_a_regions_task_tells_annotators_why_and_us_from_where():
    data = crop_data(CROP, "/data/upload/1/a.jpg", "/data/upload/1/b.jpg")
    assert data["image"] == "/data/upload/1/a.jpg"
    assert data["context"] == "/data/upload/1/b.jpg"
    assert data["note"] == "Round 1 · region 5 · uncertain"
    place = {name: data[name] for name in ("source_task", "row", "col", "height", "width")}
    assert place == {"source_task": 7, "row": 2, "col": 3, "height": 4, "width": 6}


def test_regions_of_two_tasks_that_got_the_same_number_are_told_apart():
    made = datetime(2026, 1, 1, 12, tzinfo=UTC)
    data = crop_data(replace(CROP, source_created_at=made), "", "")
    assert data["source_created_at"] == "2026-01-01T12:00:00Z"
    later = crop_data(replace(CROP, source_created_at=made + timedelta(days=1)), "", "")
    assert crop_key(data) != crop_key(later)
    assert crop_key(data) == crop_key({**data, "note": "", "rank": 1})


def test_a_regions_pictures_are_named_by_their_place_and_keep_size_and_colours():
    region, context = crop_files(CROP)
    assert (region[0], context[0]) == ("task7-row2-col3.jpg", "task7-row2-col3-context.jpg")
    with Image.open(io.BytesIO(region[1])) as picture:
        assert picture.size == (12, 8)
        np.testing.assert_allclose(np.asarray(picture), CROP.image, atol=4)
    with Image.open(io.BytesIO(context[1])) as picture:
        assert picture.size == (10, 20)


def test_an_image_with_half_a_character_is_no_reason_to_stop():
    assert parse_task(payload(data={"photo": "/a\ud800\0.png"}), "photo").image == "/a??.png"


@pytest.mark.parametrize(
    "project",
    ["9" * 19, "\u0661.100", "1.2.3", "1.", "1.x", {"id": 2**63, "created_at": "2025-01-01"}],
)
def test_a_uid_that_no_project_can_have_is_refused(project):
    with pytest.raises(ValueError, match="names no project"):
        project_uid(project)


def test_the_note_says_how_many_regions_the_round_has_where_that_is_known():
    assert crop_data(replace(CROP, num_in_round=24), "", "")["note"].startswith(
        "Round 1 · region 5 of 24 · "
    )
    assert " of " not in crop_data(replace(CROP, num_in_round=3), "", "")["note"]
