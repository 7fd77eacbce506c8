import io
import shutil

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from ralis_backend.app import create_app
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.learner import Learner
from ralis_backend.online.store import Store
from ralis_backend.wiring import webhook_headers
from tests.app.calls import settings


def png(height=48, width=64):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def image_of(task):
    if "missing" in task.image:
        raise ValueError(f"task {task.id}: no such file")
    return png()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch, closed_stores):
    """What the app writes to its data folder, `.ralis` here, goes with the test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path)
    store = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
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


@pytest.fixture
def own_secret(learner, tmp_path):
    """A guarded app, and what gives the headers of a project's webhooks."""
    chosen = settings(auth_user="ralis", auth_password=SecretStr("secret"), data_dir=tmp_path)
    return create_app(chosen, learner).test_client(), webhook_headers(chosen)
