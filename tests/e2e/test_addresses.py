"""Label Studio as companies run it: below a path, under another name, behind TLS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import numpy as np
import pytest

from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.core.images import decode_image, encode_png
from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.labelstudio.address_book import AddressBook
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.doctor import Surroundings, image_checks
from ralis_backend.labelstudio.fetcher import ImageFetcher, ImageNotAllowed
from ralis_backend.labelstudio.network import Network
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.regions_config import regions_config
from ralis_backend.labelstudio.setup import ProjectSetup
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.tool import Crop
from tests.e2e.conftest import LABEL_STUDIO, PASSWORD, TOKEN, USERNAME, Backend
from tests.labelstudio.certificates import make_certificates
from tests.local_server import LocalServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PUBLIC = "https://label.example.com/ls"
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="road"/><Label value="car"/></BrushLabels></View>'
)
PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


class PublicLabelStudio(LabelStudioServer):
    """One that is told its public address, as a company's is."""

    def _variables(self):
        return {**super()._variables(), "LABEL_STUDIO_HOST": PUBLIC}


class ReverseProxy(BaseHTTPRequestHandler):
    """Takes /ls off the path, as the proxy in front of such a server does."""

    port = 0

    def do_GET(self):
        self.pass_on()

    def do_POST(self):
        self.pass_on()

    def pass_on(self):
        if not self.path.startswith("/ls/"):
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        answer = httpx.request(
            self.command,
            f"http://127.0.0.1:{self.port}{self.path.removeprefix('/ls')}",
            headers=headers,
            content=body,
            timeout=60,
            trust_env=False,
        )
        self.send_response(answer.status_code)
        for name in ("content-type", "location"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def studio(label_studio_data: Path, tmp_path_factory) -> Iterator[PublicLabelStudio]:
    root = tmp_path_factory.mktemp("public")
    shutil.copytree(label_studio_data, root / "data")
    (root / "files" / "set").mkdir(parents=True)
    (root / "files" / "set" / "1 ä.png").write_bytes(encode_png(PIXELS))
    server = PublicLabelStudio(
        *(LABEL_STUDIO, root / "data", free_port(), USERNAME, PASSWORD, TOKEN),
        local_files_root=root / "files",
    )
    with server:
        yield server


@contextmanager
def proxied(port: int, context=None) -> Iterator[int]:
    handler = type("Handler", (ReverseProxy,), {"port": port})
    with LocalServer(handler, context) as server:
        yield server.server_port


@pytest.fixture(scope="module")
def project_id(studio) -> int:
    """A project with an upload, and with synced local files."""
    client = LabelStudioClient(studio.url, TOKEN)
    made = client.create_project("Public", CONFIG)["id"]
    client.upload_files(made, [("road.png", encode_png(PIXELS))])
    storage = client._send(
        "POST",
        "/api/storages/localfiles/",
        {"project": made, "path": str(studio.local_files_root / "set"), "use_blob_urls": True},
    )
    client._send("POST", f"/api/storages/localfiles/{storage['id']}/sync", {})
    client.close()
    return made


@pytest.fixture
def tool_at(tmp_path):
    """A tool for a server at an address."""
    opened = []

    def make(url, network=None, **known):
        opened.append(LabelStudioClient(url, TOKEN, network=network))
        return LabelStudioTool(
            opened[-1], ImageFetcher(opened[-1], tmp_path / "images", 0, **known)
        )

    yield make
    for client in opened:
        client.close()


@pytest.mark.parametrize("way", ["direct", "reverse proxy", "tls"])
@pytest.mark.parametrize("is_learned", [True, False])
def test_images_of_a_server_below_a_path_are_read(
    studio, project_id, tool_at, tmp_path, way, is_learned
):
    book = AddressBook(tmp_path / "addresses.json")
    if is_learned:
        book.offer(PUBLIC)
    known = {"learned": book.known} if is_learned else {"public_url": PUBLIC}
    ca, context = make_certificates(tmp_path / "ca", "127.0.0.1")
    with proxied(studio.port, context if way == "tls" else None) as port:
        scheme = "https" if way == "tls" else "http"
        url = studio.url if way == "direct" else f"{scheme}://127.0.0.1:{port}/ls"
        tool = tool_at(url, Network((ca,)), **known)
        tasks = {tool.image_kind(task): task for task in tool.tasks(project_id)}
        assert set(tasks) == {"uploads", "local files at label.example.com"}
        assert tasks["uploads"].image.startswith("/ls/data/upload/")
        for task in tasks.values():
            np.testing.assert_array_equal(decode_image(tool.image(task)), PIXELS)


def test_without_its_public_address_the_message_says_which_setting(studio, project_id, tool_at):
    tool = tool_at(studio.url)
    tasks = {tool.image_kind(task): task for task in tool.tasks(project_id)}
    decode_image(tool.image(tasks["uploads"]))
    with pytest.raises(ImageNotAllowed, match="LABEL_STUDIO_PUBLIC_URL"):
        tool.image(tasks["the host label.example.com"])


def test_label_studio_says_its_public_address_when_it_is_connected(studio, project_id):
    said = []

    class Listening(Backend):
        def do_POST(self):  # noqa: N802  (a handler's)
            said.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(b'{"model_version": "v0"}')

    with LocalServer(Listening) as server, closing(LabelStudioClient(studio.url, TOKEN)) as client:
        client.create_backend(project_id, server.url, "Backend")
    assert json.loads(said[0])["hostname"] == PUBLIC


@pytest.mark.parametrize("is_told", [True, False])
def test_crops_are_shown_below_the_path_as_well(studio, project_id, tool_at, is_told):
    tool = tool_at(studio.url, public_url=PUBLIC if is_told else None)
    client = LabelStudioClient(studio.url, TOKEN)
    config = regions_config(parse_label_config(CONFIG))
    regions = client.create_project("Regions", config)["id"]
    crop = Crop(1, Region(0, 0, 8, 8), PIXELS[:8, :8], PIXELS, 1, 1, 1, "", "random", "v0")
    tool.create_crop_tasks(tool.project(project_id), regions, [crop])
    (task,) = client.tasks(regions)
    with proxied(studio.port) as port:
        for key in ("image", "context"):
            shown = httpx.get(
                f"http://127.0.0.1:{port}{task['data'][key]}",
                headers={"Authorization": f"Token {TOKEN}"},
                trust_env=False,
            )
            assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    client.delete_project(regions)
    client.close()


def test_the_doctor_tries_one_image_of_each_kind_of_address(studio, project_id, tool_at, tmp_path):
    tool = tool_at(studio.url, public_url=PUBLIC)
    around = Surroundings(
        client=tool._client,
        tool=tool,
        setup=ProjectSetup(tool._client),
        backend_url=None,
        headers=lambda uid: {},
        data_dir=tmp_path,
        spec=SegmenterSpec(2, encoder_weights=None),
        device="cpu",
        strategy=lambda classes: "entropy",
    )
    found = {it.name: it for it in image_checks(around, project_id, "1.1")}
    assert found["images"].detail.startswith("2 tasks: ")
    local = "image download, local files at label.example.com"
    for name in ("image download, uploads", local):
        assert found[name].is_ok
        assert "40 x 30 pixels, 3 bands of 8 bits, PNG" in found[name].detail
    blind = replace(around, tool=tool_at(studio.url))
    failed = [it for it in image_checks(blind, project_id, "1.1") if not it.is_ok]
    assert [it.name for it in failed] == ["image download, the host label.example.com"]
    assert "LABEL_STUDIO_PUBLIC_URL" in failed[0].fix
