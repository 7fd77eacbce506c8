"""Real parts: a Label Studio server, its client, CamVid images."""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.cli.demo.workplace import Workplace
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import NotFound
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.tool import ToolProject
from tests.e2e.pool import CLASSES, config, make_tool
from tests.local_server import LocalServer
from tests.real_parts import SHARED, missing

CAMVID = SHARED / "data/camvid"
LABEL_STUDIO = Path(sys.prefix).parent / ".venv-label-studio/bin/label-studio"
USERNAME, PASSWORD = "admin@example.com", "ralis-test-1"
TOKEN = "0123456789abcdef0123456789abcdef01234567"


def server_in(folder: Path) -> LabelStudioServer:
    """A Label Studio server on its own data folder, not started."""
    return LabelStudioServer(LABEL_STUDIO, folder, free_port(), USERNAME, PASSWORD, TOKEN)


@pytest.fixture(scope="session")
def label_studio_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose database exists: the first start takes half a minute, so it is kept."""
    if not LABEL_STUDIO.is_file():
        missing(f"{LABEL_STUDIO} is not there; run `make setup`")
    cache = Path(os.environ.get("RALIS_TEST_CACHE", tempfile.gettempdir()))
    template = cache / "ralis-label-studio-1.23.2"
    with (cache / "ralis-label-studio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process makes it, the others wait for that
        if not (template / "label_studio.sqlite3").is_file():
            made = tmp_path_factory.mktemp("making") / "data"
            with server_in(made):
                pass
            copied = Path(tempfile.mkdtemp(dir=cache, prefix="ralis-label-studio-making-"))
            shutil.copytree(made, copied, dirs_exist_ok=True)
            shutil.rmtree(template, ignore_errors=True)
            copied.rename(template)
    return template


@pytest.fixture(scope="module")
def demo_folder(label_studio_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `ralis demo` of this file keeps everything, as after a first start of Label Studio."""
    if not CAMVID.exists():
        missing(f"{CAMVID} is not there; set RALIS_SHARED")
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(label_studio_data, folder / "label-studio")
    Workplace(folder, USERNAME, PASSWORD, TOKEN).save()
    return folder


@pytest.fixture(scope="session")
def label_studio(
    label_studio_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelStudioServer]:
    """One running server for all tests; each makes projects of its own."""
    folder = tmp_path_factory.mktemp("label-studio") / "data"
    shutil.copytree(label_studio_data, folder)
    with server_in(folder) as server:
        yield server


@pytest.fixture(scope="session")
def client(label_studio: LabelStudioServer) -> Iterator[LabelStudioClient]:
    """The API with the administrator's legacy token."""
    opened = LabelStudioClient(label_studio.url, TOKEN)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def personal_token(label_studio: LabelStudioServer) -> str:
    """Made as a user does, on the account page."""
    with httpx.Client(base_url=label_studio.url, follow_redirects=True) as browser:
        browser.get("/user/login/")
        token = browser.cookies["csrftoken"]
        form = {"email": USERNAME, "password": PASSWORD, "csrfmiddlewaretoken": token}
        browser.post("/user/login/", data=form, headers={"Referer": label_studio.url})
        headers = {"X-CSRFToken": browser.cookies["csrftoken"], "Referer": label_studio.url}
        answer = browser.post("/api/token/", json={}, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


@pytest.fixture
def tool(client: LabelStudioClient, tmp_path: Path) -> LabelStudioTool:
    """The worker's tool, with a cache of its own."""
    return make_tool(client, tmp_path)


@pytest.fixture
def pool(client: LabelStudioClient, tool: LabelStudioTool) -> Iterator[ToolProject]:
    """An empty pool project with two labels."""
    made = client.create_project("A pool", config(*CLASSES))
    yield tool.project(made["id"])
    client.delete_project(made["id"])


@pytest.fixture
def regions(
    client: LabelStudioClient, tool: LabelStudioTool, pool: ToolProject
) -> Iterator[int | None]:
    """The number of the pool's regions project."""
    regions_id = tool.prepare(pool, "crops", None)
    yield regions_id
    with suppress(NotFound):
        client.delete_project(regions_id)


class Backend(BaseHTTPRequestHandler):
    """The least that Label Studio accepts as an ML backend; it wants user:secret."""

    def do_GET(self):
        self.answer(b'{"status": "UP", "model_class": "Backend"}')

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        user = base64.b64encode(b"user:secret").decode()
        is_known = self.headers.get("Authorization") == f"Basic {user}"
        self.answer(b'{"model_version": "v0"}', 200 if is_known else 401)

    def answer(self, content, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def backend_url() -> Iterator[str]:
    """Address of a backend that answers and does nothing."""
    with LocalServer(Backend) as server:
        yield server.url
