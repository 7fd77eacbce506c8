import logging

import pytest

from ralis_backend.app import create_app
from ralis_backend.online.store import unpack
from ralis_backend.wiring import create_address_book
from tests.app.calls import CONFIG, PROJECT, UID, created, predict, settings, setup, task


def test_setup_registers_the_project_and_answers_its_version(client, store):
    assert setup(client).json == {"model_version": "v0"}
    assert store.projects.get(UID).class_names == ("road", "sky")


def test_setup_takes_the_strategy_of_extra_params(client, store):
    assert setup(client, extra_params='{"strategy": "margin"}').status_code == 200
    assert store.projects.get(UID).strategy == "margin"
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


def test_of_a_webhook_only_what_it_hints_at_is_stored(client, store):
    setup(client)
    assert client.post("/webhook", json=created()).status_code == 201
    (event,) = store.events.unread(store.projects.get(UID))
    assert event.action == "ANNOTATION_CREATED"
    assert unpack(event.payload) == {
        "project": {"id": 3, "created_at": PROJECT["created_at"]},
        "annotation": {"id": 11, "task": 1, "created_at": "2025-11-21T04:50:00Z"},
        "task": {"id": 1, "project": 3, "created_at": "2025-11-21T04:41:00.5Z"},
    }


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
    assert store.projects.get(UID).is_training_requested
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


def test_a_job_is_started_while_the_worker_works_on_any_project(client, store):
    setup(client)
    store.projects.change(store.projects.get(UID).id, progress={"state": "training"})
    assert client.get("/job_status").json["job_status"] == "started"
    assert client.get(f"/job_status?project={UID}").json["job_status"] == "started"


def test_validate_tells_a_usable_config_from_another(client):
    assert client.post("/validate", json={"config": CONFIG}).json["labels"] == ["road", "sky"]
    answer = client.post("/validate", json={"config": "<View></View>"})
    assert answer.status_code == 400
    assert answer.json["error"]


def test_delete_forgets_the_project_and_is_repeatable(client, store):
    setup(client)
    for _ in range(2):
        assert client.post("/delete", json={"project": UID}).status_code == 200
    assert store.projects.all() == []


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


HUGE = 10**20


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/setup", {"project": f"{HUGE}.1", "schema": CONFIG}),
        ("/setup", {"project": "3.1\x1b[31m", "schema": CONFIG}),
        ("/setup", {"project": "3.1\n2026 ERROR forged", "schema": CONFIG}),
        ("/setup", {"project": "3.1\0", "schema": CONFIG}),
        ("/setup", {"project": "٣.1", "schema": CONFIG}),
        ("/setup", {"project": "3." + "1" * 70, "schema": CONFIG}),
        ("/setup", {"project": UID, "schema": CONFIG, "extra_params": {"strategy": "x" * 300}}),
        ("/setup", {"project": UID, "schema": CONFIG.replace("road", "x" * 600)}),
        ("/predict", {"project": f"{HUGE}.1", "tasks": [], "label_config": CONFIG}),
        ("/webhook", {"action": "x", "project": {**PROJECT, "id": HUGE}}),
        ("/webhook", {"action": "x", "project": {**PROJECT, "id": -1}}),
        (
            "/webhook",
            {"action": "x", "project": {**PROJECT, "created_at": "0001-01-01T00:00+14:00"}},
        ),
        ("/webhook", {"action": "x" * 65, "project": UID}),
        ("/webhook", {"action": "x\ny", "project": UID}),
        ("/train", {"project": f"{HUGE}.1"}),
        ("/delete", {"project": f"{HUGE}.1"}),
        ("/job_status", {"project": f"{HUGE}.1"}),
    ],
)
def test_what_no_database_holds_and_no_log_should_is_refused(client, store, path, body):
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json["error"]
    assert store.projects.all() == []


@pytest.mark.parametrize("number", [HUGE, -1, 1.5, "1", True, None])
def test_a_task_with_an_impossible_id_fails_alone(client, number):
    setup(client)
    results = predict(client, [{**task(1), "id": number}, task(2)]).json["results"]
    assert [bool(it["result"]) for it in results] == [False, True]


def test_an_error_quotes_only_so_much(client):
    controls = "".join(
        f'<BrushLabels name="{number}" toName="image"><Label value="a"/></BrushLabels>'
        for number in range(2000)
    )
    answer = setup(client, f'<View><Image name="image" value="$image"/>{controls}</View>')
    assert answer.status_code == 400
    assert len(answer.json["error"]) == 2000


def test_what_label_studio_gives_as_its_address_is_remembered(learner, tmp_path):
    given = settings(data_dir=tmp_path)
    client = create_app(given, learner).test_client()
    for hostname in ("https://label.example.com/ls", "javascript:alert(1)", None, 7):
        body = {"project": UID, "schema": CONFIG, "hostname": hostname, "extra_params": None}
        assert client.post("/setup", json=body).status_code == 200
    assert create_address_book(given).known() == ("https://label.example.com/ls",)
