import io
import json

import pytest

from ralis_backend.app import create_app
from tests.app.calls import UID, basic, created, settings, setup


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


@pytest.mark.parametrize(
    ("address", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("", 200), ("10.0.0.1", 403), ("fe80::1", 403), ("x", 403)],
)
def test_this_machine_is_a_loopback_address_or_a_unix_socket(client, address, status):
    answer = client.get("/versions", environ_overrides={"REMOTE_ADDR": address})
    assert answer.status_code == status


def test_without_credentials_only_this_machine_is_served(learner):
    far = {"REMOTE_ADDR": "192.0.2.7"}
    closed = create_app(settings(), learner).test_client()
    answer = closed.get("/versions", environ_overrides=far)
    assert answer.status_code == 403
    assert "RALIS_AUTH_USER" in answer.json["error"]
    assert closed.get("/health", environ_overrides=far).status_code == 200
    opened = create_app(settings(allow_anonymous=True), learner).test_client()
    assert opened.get("/versions", environ_overrides=far).status_code == 200


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
