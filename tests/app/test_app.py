import base64
import io
import json
import logging

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from ralis_backend.app import create_app
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.online.learner import Learner
from ralis_backend.online.ranking import RankingConfig
from ralis_backend.online.store import ProjectStore
from ralis_backend.settings import Settings
from ralis_backend.wiring import create_client, create_store

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


def png(height=48, width=64):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def image_of(task):
    if "missing" in task.image:
        raise ValueError(f"task {task.id}: no such file")
    return png()


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


def settings(**values):
    return Settings(_env_file=None, **values)


@pytest.fixture
def store(tmp_path):
    store = ProjectStore.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    yield store
    store.close()


@pytest.fixture
def learner(store):
    config = RankingConfig(region_size=(32, 32), spec=SegmenterSpec(1, encoder_weights=None))
    return Learner(store, config, image_of)


@pytest.fixture
def client(learner):
    return create_app(settings(), learner).test_client()


@pytest.fixture
def guarded(learner):
    app = create_app(
        settings(
            auth_user="ralis", auth_password=SecretStr("pass:word"), auth_token=SecretStr("tok")
        ),
        learner,
    )
    return app.test_client()


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def setup(client, config=CONFIG, **values):
    body = {
        "project": UID,
        "schema": config,
        "hostname": "http://localhost:8080",
        "access_token": "t",
        "extra_params": None,
    }
    return client.post("/setup", json={**body, **values})


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
        "prediction": {"id": 5, "model_version": "v1", "result": [{"value": {"rle": [9] * 100}}]},
    }
    event = {"action": "ANNOTATION_CREATED", "project": PROJECT, "annotation": annotation}
    return {**event, "task": task(task_id), **values}


@pytest.mark.parametrize("path", ["/", "/health"])
def test_health_needs_no_credentials(guarded, path):
    answer = guarded.get(path)
    assert answer.status_code == 200
    assert answer.json == {"status": "UP", "model_class": "RalisBackend"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/setup"),
        ("post", "/predict"),
        ("post", "/webhook"),
        ("post", "/train"),
        ("get", "/versions"),
        ("post", "/validate"),
        ("post", "/job_status"),
        ("post", "/delete"),
        ("get", "/metrics"),
    ],
)
def test_everything_else_needs_credentials(guarded, method, path):
    for headers in (
        {},
        basic("ralis", "wrong"),
        basic("x", "pass:word"),
        {"Authorization": "Bearer x"},
        {"Authorization": "Token tok"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic"},
    ):
        answer = getattr(guarded, method)(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].lower().startswith("basic")
        assert "error" in answer.json


@pytest.mark.parametrize("headers", [basic("ralis", "pass:word"), {"Authorization": "Bearer tok"}])
def test_user_and_token_are_both_accepted(guarded, headers):
    assert guarded.get("/versions", headers=headers).status_code == 200


def test_without_credentials_only_this_machine_is_served(learner):
    far = {"REMOTE_ADDR": "192.0.2.7"}
    closed = create_app(settings(), learner).test_client()
    answer = closed.get("/versions", environ_overrides=far)
    assert answer.status_code == 403
    assert "RALIS_AUTH_USER" in answer.json["error"]
    assert closed.get("/health", environ_overrides=far).status_code == 200
    opened = create_app(settings(allow_anonymous=True), learner).test_client()
    assert opened.get("/versions", environ_overrides=far).status_code == 200


def test_setup_registers_the_project_and_answers_its_version(client, store):
    assert setup(client).json == {"model_version": "v0"}
    assert store.project(UID).class_names == ("road", "sky")


def test_setup_takes_the_strategy_of_extra_params(client, store):
    assert setup(client, extra_params='{"strategy": "margin"}').status_code == 200
    assert store.project(UID).strategy == "margin"
    refused = setup(client, extra_params="strategy=margin")
    assert refused.status_code == 400
    assert "extra_params" in refused.json["error"]


def test_setup_names_the_controls_of_an_ambiguous_config(client):
    config = CONFIG.replace(
        "</View>",
        '<PolygonLabels name="poly" toName="image"><Label value="car"/></PolygonLabels></View>',
    )
    answer = setup(client, config)
    assert answer.status_code == 400
    assert "brush" in answer.json["error"]
    assert "poly" in answer.json["error"]


def test_predict_answers_each_task_in_order_and_a_bad_one_fails_alone(client, caplog):
    setup(client)
    tasks = [
        task(1),
        task(2, image="/missing.png"),
        {"id": 3, "data": {}},
        "no task",
        task(4),
    ]
    with caplog.at_level(logging.WARNING):
        answer = predict(client, tasks)
    assert answer.status_code == 200
    results = answer.json["results"]
    assert len(results) == 5
    assert [bool(entry["result"]) for entry in results] == [True, False, False, False, True]
    assert all(isinstance(entry["score"], float) for entry in results)
    assert all(entry["model_version"] == "v0" for entry in results)
    assert "task 2: no such file" in caplog.text
    assert "'image'" in caplog.text


def test_predict_suggests_locked_rectangles(client):
    setup(client)
    results = predict(client, [task(1)]).json["results"][0]["result"]
    assert [entry["type"] for entry in results] == ["rectanglelabels"] * 3
    assert all(entry["readonly"] for entry in results)


def test_predict_makes_a_project_known_that_was_set_up_before_the_database(client):
    assert predict(client, [task(1)]).json["results"][0]["result"]


def test_predict_without_tasks_is_an_empty_answer(client):
    setup(client)
    assert predict(client, []).json == {"results": [], "model_version": "v0"}


def test_webhook_stores_the_event_without_what_the_worker_does_not_read(client, store):
    setup(client)
    assert client.post("/webhook", json=created()).status_code == 201
    (event,) = store.events(store.project(UID))
    from ralis_backend.online.store import unpack

    payload = unpack(event.payload)
    assert event.action == "ANNOTATION_CREATED"
    assert payload["project"] == {"id": 3, "created_at": PROJECT["created_at"]}
    assert payload["annotation"]["prediction"] == {"id": 5, "model_version": "v1"}
    assert payload["annotation"]["result"] == created()["annotation"]["result"]
    assert payload["task"]["data"] == {"image": "/data/upload/3/0a1b2c3d-a.png"}


def test_webhook_answers_for_an_unknown_project(client):
    assert client.post("/webhook", json=created()).status_code == 201


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("ANNOTATIONS_DELETED", {"annotations": [{"id": 11}]}),
        ("PROJECT_UPDATED", {}),
        ("TASKS_CREATED", {"tasks": [task(number) for number in range(50)]}),
        ("TASKS_DELETED", {"tasks": [{"id": 1}]}),
    ],
)
def test_every_webhook_of_label_studio_is_taken(client, action, body):
    setup(client)
    answer = client.post("/webhook", json={"action": action, "project": PROJECT, **body})
    assert answer.status_code == 201


