"""Real parts: a Label Studio server, its client, CamVid images."""

from __future__ import annotations

import base64
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.labelstudio.client import LabelStudioClient
from tests.real_parts import SHARED, missing

CAMVID = SHARED / "data/camvid"
LABEL_STUDIO = Path(sys.prefix).parent / ".venv-label-studio/bin/label-studio"
USERNAME, PASSWORD = "admin@example.com", "ralis-test-1"
TOKEN = "0123456789abcdef0123456789abcdef01234567"


def server_in(folder: Path) -> LabelStudioServer:
    """A Label Studio server on its own data folder, not started."""
    return LabelStudioServer(LABEL_STUDIO, folder, free_port(), USERNAME, PASSWORD, TOKEN)


@pytest.fixture(scope="session")
def label_studio_data() -> Path:
    """A data folder whose database exists: the first start takes a minute, so it is kept."""
    if not LABEL_STUDIO.is_file():
        missing(f"{LABEL_STUDIO} is not there; run `make setup`")
    cache = Path(os.environ.get("RALIS_TEST_CACHE", tempfile.gettempdir()))
    template = cache / "ralis-label-studio-1.23.2"
    if not (template / "label_studio.sqlite3").is_file():
        making = Path(tempfile.mkdtemp(dir=cache, prefix="ralis-label-studio-making-"))
        with server_in(making):
            pass
        shutil.rmtree(template, ignore_errors=True)
        making.rename(template)
    return template


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `ralis demo` of this file keeps everything."""
    for needed in (CAMVID, LABEL_STUDIO):
        if not needed.exists():
            missing(f"{needed} is not there; run `make setup`, or set RALIS_SHARED")
    return tmp_path_factory.mktemp("demo")


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
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
