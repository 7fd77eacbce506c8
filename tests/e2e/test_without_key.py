"""A first look without LABEL_STUDIO_API_KEY: the token that Label Studio hands over at /setup."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from werkzeug.serving import make_server

from ralis_backend.app import create_app
from ralis_backend.cli.demo.label_studio import LabelStudioServer
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import Unauthorised
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.settings import Settings
from ralis_backend.wiring import create_client, create_fetcher
from tests.e2e.conftest import TOKEN, server_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels></View>"""


@pytest.fixture
def own_label_studio(label_studio_data: Path, tmp_path: Path) -> Iterator[LabelStudioServer]:
    """A server whose organisation this test may change."""
    shutil.copytree(label_studio_data, tmp_path / "label-studio")
    with server_in(tmp_path / "label-studio") as server:
        yield server


@pytest.fixture
def settings(
    own_label_studio: LabelStudioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    return Settings(
        _env_file=None, label_studio_url=own_label_studio.url, data_dir=tmp_path / "ralis"
    )


@pytest.fixture
def backend_url(settings: Settings) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_connecting_lends_the_token_for_as_long_as_legacy_tokens_are_on(
    own_label_studio: LabelStudioServer, settings: Settings, backend_url: str
) -> None:
    admin = LabelStudioClient(own_label_studio.url, TOKEN)
    project_id = admin.create_project("Without key", CONFIG)["id"]
    file = io.BytesIO()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(file, "PNG")
    admin.upload_files(project_id, [("road.png", file.getvalue())])
    client = create_client(settings)
    tool = LabelStudioTool(client, create_fetcher(settings, client))
    with pytest.raises(Unauthorised, match="LABEL_STUDIO_API_KEY is not set"):
        client.project(project_id)

    admin.create_backend(project_id, backend_url, "RALIS")
    assert client.project(project_id)["title"] == "Without key"
    (task,) = tool.tasks(project_id)
    assert tool.image(task) == file.getvalue()
    assert tool.prepare(tool.project(project_id), settings.mode, None) is None  # in-place

    answer = httpx.post(
        f"{own_label_studio.url}/api/jwt/settings",
        json={"legacy_api_tokens_enabled": False, "api_tokens_enabled": True},
        headers={"Authorization": f"Token {TOKEN}"},
    )
    assert answer.is_success, answer.text
    with pytest.raises(Unauthorised, match="legacy tokens are off"):
        client.project(project_id)
    for opened in (admin, client):
        opened.close()
