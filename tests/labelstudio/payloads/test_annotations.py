from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads.annotations import (
    annotated_regions,
    decode_annotation,
    parse_annotation,
)
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.labelstudio.payloads.results import AnnotationError
from tests.fuzz.targets import annotation_json

CONFIG = parse_label_config(
    '<View><Image name="image" value="$image"/><RectangleLabels name="region" toName="image">'
    '<Label value="Suggested region"/></RectangleLabels><BrushLabels name="mask" toName="image">'
    '<Label value="road"/><Label value="car"/></BrushLabels></View>'
)


def _webhook(**fields: Any) -> dict[str, Any]:
    """An annotation as `ANNOTATION_CREATED` carries it, less what nobody reads."""
    return {
        "id": 11,
        "task": 3,
        "project": 1,
        "completed_by": 1,
        "result": [],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2025-11-21T05:21:00.123456Z",
        "updated_at": "2025-11-21T05:22:00Z",
        "lead_time": 12.5,
        "prediction": {"id": 4, "model_version": "v2", "result": []},
        "parent_prediction": 4,
        **fields,
    }


def test_the_webhooks_shape_is_read():
    annotation = parse_annotation(_webhook())
    assert (annotation.id, annotation.task_id, annotation.task_created_at) == (11, 3, None)
    assert annotation.created_at == datetime(2025, 11, 21, 5, 21, 0, 123456, UTC)
    assert annotation.updated_at == datetime(2025, 11, 21, 5, 22, tzinfo=UTC)
    assert (annotation.annotator, annotation.lead_time_s) == ("1", 12.5)
    assert (annotation.is_skipped, annotation.suggested_version) == (False, "v2")


def test_the_apis_shape_with_the_whole_task_is_read():
    payload = _webhook(
        task={"id": 3, "created_at": "2025-11-20T00:00:00Z", "data": {"image": "/data/a.png"}},
        completed_by={"id": 1, "email": "anna@example.com", "first_name": ""},
        prediction={},
        parent_prediction={"model_version": "v1"},
    )
    annotation = parse_annotation(payload)
    assert annotation.task_created_at == datetime(2025, 11, 20, tzinfo=UTC)
    assert (annotation.annotator, annotation.suggested_version) == ("anna@example.com", "v1")


@pytest.mark.parametrize(
    ("completed_by", "annotator"),
    [
        (None, ""),
        (7, "7"),
        ("anna", "anna"),
        ({"id": 7}, "7"),
        ({"email": "", "id": 7}, "7"),
        ({}, ""),
    ],
)
def test_the_annotator_is_known_by_mail_or_id(completed_by, annotator):
    assert parse_annotation(_webhook(completed_by=completed_by)).annotator == annotator


def test_a_skip_is_no_labelling():
    assert parse_annotation(_webhook(was_cancelled=True)).is_skipped
    assert not parse_annotation(_webhook(was_cancelled=None)).is_skipped


def test_what_may_be_missing_may_be_missing():
    payload = _webhook()
    for name in ("updated_at", "lead_time", "prediction", "parent_prediction", "completed_by"):
        del payload[name]
    annotation = parse_annotation(payload)
    assert annotation.updated_at == annotation.created_at
    assert (annotation.lead_time_s, annotation.suggested_version) == (None, None)


@pytest.mark.parametrize("lead_time", [None, "3", True, float("nan"), float("inf"), 10**400, []])
def test_a_malformed_lead_time_is_no_reason_to_lose_an_annotation(lead_time):
    assert parse_annotation(_webhook(lead_time=lead_time)).lead_time_s is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": None}, "id is None"),
        ({"id": "11"}, "id is '11'"),
        ({"id": True}, "id is True"),
        ({"task": None}, "id is None"),
        ({"task": [3]}, "id is \\[3\\]"),
        ({"task": {}}, "id is None"),
        ({"task": {"id": 3, "created_at": "soon"}}, "created_at is 'soon'"),
        ({"created_at": None}, "11: created_at is None"),
        ({"created_at": 20250101}, "created_at is 20250101"),
        ({"created_at": "yesterday"}, "created_at is 'yesterday'"),
        ({"updated_at": "later"}, "updated_at is 'later'"),
        ({"result": None}, "11: result is no list"),
        ({"result": {}}, "result is no list"),
        ({"result": ["stroke"]}, "result is no list of objects"),
    ],
)
def test_a_malformed_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        parse_annotation(_webhook(**fields))


