import logging

import pytest
from pydantic import SecretStr

from ralis_backend.app import create_app
from ralis_backend.app.attempts import MAX_FAILURES
from ralis_backend.wiring import webhook_headers
from tests.app.calls import PROJECT, UID, basic, created, settings


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
    [
        *(("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("", 200)),
        *(("10.0.0.1", 403), ("::ffff:10.0.0.1", 403), ("fe80::1", 403), ("x", 403)),
    ],
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


LOCAL = "http://localhost:9090"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.0.2.7"},
        {"x-forwarded-proto": "https"},
        {"X-Real-IP": "127.0.0.1"},
        {"Forwarded": "for=192.0.2.7"},
        {"Via": "1.1 proxy"},
        {"CF-Connecting-IP": "192.0.2.7"},
        {"Host": "rebound.test"},
        {"Host": "127.0.0.1.rebound.test:9090"},
        {"Host": "localhost.rebound.test"},
        {"Host": "user@localhost"},
        {"Host": "localhost, rebound.test"},
        {"Host": "0.0.0.0:9090"},
        {"Host": "2130706433"},
        {"Host": "[::ffff:192.0.2.7]"},
        {"Host": ""},
        {"Origin": "http://rebound.test"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000", "Host": "localhost:9090"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_without_credentials_neither_a_proxy_nor_a_page_gets_in(client, headers):
    answer = client.get("/versions", headers=headers)
    assert answer.status_code == 403
    assert "RALIS_AUTH_USER" in answer.json["error"]
    assert client.get("/health", headers=headers).status_code == 200


def test_without_credentials_what_speaks_http_1_0_may_be_a_proxy(client):
    old = {"SERVER_PROTOCOL": "HTTP/1.0"}
    assert client.get("/versions", environ_overrides=old).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:9090"},
        {"Host": "LOCALHOST."},
        {"Host": "127.0.0.1"},
        {"Host": "127.1.2.3:80"},
        {"Host": "[::1]:9090"},
        {"Host": "localhost:9090", "Origin": LOCAL, "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_without_credentials_programs_of_this_machine_get_in(client, headers):
    assert client.get("/versions", headers=headers).status_code == 200


def test_the_backends_own_address_is_a_name_of_this_machine(learner):
    client = create_app(settings(backend_url="http://ralis.test:9090"), learner).test_client()
    assert client.get("/versions", headers={"Host": "ralis.test:9090"}).status_code == 200
    assert client.get("/versions", headers={"Host": "other.test:9090"}).status_code == 403


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("http://bücher.test:9090", "xn--bcher-kva.test:9090"),
        ("http://ralis.test.:9090", "ralis.test"),
        ("http://ralis.test:9090", "Ralis.test."),
        ("http://[fd00:0::1]:9090", "[fd00::1]:9090"),
    ],
)
def test_the_backends_own_address_is_known_however_it_is_written(learner, address, host):
    client = create_app(settings(backend_url=address), learner).test_client()
    assert client.get("/versions", headers={"Host": host}).status_code == 200


def test_with_credentials_a_proxy_gets_in(guarded):
    headers = {**basic("ralis", "pass:word"), "X-Forwarded-For": "192.0.2.7", "Host": "ralis.test"}
    assert guarded.get("/versions", headers=headers).status_code == 200


def test_wrong_credentials_are_slowed_down_and_logged_without_them(guarded, caplog):
    def get(headers, address="192.0.2.7"):
        return guarded.get("/versions", headers=headers, environ_overrides={"REMOTE_ADDR": address})

    for _ in range(3 * MAX_FAILURES):
        assert get({}).status_code == 401, "who gives none guesses nothing"
    with caplog.at_level(logging.INFO):
        answers = [get(basic("ralis", "sesame")).status_code for _ in range(MAX_FAILURES + 5)]
    assert answers == [401] * MAX_FAILURES + [429] * 5
    right = get(basic("ralis", "pass:word"))
    assert right.status_code == 429
    assert 0 < int(right.headers["Retry-After"]) <= 60
    assert get(basic("ralis", "pass:word"), "192.0.2.8").status_code == 200
    assert "wrong credentials from 192.0.2.7" in caplog.text
    assert "sesame" not in caplog.text


def test_a_damaged_secret_refuses_webhooks_and_is_told_to_the_operator_alone(
    learner, tmp_path, caplog
):
    chosen = settings(auth_user="ralis", auth_password=SecretStr("secret"), data_dir=tmp_path)
    headers = webhook_headers(chosen)(UID)
    (tmp_path / "webhook-secret").write_text("zz")
    answer = (
        create_app(chosen, learner).test_client().post("/webhook", json=created(), headers=headers)
    )
    assert answer.status_code == 401
    assert str(tmp_path) not in answer.text
    assert f"a webhook is refused: {tmp_path / 'webhook-secret'} is damaged" in caplog.text


def test_a_webhooks_secret_opens_the_webhook_of_its_project_alone(own_secret):
    client, headers = own_secret
    assert client.post("/webhook", json=created(), headers=headers(UID)).status_code == 201
    other = headers("4.1763700000")
    refused = client.post("/webhook", json=created(), headers=other)
    assert refused.status_code == 403
    assert "project 4.1763700000" in refused.json["error"]
    for project in ({**PROJECT, "id": 4}, {**PROJECT, "created_at": "2024-01-01T00:00:00Z"}):
        answer = client.post("/webhook", json=created(project=project), headers=headers(UID))
        assert answer.status_code == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "TRACE"])
def test_a_webhooks_secret_opens_nothing_else(own_secret, method):
    client, headers = own_secret
    paths = [rule.rule for rule in client.application.url_map.iter_rules()]
    for path in {*paths, "/nothing"} - {"/", "/health"}:
        if (method, path) != ("POST", "/webhook"):
            answer = client.open(path, method=method, headers=headers(UID), json={"project": UID})
            assert answer.status_code in (401, 429)


def test_the_credentials_still_open_the_webhook(own_secret):
    client, _ = own_secret
    answer = client.post("/webhook", json=created(), headers=basic("ralis", "secret"))
    assert answer.status_code == 201
