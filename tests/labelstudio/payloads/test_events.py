from ralis_backend.labelstudio.payloads.events import event_payload


def test_event_payload_keeps_labels_and_drops_copies():
    data = {
        "action": "ANNOTATION_UPDATED",
        "project": {"id": 3, "created_at": "x", "label_config": "long"},
        "annotation": {"id": 1, "result": [1], "prediction": {"id": 2, "result": [2] * 99}},
        "task": {"id": 4, "data": {}, "predictions": [3], "annotations": [4]},
        "tasks": [{"id": 5, "created_at": "y", "data": {"text": "long"}}],
    }
    assert event_payload(data) == {
        "project": {"id": 3, "created_at": "x"},
        "annotation": {"id": 1, "result": [1], "prediction": {"id": 2}},
        "task": {"id": 4, "data": {}},
        "tasks": [{"id": 5, "created_at": "y"}],
    }
    assert event_payload({"annotations": [{"id": 1}], "annotation": {"prediction": 7}}) == {
        "annotations": [{"id": 1}],
        "annotation": {"prediction": 7},
    }
