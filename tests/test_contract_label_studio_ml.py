"""The plug-in under label-studio-ml: really hosted by 1.0.9, called as 2.x calls it."""

import builtins
import io
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from ralis_backend.app import EnvironmentBackend, plugin
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.labelstudio.plugin import LabelStudioMLBase, RalisBackend
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.learner import Learner
from ralis_backend.online.store import Store
from ralis_backend.settings import Settings

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="region" toName="image"><Label value="Suggested region"/></RectangleLabels>
<BrushLabels name="brush" toName="image"><Label value="road"/><Label value="sky"/></BrushLabels>
</View>"""
PROJECT = {"id": 3, "created_at": "2025-11-21T04:40:00Z", "label_config": CONFIG}
UID = "3.1763700000"
TASK = {
    "id": 1,
    "project": 3,
    "created_at": "2025-11-21T04:41:00Z",
    "data": {"image": "/data/upload/3/a.png"},
}
PARAMS = {"login": None, "password": None, "context": None}


def png(_task):
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def store(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path)
    store = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    yield store
    store.close()


@pytest.fixture
def backend(store):
    config = RankingConfig(region_size=(32, 32), spec=SegmenterSpec(1, encoder_weights=None))
    return RalisBackend.bind(Learner(store, config, png))


@pytest.fixture
def serve(tmp_path, closed_stores):
    """label-studio-ml's own server with a model class; its state is global, so it is put back."""
    from label_studio_ml.api import init_app
    from label_studio_ml.model import LabelStudioMLManager

    def start(model_class):
        app = init_app(model_class=model_class, model_dir=str(tmp_path / "models"))
        return app.test_client()

    yield start
    LabelStudioMLManager._current_model = {}


def test_the_plug_in_is_a_label_studio_ml_model():
    assert issubclass(RalisBackend, LabelStudioMLBase)
    assert plugin() is EnvironmentBackend


def test_plugin_binds_explicit_settings(tmp_path, closed_stores):
    bound = plugin(Settings(_env_file=None, data_dir=tmp_path))
    assert bound(label_config=CONFIG).model_version == "ralis-v0"


def test_1_0_9_serves_health_setup_and_predict(serve, backend, store):
    client = serve(backend)
    assert client.get("/health").json["status"] == "UP"
    body = {"project": UID, "schema": CONFIG, "hostname": "http://localhost", "access_token": "t"}
    assert client.post("/setup", json=body).json == {"model_version": "INITIAL"}
    store.projects.register(UID, 3, CONFIG, backend(label_config=CONFIG)._config().labels, "")

    body = {"tasks": [TASK, {"id": 2}], "project": UID, "label_config": CONFIG, "params": PARAMS}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200
    first, second = answer.json["results"]
    assert first["result"][0]["type"] == "rectanglelabels"
    assert second["result"] == []


def test_1_0_9_says_so_when_it_hosts_the_unbound_class(serve):
    answer = serve(RalisBackend).post("/setup", json={"project": UID, "schema": CONFIG})
    assert answer.status_code == 500
    assert "ralis_backend.app.plugin()" in answer.json["detail"]


@pytest.mark.e2e
def test_1_0_9_stores_a_webhook_from_the_process_it_starts(serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RALIS_DATA_DIR", str(tmp_path / "state"))
    client = serve(plugin())
    annotation = {"id": 11, "task": 1, "result": []}
    event = {"action": "ANNOTATION_CREATED", "project": PROJECT, "annotation": annotation}
    assert client.post("/webhook", json={**event, "task": TASK}).status_code == 201

    events = []
    deadline = time.monotonic() + 60
    while not events and time.monotonic() < deadline:
        time.sleep(0.2)
        if (tmp_path / "state" / "ralis.db").exists():
            events = stored_events(tmp_path / "state")
    assert [event.action for event in events] == ["ANNOTATION_CREATED"]


def stored_events(folder):
    store = Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")
    try:
        project = store.projects.find(UID)
        return [] if project is None else store.events.unread(project)
    finally:
        store.close()


def test_2_x_signatures(backend, store, monkeypatch):
    """Its server: Model(project_id="3", label_config=...), then predict, fit, get."""
    real_import = builtins.__import__

    def without_response(name, *args, **kwargs):
        if name == "label_studio_ml.response":
            raise ImportError("label-studio-ml 1.0.9 has no ModelResponse")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_response)

    model = backend(project_id="3", label_config=CONFIG)
    model.set_extra_params({"strategy": "margin"})
    assert model.get("model_version") == "ralis-v0"

    data = {"project": PROJECT, "annotation": {"id": 11, "task": 1, "result": []}, "task": TASK}
    model.fit("ANNOTATION_CREATED", data)
    assert [event.action for event in store.events.unread(store.projects.get(UID))] == [
        "ANNOTATION_CREATED"
    ]
    backend(project_id="3", label_config=CONFIG).fit("START_TRAINING", {"project": PROJECT})
    assert store.projects.get(UID).is_training_requested

    model = backend(project_id="3", label_config=CONFIG)
    (prediction,) = model.predict([TASK], context=None)
    assert set(prediction) >= {"result", "score", "model_version"}
    assert prediction["result"]
    assert str(model.model_version) == "ralis-v0"
