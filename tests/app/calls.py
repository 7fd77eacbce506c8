"""What Label Studio sends to a backend."""

import base64

from ralis_backend.settings import Settings

UID = "3.1763700000"
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="region" toName="image"><Label value="Suggested region"/></RectangleLabels>
<BrushLabels name="brush" toName="image"><Label value="road"/><Label value="sky"/></BrushLabels>
</View>"""
PROJECT = {
    "id": 3,
    "title": "Streets",
    "label_config": CONFIG,
    "created_at": "2025-11-21T04:40:00.123456Z",
    "model_version": "ralis",
    "parsed_label_config": {},
}


def task(task_id, image="/data/upload/3/0a1b2c3d-a.png"):
    return {
        "id": task_id,
        "data": {"image": image},
        "meta": {},
        "created_at": "2025-11-21T04:41:00.5Z",
        "updated_at": "2025-11-21T04:41:00.5Z",
        "file_upload": 1,
        "project": 3,
        "annotations": [],
        "predictions": [],
    }


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def setup(client, config=CONFIG, headers=None, **values):
    body = {
        "project": UID,
        "schema": config,
        "hostname": "http://localhost:8080",
        "access_token": "t",
        "extra_params": None,
    }
    return client.post("/setup", json={**body, **values}, headers=headers)


def predict(client, tasks, **values):
    body = {
        "tasks": tasks,
        "project": UID,
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": None},
    }
    return client.post("/predict", json={**body, **values})


def created(annotation_id=11, task_id=1, **values):
    annotation = {
        "id": annotation_id,
        "task": task_id,
        "completed_by": 1,
        "result": [{"id": "a", "type": "brushlabels", "value": {"rle": [1, 2, 3]}}],
        "was_cancelled": False,
        "lead_time": 4.2,
        "created_at": "2025-11-21T04:50:00Z",
        "updated_at": "2025-11-21T04:50:00Z",
        "prediction": {
            "id": 5,
            "model_version": "ralis-v1",
            "result": [{"value": {"rle": [9] * 100}}],
        },
    }
    event = {"action": "ANNOTATION_CREATED", "project": PROJECT, "annotation": annotation}
    return {**event, "task": task(task_id), **values}


def settings(**values):
    return Settings(_env_file=None, **values)