@pytest.mark.parametrize("project", [PROJECT, UID])
@pytest.mark.parametrize("path", ["/webhook", "/train"])
def test_start_training_is_remembered(client, store, path, project):
    setup(client)
    answer = client.post(path, json={"action": "START_TRAINING", "project": project})
    assert answer.status_code == 201
    assert store.project(UID).is_training_requested
    assert client.post("/job_status", json={"project": UID}).json["job_status"] == "queued"


def test_start_training_of_an_unknown_project_says_what_to_do(client):
    answer = client.post("/webhook", json={"action": "START_TRAINING", "project": PROJECT})
    assert answer.status_code == 400
    assert "ralis connect" in answer.json["error"]


def test_versions_and_job_status_answer_with_and_without_a_project(client):
    setup(client)
    assert client.get("/versions").json == {"versions": [], "projects": {UID: []}}
    assert client.get(f"/versions?project={UID}").json["versions"] == []
    status = client.post("/job_status", json={"job": "1"}).json
    assert status["job_status"] == "finished"
    assert status["projects"][UID]["version"] == "v0"


def test_validate_tells_a_usable_config_from_another(client):
    assert client.post("/validate", json={"config": CONFIG}).json["labels"] == ["road", "sky"]
    answer = client.post("/validate", json={"config": "<View></View>"})
    assert answer.status_code == 400
    assert answer.json["error"]


def test_delete_forgets_the_project_and_is_repeatable(client, store):
    setup(client)
    for _ in range(2):
        assert client.post("/delete", json={"project": UID}).status_code == 200
    assert store.projects() == []


def test_metrics_count_requests_and_show_projects(client):
    setup(client)
    client.get("/setup")
    text = client.get("/metrics").text
    assert 'ralis_request_seconds_count{endpoint="setup",outcome="ok"} 1.0' in text
    assert f'ralis_model_version{{project="{UID}"}} 0.0' in text


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"score": NaN}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"a": ' * 65 + b"1" + b"}" * 65, "application/json", 400),
        (b'{"a": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b"project=1", "application/x-www-form-urlencoded", 415),
    ],
)
def test_a_bad_body_is_refused_as_json(client, body, content_type, status):
    for path in ("/setup", "/predict", "/webhook", "/validate", "/delete"):
        answer = client.post(path, data=body, content_type=content_type)
        assert answer.status_code == status
        assert answer.json["error"]