@pytest.mark.parametrize("name", ["id", "task", "result", "created_at"])
def test_a_missing_field_is_named(name):
    payload = _webhook()
    del payload[name]
    with pytest.raises(ValueError, match="id is None" if name == "task" else name):
        parse_annotation(payload)


@pytest.mark.parametrize("payload", [None, [], "annotation", 5])
def test_what_is_no_annotation_is_refused(payload):
    with pytest.raises(ValueError, match="expected an object"):
        parse_annotation(payload)


def test_an_annotation_gives_its_mask_and_its_regions():
    mask = np.array([[0, 1, VOID], [1, 1, VOID]], np.uint8)
    box = {"x": 0, "y": 0, "width": 200 / 3, "height": 100, "rotation": 0}
    rectangle = {
        "id": "box",
        "type": "rectanglelabels",
        "from_name": "region",
        "value": {**box, "rectanglelabels": ["Suggested region"]},
    }
    results = [rectangle, *mask_to_results(mask, ["road", "car"], CONFIG, key="k")]
    annotation = parse_annotation(_webhook(result=results))
    np.testing.assert_array_equal(
        decode_annotation(annotation, CONFIG, ["road", "car"], (2, 3), None), mask
    )
    assert annotated_regions(annotation, CONFIG, (2, 3)) == [Region(0, 0, 2, 2)]
    with pytest.raises(AnnotationError, match="'car'"):
        decode_annotation(annotation, CONFIG, ["road"], (2, 3), None)


def test_feedback_that_a_region_is_not_worth_labelling_skips_it_unless_somebody_painted():
    refusal = {"type": "choices", "value": {"choices": ["Not worth labelling"]}}
    untouched = {"type": "brushlabels", "origin": "prediction", "value": {}}
    painted = {"type": "brushlabels", "origin": "manual", "value": {}}
    assert parse_annotation(_webhook(result=[untouched, refusal])).is_skipped
    assert not parse_annotation(_webhook(result=[untouched, painted, refusal])).is_skipped
    assert not parse_annotation(_webhook(result=[untouched])).is_skipped


@pytest.mark.parametrize("name", ["id", "task"])
@pytest.mark.parametrize("number", [2**63, -(2**63), 10**400])
def test_an_id_that_no_database_takes_is_refused(name, number):
    with pytest.raises(ValueError, match=r"id is .*expected an id"):
        parse_annotation({**annotation_json(), name: number})


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
@pytest.mark.parametrize("name", ["created_at", "updated_at"])
def test_a_time_that_does_not_exist_in_utc_is_refused(name, time):
    with pytest.raises(ValueError, match=f"{name} is .*expected a time"):
        parse_annotation({**annotation_json(), name: time})


def test_text_that_no_database_takes_is_replaced():
    half = {"email": "a\ud800\0@b.co"}
    found = parse_annotation({
        **annotation_json(), "completed_by": half, "prediction": {"model_version": "v\udfff"}
    })  # fmt: skip
    assert (found.annotator, found.suggested_version) == ("a??@b.co", "v?")
    assert (
        len(parse_annotation({**annotation_json(), "completed_by": "x" * 10**6}).annotator) == 320
    )


def test_an_error_of_an_annotation_is_short_whatever_is_in_it():
    for name in ("id", "created_at", "result", "task"):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parse_annotation({**annotation_json(), name: {"x" * 10**6: [["y"] * 10**5]}})
        assert len(str(caught.value)) < 500


def test_a_star_is_read():
    assert parse_annotation(_webhook(ground_truth=True)).is_starred
    for value in (False, None, "true", 1):
        assert not parse_annotation(_webhook(ground_truth=value)).is_starred


BULK = {"lead_time": None, "updated_by": None, "parent_prediction": 4, "prediction": {}}
"""What 1.23.2 writes for "Create annotations from predictions"."""


@pytest.mark.parametrize("lead_time", [None, 0, 0.0, "", float("nan")])
def test_what_was_made_from_predictions_in_bulk_is_a_machines(lead_time):
    assert parse_annotation(_webhook(**{**BULK, "lead_time": lead_time})).is_machine


@pytest.mark.parametrize(
    "touched",
    [
        {"lead_time": 2.5},
        {"updated_by": 2},
        {"ground_truth": True},
        {"was_cancelled": True},
        {"parent_prediction": None},
    ],
)
def test_what_a_person_has_touched_is_a_persons(touched):
    assert not parse_annotation(_webhook(**{**BULK, **touched})).is_machine
