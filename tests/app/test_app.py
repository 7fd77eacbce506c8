import logging
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler

import pytest
from pydantic import SecretStr

from ralis_backend.app import create_app
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.learner import Learner
from ralis_backend.wiring import create_client, create_store
from tests.app.calls import CONFIG, UID, created, settings, setup
from tests.local_server import LocalServer


class WhoAmI(BaseHTTPRequestHandler):
    """A Label Studio that tells whose token it is sent."""

    def do_GET(self):
        token = self.headers["Authorization"].removeprefix("Token ")
        is_known = self.path == "/api/current-user/whoami" and token in self.server.tokens
        self.send_response(200 if is_known else 401)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def label_studio():
    with LocalServer(WhoAmI) as server:
        server.tokens = set()
        yield server


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


WEB_PROCESS = """
import sys
from ralis_backend.app import create_app

client = create_app().test_client()
assert client.get("/health").status_code == 200
body = {"project": sys.argv[1], "schema": sys.argv[2]}
assert client.post("/setup", json=body).json == {"model_version": "ralis-v0"}
print(*sys.modules)
"""


@pytest.mark.e2e
def test_the_web_process_loads_neither_simulation_nor_training_nor_plotting(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WEB_PROCESS, UID, CONFIG],
        cwd=tmp_path,
        env={**os.environ, "RALIS_DATA_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=True,
    )
    unwanted = (
        *("ralis_backend.simulation", "ralis_backend.offline", "ralis_backend.online.worker"),
        *("matplotlib", "tensorboard", "torch.utils.tensorboard"),
    )
    assert [name for name in done.stdout.split() if name.startswith(unwanted)] == []


def wired(tmp_path, monkeypatch, **values):
    """The app and Label Studio's client as they are made from the settings."""
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    values = {"label_studio_url": "http://ls.test:8080", **values}
    chosen = settings(data_dir=tmp_path, **values)
    learner = Learner(
        create_store(chosen),
        RankingConfig(region_size=(32, 32), spec=SegmenterSpec(1, encoder_weights=None)),
        None,
    )
    return create_app(chosen, learner).test_client(), create_client(chosen)


def test_without_an_api_key_the_token_of_setup_is_used_and_told_to_nobody(
    tmp_path, monkeypatch, caplog, label_studio
):
    token = "0123456789abcdef0123456789abcdef01234567"
    label_studio.tokens = {token}
    client, calls = wired(tmp_path, monkeypatch, label_studio_url=label_studio.url)
    assert calls.auth.kind == "no token"
    with caplog.at_level(logging.DEBUG):
        answer = setup(client, access_token=token)
    assert answer.status_code == 200
    assert calls.auth.kind == "legacy token handed over by Label Studio"
    assert calls.url == label_studio.url
    assert token not in caplog.text
    assert token not in answer.text
    assert setup(client, access_token=None).status_code == 200
    assert calls.auth.kind == "legacy token handed over by Label Studio"


def test_a_token_that_label_studio_does_not_know_replaces_none(tmp_path, monkeypatch, label_studio):
    token = "0123456789abcdef0123456789abcdef01234567"
    label_studio.tokens = {token}
    client, _ = wired(tmp_path, monkeypatch, label_studio_url=label_studio.url)
    setup(client, access_token=token)
    assert setup(client, access_token=token[::-1]).status_code == 200
    assert (tmp_path / "label-studio-token").read_text() == token


def test_with_an_api_key_the_token_of_setup_is_not_kept(tmp_path, monkeypatch):
    client, label_studio = wired(tmp_path, monkeypatch, label_studio_api_key=SecretStr("key"))
    assert setup(client, access_token="0123456789abcdef0123456789abcdef01234567").status_code == 200
    assert not (tmp_path / "label-studio-token").exists()
    assert label_studio.auth.kind == "legacy token"