def test_brackets_in_strings_do_not_count_as_nesting(client):
    setup(client)
    body = json.dumps({**created(), "note": '[{"' * 200 + "\\"})
    answer = client.post("/webhook", data=body, content_type="application/json")
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/setup", {}),
        ("/setup", {"project": "x", "schema": CONFIG}),
        ("/setup", {"project": UID}),
        ("/predict", {"project": UID, "label_config": CONFIG}),
        ("/predict", {"project": UID, "tasks": {}}),
        ("/webhook", {"project": PROJECT}),
        ("/webhook", {"action": "ANNOTATION_CREATED"}),
        ("/webhook", {"action": ["x"], "project": PROJECT}),
        ("/webhook", {"action": "x", "project": {"id": "3", "created_at": 5}}),
        ("/job_status", {"project": 7}),
    ],
)
def test_a_body_that_lacks_something_is_refused_saying_what(client, path, body):
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json["error"]


def test_a_large_body_is_refused_with_and_without_its_length(learner):
    client = create_app(settings(max_request_bytes=2048), learner).test_client()
    body = json.dumps({"project": UID, "schema": "x" * 5000}).encode()
    declared = client.post("/setup", data=body, content_type="application/json")
    assert declared.status_code == 413
    streamed = client.post(
        "/setup",
        input_stream=io.BytesIO(body),
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True},
        headers={"Transfer-Encoding": "chunked"},
    )
    assert streamed.status_code == 413
    assert streamed.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("get", "/nothing", 404), ("get", "/setup", 405)]
)
def test_wrong_addresses_and_methods_are_answered_as_json(client, method, path, status):
    answer = getattr(client, method)(path)
    assert answer.status_code == status
    assert answer.json["error"]


def test_a_failure_shows_neither_traceback_nor_payload(client, learner, monkeypatch, caplog):
    def fail(*_):
        raise KeyError("sesame")

    monkeypatch.setattr(learner, "learn", fail)
    with caplog.at_level(logging.INFO):
        answer = client.post("/webhook", json=created())
    assert answer.status_code == 500
    assert "error" in answer.json
    assert "KeyError at" in caplog.text
    assert "sesame" not in answer.text + caplog.text
    assert "Traceback" not in answer.text + caplog.text


def test_the_wsgi_module_makes_an_app_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RALIS_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    app = create_app()
    assert app.test_client().get("/health").status_code == 200
    assert (tmp_path / "state" / "ralis.db").is_file()


def wired(tmp_path, monkeypatch, **values):
    """The app and Label Studio's client as they are made from the settings."""
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    chosen = settings(data_dir=tmp_path, label_studio_url="http://ls.test:8080", **values)
    learner = Learner(
        create_store(chosen),
        RankingConfig(region_size=(32, 32), spec=SegmenterSpec(1, encoder_weights=None)),
        None,
    )
    return create_app(chosen, learner).test_client(), create_client(chosen)


def test_without_an_api_key_the_token_of_setup_is_used_and_told_to_nobody(
    tmp_path, monkeypatch, caplog
):
    token = "0123456789abcdef0123456789abcdef01234567"
    client, label_studio = wired(tmp_path, monkeypatch)
    assert label_studio.auth.kind == "no token"
    with caplog.at_level(logging.DEBUG):
        answer = setup(client, access_token=token, hostname="http://attacker.test")
    assert answer.status_code == 200
    assert label_studio.auth.kind == "legacy token handed over by Label Studio"
    assert label_studio.url == "http://ls.test:8080"
    assert token not in caplog.text
    assert token not in answer.text
    assert setup(client, access_token=None).status_code == 200
    assert label_studio.auth.kind == "legacy token handed over by Label Studio"


def test_with_an_api_key_the_token_of_setup_is_not_kept(tmp_path, monkeypatch):
    client, label_studio = wired(tmp_path, monkeypatch, label_studio_api_key=SecretStr("key"))
    assert setup(client, access_token="0123456789abcdef0123456789abcdef01234567").status_code == 200
    assert not (tmp_path / "label-studio-token").exists()
    assert label_studio.auth.kind == "legacy token"
