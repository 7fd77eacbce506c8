import pytest

from ralis_backend.labelstudio.payloads.events import MOST_IDS, event_payload, read_hint
from ralis_backend.online.tool import Hint

CREATED = {
    "action": "ANNOTATION_CREATED",
    "project": {"id": 3, "created_at": "x", "label_config": "long"},
    "annotation": {"id": 1, "task": 4, "result": [{"value": {"rle": [2] * 99}}], "prediction": {}},
    "task": {"id": 4, "created_at": "y", "data": {"text": "long"}, "annotations": [4]},
}


def test_of_a_webhook_ids_and_creation_times_are_kept():
    assert event_payload(CREATED) == {
        "project": {"id": 3, "created_at": "x"},
        "annotation": {"id": 1, "task": 4},
        "task": {"id": 4, "created_at": "y"},
    }
    many = {"tasks": [{"id": 5, "created_at": "y", "data": {}}, 6, None], "secret": "z"}
    assert event_payload(many) == {"tasks": [{"id": 5, "created_at": "y"}, 6, None]}
    assert event_payload({"task": {"id": "7" * 99}}) == {"task": {"id": "7" * 64}}


@pytest.mark.parametrize(
    ("action", "payload", "expected"),
    [
        ("ANNOTATION_CREATED", CREATED, Hint(frozenset({4}), frozenset({1}))),
        (
            "ANNOTATION_UPDATED",
            {"annotation": {"id": "1", "task": "4"}},
            Hint(frozenset({4}), frozenset({1})),
        ),
        (
            "ANNOTATIONS_CREATED",
            {"annotations": [{"id": 1, "task": 4}, {"id": 2, "task": 5}]},
            Hint(frozenset({4, 5}), frozenset({1, 2})),
        ),
        (
            "ANNOTATIONS_DELETED",
            {"annotations": [{"id": 1}, {"id": 2}]},
            Hint(frozenset(), frozenset({1, 2})),
        ),
        ("TASKS_CREATED", {"tasks": [{"id": 1}, {"id": 2}]}, Hint(made=frozenset({1, 2}))),
        ("TASKS_DELETED", {"tasks": [{"id": 1}]}, Hint(deleted=frozenset({1}))),
        ("PROJECT_UPDATED", {"project": {"id": 3}}, Hint(is_about_settings=True)),
    ],
)
def test_a_webhook_hints_at_ids(action, payload, expected):
    assert read_hint(action, payload) == expected
    assert read_hint(action, event_payload(payload)) == expected


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"annotation": None},
        {"annotation": "text"},
        {"annotation": {"id": True, "task": 1.5}},
        {"annotation": {"id": 2**31, "task": -1}},
        {"annotation": {"id": "9" * 30, "task": "\u0664"}},
        {"annotations": {"id": 1}, "task": [1]},
    ],
)
def test_what_names_nothing_is_unclear(payload):
    assert read_hint("ANNOTATION_CREATED", payload) == Hint(is_unclear=True)
    assert read_hint("TASKS_DELETED", payload).is_unclear
    assert read_hint("SOMETHING_NEW", payload).is_unclear


@pytest.mark.parametrize("name", ["annotations", "tasks"])
def test_a_webhook_of_a_list_without_end_is_kept_in_part_and_unclear(name):
    forged = {name: list(range(1, 10**6))}
    kept = event_payload(forged)
    assert kept == {name: list(range(1, MOST_IDS + 2))}
    for action in ("ANNOTATION_CREATED", "TASKS_CREATED", "TASKS_DELETED"):
        assert read_hint(action, kept) == read_hint(action, forged) == Hint(is_unclear=True)
    assert read_hint("PROJECT_UPDATED", kept).is_about_settings
    most = event_payload({name: list(range(1, MOST_IDS + 1))})
    assert not read_hint("ANNOTATION_CREATED", most).is_unclear


def test_of_what_stands_where_an_id_belongs_nothing_large_is_kept():
    odd = {"id": [1] * 10**5, "task": {"id": 4, "data": "long"}, "created_at": {"x": "y"}}
    assert event_payload({"annotation": odd, "task": {"id": 10**4000}}) == {
        "annotation": {"id": None, "task": 4, "created_at": None},
        "task": {"id": None},
    }
    assert event_payload({"tasks": [[1] * 10**5] * 3}) == {"tasks": [None] * 3}
