from __future__ import annotations

import base64
import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from ralis_backend.labelstudio import client as client_module
from ralis_backend.labelstudio import fetcher as module
from ralis_backend.labelstudio import outages
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.data_images import MAX_DATA_CHARACTERS
from ralis_backend.labelstudio.errors import Unauthorised, Unavailable
from ralis_backend.labelstudio.fetcher import ImageFetcher, ImageNotAllowed
from ralis_backend.labelstudio.network import Network
from ralis_backend.labelstudio.payloads.tasks import data_reference, parse_task
from ralis_backend.online.tool import ImageUnreachable, ToolNotFound, ToolTask
from ralis_backend.setting_forms import image_hosts
from tests.labelstudio.fake_label_studio import streamed
from tests.local_server import LocalServer

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
URL = "http://ls.test:8080"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", (0.0,))


def task(image, task_id=7, created_at=CREATED, project_id=1):
    return ToolTask(task_id, created_at, image, project_id=project_id)


class LabelStudio:
    """What a Label Studio server answers, and what it was asked."""

    def __init__(self, answer=None):
        self.requests: list[httpx.Request] = []
        self.answer = answer or httpx.Response(200, content=b"pixels")

    def __call__(self, request):
        self.requests.append(request)
        return streamed(self.answer)

    def fetcher(self, tmp_path, allowed=(), cache_bytes=10**6, url=URL, projects=(), **known):
        client = LabelStudioClient(url, "token", transport=httpx.MockTransport(self))
        return ImageFetcher(client, tmp_path / "cache", cache_bytes, allowed, projects, **known)

    def paths(self):
        return [(request.url.host, request.url.raw_path.decode()) for request in self.requests]


class Elsewhere(BaseHTTPRequestHandler):
    """A web server of somebody else, on loopback."""

    answers: dict[str, tuple[int, dict[str, str], bytes]] = {}  # noqa: RUF012
    requests: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012

    def do_GET(self):
        self.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        status, headers, content = self.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def elsewhere() -> Iterator[int]:
    Elsewhere.answers = {"/a.png": (200, {}, b"elsewhere")}
    Elsewhere.requests = []
    with LocalServer(Elsewhere) as server:
        yield server.server_port


@pytest.fixture
def names(monkeypatch):
    """Names -> addresses, as a name server would answer; and how often it was asked."""
    table, asked = {}, []

    def getaddrinfo(host, port, *arguments, **options):
        asked.append(host)
        found = table.get(host, host)
        return [(2, 1, 6, "", (it, port)) for it in ([found] if isinstance(found, str) else found)]

    monkeypatch.setattr(module.socket, "getaddrinfo", getaddrinfo)
    return table, asked


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/0123abcd-road.png",
        "/data/local-files/?d=folder%2Froad.png",
        f"{URL}/data/upload/1/0123abcd-road.png",
        "/tasks/7/resolve/?fileuri=czM6Ly9idWNrZXQvYS5wbmc=",
    ],
)
def test_files_of_label_studio_are_read_with_the_token(tmp_path, image):
    server = LabelStudio()
    assert server.fetcher(tmp_path).fetch(task(image)) == b"pixels"
    (request,) = server.requests
    assert str(request.url) == URL + image.removeprefix(URL)
    assert request.headers["authorization"] == "Token token"


def test_label_studio_below_a_path_is_asked_below_it(tmp_path):
    server = LabelStudio()
    fetcher = server.fetcher(tmp_path, url="http://ls.test/label")
    fetcher.fetch(task("http://ls.test/label/data/upload/1/a.png"))
    fetcher.fetch(task("/data/upload/1/b.png"))
    paths = [request.url.path for request in server.requests]
    assert paths == ["/label/data/upload/1/a.png", "/label/data/upload/1/b.png"]


BELOW_A_PATH = [
    ("/ls/data/upload/1/a.png", "/data/upload/1/a.png"),
    ("/ls/data/upload/1/a%20b%23.png", "/data/upload/1/a%20b%23.png"),
    ("https://pub.test/ls/data/upload/1/a.png", "/data/upload/1/a.png"),
    ("https://pub.test/data/local-files/?d=set/1.jpg", "/data/local-files/?d=set/1.jpg"),
    ("http://pub.test:80/ls/tasks/7/resolve/?fileuri=aa", "/tasks/7/resolve/?fileuri=aa"),
    ("https://PUB.test/ls/tasks/7/presign/?fileuri=aa", "/tasks/7/presign/?fileuri=aa"),
    (
        "https://pub.test/storage-data/uploaded/?filepath=upload%2F1%2Fa.png",
        "/storage-data/uploaded/?filepath=upload%2F1%2Fa.png",
    ),
]


@pytest.mark.parametrize("url", ["http://ls.test:8080", "http://ls.test:8080/label"])
@pytest.mark.parametrize(("image", "path"), BELOW_A_PATH)
@pytest.mark.parametrize("is_learned", [True, False])
def test_what_lies_at_its_public_address_is_asked_of_label_studio_itself(
    tmp_path, image, path, url, is_learned
):
    server, public = LabelStudio(), "https://pub.test/ls"
    known = {"learned": lambda: [public]} if is_learned else {"public_url": public}
    assert server.fetcher(tmp_path, url=url, **known).fetch(task(image)) == b"pixels"
    below = httpx.URL(url).path.rstrip("/")
    assert server.paths() == [("ls.test", below + path)]


@pytest.mark.parametrize("is_learned", [True, False])
def test_a_public_address_opens_no_more_than_label_studios_files(tmp_path, is_learned):
    server, public = LabelStudio(), "https://pub.test/ls"
    known = {"learned": lambda: [public]} if is_learned else {"public_url": public}
    fetcher = server.fetcher(tmp_path, **known)
    for image in (
        "https://pub.test/ls/api/users",
        "https://pub.test/ls/data/upload/2/secret.png",
        "https://pub.test/ls/data/upload/%2e%2e/2/secret.png",
        "https://pub.test/ls/tasks/8/resolve/?fileuri=aa",
        "https://pub.test/l%73/data/upload/1/a.png",
        "https://pub.test:8443/ls/data/upload/1/a.png",
        "/ls/../api/users",
        "/ls/api/data/upload/2/a.png",
    ):
        with pytest.raises(ImageNotAllowed):
            fetcher.fetch(task(image))
    assert server.requests == []


def test_a_learned_address_takes_nothing_from_a_host_that_the_operator_named(tmp_path, elsewhere):
    image = f"http://127.0.0.1:{elsewhere}/data/upload/1/a.png"
    Elsewhere.answers["/data/upload/1/a.png"] = (200, {}, b"elsewhere")
    server = LabelStudio()
    liar = {"learned": lambda: [f"http://127.0.0.1:{elsewhere}"]}
    assert server.fetcher(tmp_path, ["127.0.0.1"], **liar).fetch(task(image)) == b"elsewhere"
    assert server.requests == []
    assert "authorization" not in Elsewhere.requests[0][1]


def test_another_server_behind_the_same_proxy_is_read_where_it_is_named(tmp_path, elsewhere):
    own = f"http://127.0.0.1:{elsewhere}/ls"
    Elsewhere.answers["/pictures/a.png"] = (200, {}, b"elsewhere")
    fetcher = LabelStudio().fetcher(tmp_path, ["127.0.0.1"], url=own)
    image = f"http://127.0.0.1:{elsewhere}/pictures/a.png"
    assert fetcher.fetch(task(image)) == b"elsewhere"
    assert "authorization" not in Elsewhere.requests[0][1]


def test_a_redirect_to_another_file_of_label_studio_is_followed_within_the_same_rules(tmp_path):
    class Moved(LabelStudio):
        target = "/ls/storage-data/uploaded/?filepath=upload/1/a.png"

        def __call__(self, request):
            moved = httpx.Response(303, headers={"location": self.target})
            self.answer = (
                moved if "/upload/" in request.url.path else httpx.Response(200, content=b"x")
            )
            return super().__call__(request)

    server = Moved()
    assert server.fetcher(tmp_path).fetch(task("/data/upload/1/a.png")) == b"x"
    server.target = "/storage-data/uploaded/?filepath=upload/2/a.png"
    with pytest.raises(ImageNotAllowed, match="project 2"):
        server.fetcher(tmp_path).fetch(task("/data/upload/1/b.png"))
    server.target = "/data/upload/1/c.png"
    with pytest.raises(Unauthorised):
        server.fetcher(tmp_path).fetch(task("/data/upload/1/c.png"))


@pytest.mark.parametrize(
    "image",
    [
        "data:image/png;base64,cGl4ZWxz",
        "data:image/png;charset=utf-8;base64,cGl4ZWxz",
        "DATA:image/png;BASE64,cGl4%0AZWxz",
        "data:;base64,cGl4ZWxz",
        "data:image/png,pixels",
    ],
)
def test_an_image_that_stands_in_its_task_is_read(tmp_path, image):
    server = LabelStudio()
    assert server.fetcher(tmp_path).fetch(task(image)) == b"pixels"
    assert server.requests == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("data:text/html;base64,aaaa", "of no image"),
        ("data:image/png;base64", "of no image"),
        ("data:image/png;base64,a*aa", "no base64"),
        ("data:image/png;base64,aaaaa", "no base64"),
        ("data:image/png;base64," + "a" * MAX_DATA_CHARACTERS, "at most 20000000"),
    ],
)
def test_a_data_address_that_is_none_fails_without_being_quoted(tmp_path, image, message):
    with pytest.raises(ValueError, match=message) as caught:
        LabelStudio().fetcher(tmp_path).fetch(task(image))
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("scheme", ["s3", "gs", "azure-blob"])
def test_cloud_files_are_read_through_label_studio(tmp_path, scheme):
    server = LabelStudio()
    uri = f"{scheme}://bucket/folder/road 1.png"
    server.fetcher(tmp_path).fetch(task(uri))
    (request,) = server.requests
    assert request.url.path == "/tasks/7/resolve/"
    assert base64.urlsafe_b64decode(request.url.params["fileuri"]).decode() == uri


@pytest.mark.parametrize(
    "image",
    [
        "/api/users",
        "/data/../api/users",
        "/data/upload/%2e%2e/%2e%2e/api/users",
        f"{URL}/api/projects/1/next",
        "/logout",
        "/",
        "/data/",
        "/data/avatars/1.png",
        "/data/upload/1/",
        "/data/upload/x/a.png",
        "/data/upload/\u0661/a.png",
        "//data/upload/1/a.png",
        "/data/export/1.zip",
        "/storage-data/uploaded/?filepath=avatars/1.png",
        "/storage-data/uploaded/?filepath=upload/1/a.png&filepath=upload/2/a.png",
        "/storage-data/uploaded/?filepath=upload/1/../2/a.png",
        "/storage-data/uploaded/",
    ],
)
def test_a_task_cannot_send_the_token_to_other_calls(tmp_path, image):
    server = LabelStudio()
    with pytest.raises(ImageNotAllowed, match=r"no file of Label Studio|not allowed"):
        server.fetcher(tmp_path).fetch(task(image))
    assert server.requests == []


FOREIGN = [
    "/data/upload/2/0123abcd-secret.png",
    "/data/upload/1/../2/0123abcd-secret.png",
    "/data/upload/%32/0123abcd-secret.png",
    "/data/upload/02/0123abcd-secret.png",
    f"{URL}/data/upload/2/0123abcd-secret.png",
    "/storage-data/uploaded/?filepath=upload%2F2%2Fsecret.png",
    "/projects/2/resolve/?fileuri=czM6Ly9idWNrZXQvYS5wbmc=",
    f"{URL}/projects/2/presign/?fileuri=czM6Ly9idWNrZXQvYS5wbmc=",
]


@pytest.mark.parametrize("image", FOREIGN)
def test_a_task_cannot_show_files_of_another_project(tmp_path, image):
    server = LabelStudio()
    with pytest.raises(ImageNotAllowed, match=r"task 7 of project 1 .*project 2.*UPLOAD_PROJECTS"):
        server.fetcher(tmp_path, projects=["3"]).fetch(task(image))
    with pytest.raises(ImageNotAllowed, match="of project unknown"):
        server.fetcher(tmp_path).fetch(task(image, project_id=None))
    assert server.requests == []


@pytest.mark.parametrize("projects", [["2"], ["*"]])
@pytest.mark.parametrize("image", FOREIGN)
def test_the_operator_may_allow_files_of_another_project(tmp_path, image, projects):
    assert LabelStudio().fetcher(tmp_path, projects=projects).fetch(task(image)) == b"pixels"


FOLDERS = [("1", "scans"), ("2", "xray/a"), ("*", "shared")]


@pytest.mark.parametrize(
    "place",
    [
        "d=xray%2Fa%2F1.png",
        "d=1.png",
        "d=scans",
        "d=scansx/1.png",
        "d=scans/../xray/a/1.png",
        "d=scans%5C..%5Cxray%5Ca%5C1.png",
        "d=scans/1.png&d=xray/a/1.png",
        "d=scans/1.png&d=",
        "",
    ],
)
@pytest.mark.parametrize("start", ["", URL])
def test_a_task_shows_local_files_of_its_own_projects_folders_alone(tmp_path, place, start):
    server = LabelStudio()
    with pytest.raises(
        ImageNotAllowed, match=r"folders \(scans, shared\).* 1:FOLDER to RALIS_LOCAL"
    ):
        server.fetcher(tmp_path, local_folders=FOLDERS).fetch(
            task(f"{start}/data/local-files/?{place}")
        )
    assert server.requests == []


@pytest.mark.parametrize(
    ("place", "project"),
    [
        ("d=scans/1.png", 1),
        ("d=%2Fscans%2F.%2Fdeep/1.png", 1),
        ("d=shared/1.png", 1),
        ("d=xray/a/1.png", 2),
        ("d=shared/1.png", None),
    ],
)
def test_local_files_of_a_projects_folders_are_shown(tmp_path, place, project):
    image = task(f"/data/local-files/?{place}", project_id=project)
    fetcher = LabelStudio().fetcher(tmp_path, local_folders=FOLDERS)
    assert fetcher.fetch(image) == b"pixels"


def test_a_project_whose_folder_is_a_star_shows_any_local_file(tmp_path):
    fetcher = LabelStudio().fetcher(tmp_path, local_folders=[("1", "*")])
    assert fetcher.fetch(task("/data/local-files/?d=xray/1.png")) == b"pixels"
    with pytest.raises(ImageNotAllowed, match="it has none"):
        fetcher.fetch(task("/data/local-files/?d=xray/1.png", project_id=2))


def test_a_redirect_to_a_local_file_of_another_project_is_not_followed(tmp_path):
    answer = httpx.Response(302, headers={"location": "/data/local-files/?d=xray/a/1.png"})
    server = LabelStudio(answer)
    with pytest.raises(ImageNotAllowed, match="RALIS_LOCAL_FOLDERS"):
        server.fetcher(tmp_path, local_folders=FOLDERS).fetch(
            task("/data/local-files/?d=scans/1.png")
        )
    assert len(server.requests) == 1


def test_a_task_cannot_have_another_tasks_cloud_file_resolved(tmp_path):
    server = LabelStudio()
    image = "/tasks/8/resolve/?fileuri=czM6Ly9idWNrZXQvYS5wbmc="
    with pytest.raises(ImageNotAllowed, match="shows a file of task 8"):
        server.fetcher(tmp_path, projects=["1"]).fetch(task(image))
    assert server.fetcher(tmp_path, projects=["*"]).fetch(task(image)) == b"pixels"


def test_what_is_no_longer_allowed_does_not_come_from_the_cache(tmp_path):
    image = "/data/upload/2/a.png"
    LabelStudio().fetcher(tmp_path, projects=["2"]).fetch(task(image))
    with pytest.raises(ImageNotAllowed):
        LabelStudio().fetcher(tmp_path).fetch(task(image))


@pytest.mark.parametrize("location", [None, "", "  "])
@pytest.mark.parametrize("status", [300, 302, 304, 308])
def test_a_redirect_that_leads_nowhere_is_named(tmp_path, elsewhere, status, location):
    headers = {} if location is None else {"location": location}
    server = LabelStudio(httpx.Response(status, headers=headers))
    with pytest.raises(ValueError, match=r"image .* is redirected"):
        server.fetcher(tmp_path).fetch(task("/data/upload/1/a.png"))
    Elsewhere.answers["/moved"] = (status, headers, b"")
    with pytest.raises(ValueError, match=r"image .* is redirected"):
        server.fetcher(tmp_path, allowed=["127.0.0.1"]).fetch(
            task(f"http://127.0.0.1:{elsewhere}/moved")
        )


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_refused(tmp_path, elsewhere, location):
    Elsewhere.answers["/moved"] = (302, {"Location": location}, b"")
    with pytest.raises(ImageNotAllowed, match="no http"):
        LabelStudio().fetcher(tmp_path, allowed=["127.0.0.1"]).fetch(
            task(f"http://127.0.0.1:{elsewhere}/moved")
        )


@pytest.mark.parametrize(
    "image", ["file:///etc/passwd", "ftp://h/a.png", "a.png", "javascript:alert(1)"]
)
def test_other_addresses_are_refused(tmp_path, image):
    with pytest.raises(ImageNotAllowed, match="no address that the backend reads"):
        LabelStudio().fetcher(tmp_path).fetch(task(image))


def test_a_task_without_image_says_so(tmp_path):
    with pytest.raises(ValueError, match="task 7 has no image"):
        LabelStudio().fetcher(tmp_path).fetch(task(""))


def test_hosts_that_are_not_allowed_are_refused_with_the_setting_to_change(tmp_path, names):
    with pytest.raises(ImageNotAllowed, match="RALIS_IMAGE_HOSTS"):
        LabelStudio().fetcher(tmp_path).fetch(task("https://elsewhere.test/a.png"))
    assert names[1] == []


def test_an_allowed_host_is_read_at_its_checked_address_without_our_token(
    tmp_path, elsewhere, names
):
    table, asked = names
    table["images.test"] = "127.0.0.1"
    fetcher = LabelStudio().fetcher(tmp_path, allowed=["*.test"])
    assert fetcher.fetch(task(f"http://images.test:{elsewhere}/a.png")) == b"elsewhere"
    ((path, headers),) = Elsewhere.requests
    assert path == "/a.png"
    assert headers["host"] == f"images.test:{elsewhere}"
    assert "authorization" not in headers
    assert asked.count("images.test") == 1  # looked up once: it cannot change in between


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("10.0.0.7", "http://10.0.0.7:9000/a.png"),
        ("fd00::1", "http://[FD00:0::1]:9000/a.png"),
        ("xn--bcher-kva.test", "https://xn--bcher-kva.test/a.png"),
        ("xn--bcher-kva.test", "https://bücher.test/a.png"),
        ("bücher.test", "https://xn--bcher-kva.test/a.png"),
        ("*.xn--bcher-kva.test", "https://www.bücher.test/a.png"),
    ],
)
def test_a_host_is_allowed_however_an_address_writes_it(tmp_path, allowed, address):
    addresses = LabelStudio().fetcher(tmp_path, allowed=image_hosts(allowed)).addresses
    assert addresses.is_named(address)


@pytest.mark.parametrize(
    ("setting", "host", "sent"),
    [
        ("faß.test", "faß.test", "xn--fa-hia.test"),
        ("xn--fa-hia.test", "faß.test", "xn--fa-hia.test"),
        ("xn--n3h.test", "xn--n3h.test", "xn--n3h.test"),
    ],
)
def test_a_host_is_looked_up_and_asked_by_its_name_in_ascii(
    tmp_path, elsewhere, names, setting, host, sent
):
    names[0][sent] = "127.0.0.1"
    fetcher = LabelStudio().fetcher(tmp_path, allowed=image_hosts(setting))
    assert fetcher.fetch(task(f"http://{host}:{elsewhere}/a.png")) == b"elsewhere"
    ((_, headers),) = Elsewhere.requests
    assert headers["host"] == f"{sent}:{elsewhere}"


def test_the_next_address_of_a_host_is_tried_where_nothing_answers(tmp_path, elsewhere, names):
    table, _ = names
    fetcher = LabelStudio().fetcher(tmp_path, allowed=["images.test"])
    table["images.test"] = ["169.254.1.1", "::1", "127.0.0.1"]
    assert fetcher.fetch(task(f"http://images.test:{elsewhere}/a.png")) == b"elsewhere"
    table["images.test"] = ["::1", "127.0.0.2"]
    with pytest.raises(
        ImageUnreachable, match=r"ConnectError at ::1, ConnectError at 127\.0\.0\.2"
    ):
        fetcher.fetch(task(f"http://images.test:{elsewhere}/b.png"))


@pytest.fixture
def dropping(monkeypatch):
    """Hosts that drop packets: where it was tried to connect, and for how many seconds each."""
    tried = []

    def drop(request):
        tried.append((request.url.host, request.extensions["timeout"]["connect"]))
        raise httpx.ConnectTimeout("timed out")

    monkeypatch.setattr(module, "DeadlineTransport", lambda *_: httpx.MockTransport(drop))
    return tried


def test_all_addresses_of_a_host_together_have_one_time_to_connect(tmp_path, names, dropping):
    names[0]["images.test"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
    with pytest.raises(ImageUnreachable, match=r"ConnectTimeout at 10\.0\.0\.3$"):
        LabelStudio().fetcher(tmp_path, ["images.test"]).fetch(task("http://images.test/a.png"))
    assert len(dropping) == module.MAX_ADDRESSES
    assert sum(seconds for _, seconds in dropping) == pytest.approx(module.CONNECT_S)


def test_both_families_of_a_hosts_addresses_are_tried(tmp_path, names, dropping):
    names[0]["images.test"] = ["fd00::1", "fd00::2", "fd00::3", "fd00::4", "10.0.0.1"]
    with pytest.raises(ImageUnreachable):
        LabelStudio().fetcher(tmp_path, ["images.test"]).fetch(task("http://images.test/a.png"))
    assert [host for host, _ in dropping] == ["fd00::1", "10.0.0.1", "fd00::2"]


def test_a_dead_proxy_is_tried_once(tmp_path, names, dropping):
    names[0]["bucket.test"] = ["93.184.216.34", "93.184.216.35"]
    there = httpx.Response(302, headers={"Location": "http://bucket.test/a.png"})
    client = LabelStudioClient(
        URL,
        "token",
        transport=httpx.MockTransport(LabelStudio(there)),
        network=Network(proxies={"http": "http://proxy.test:3128"}),
    )
    with pytest.raises(ImageUnreachable):
        ImageFetcher(client, tmp_path, 0).fetch(task("/data/upload/1/a.png"))
    assert len(dropping) == 1


@pytest.mark.parametrize(
    "image",
    [
        "http://[::1/a.png",
        "http://me:secret@ls\u2100.test/a.png",
        "http://me:secret@images.test:99999/a.png",
        "http:///a.png",
        "s3://[bucket/a.png",
    ],
)
def test_an_address_that_no_program_can_read_names_its_task(tmp_path, image):
    fetcher = LabelStudio().fetcher(tmp_path, ["images.test"])
    with pytest.raises(ValueError, match=r"^task 7: its image has no valid address: '") as error:
        fetcher.fetch(task(image))
    assert "secret" not in str(error.value)
    assert fetcher.addresses.kind(task(image)) == "no valid address"


def test_an_answer_is_an_answer_and_no_other_address_is_asked(tmp_path, elsewhere, names):
    names[0]["images.test"] = ["127.0.0.1", "127.0.0.1", "::1"]
    Elsewhere.answers["/busy.png"] = (503, {}, b"")
    fetcher = LabelStudio().fetcher(tmp_path, allowed=["images.test"])
    with pytest.raises(ImageUnreachable, match="answered 503"):
        fetcher.fetch(task(f"http://images.test:{elsewhere}/busy.png"))
    assert len(Elsewhere.requests) == 1


def test_label_studio_sends_the_backend_to_public_addresses_of_a_host_alone(
    tmp_path, names, monkeypatch
):
    names[0]["bucket.test"] = ["10.0.0.5", "192.0.0.9", "8.8.8.8"]
    ways = LabelStudio().fetcher(tmp_path)._ways("http://bucket.test/a", is_trusted=True)
    assert [way.url.host for way in ways] == ["8.8.8.8"]


@pytest.mark.parametrize("name", ["xn--n3h.test", "☃.test"])
def test_a_name_that_httpx_cannot_show_is_told_with_its_task(tmp_path, elsewhere, names, name):
    table, _ = names
    table["images.test"] = "127.0.0.1"
    fetcher = LabelStudio().fetcher(tmp_path, allowed=["images.test"])
    Elsewhere.answers["/out"] = (302, {"Location": "http://xn--n3h.test/a.png"}, b"")
    with pytest.raises(ValueError, match="task 7: its image has no valid address"):
        fetcher.fetch(task(f"http://images.test:{elsewhere}/out"))
    with pytest.raises(ImageNotAllowed, match=r"xn--n3h\.test are not allowed"):
        fetcher.fetch(task("http://xn--n3h.test/a.png"))


def test_redirects_are_followed_only_to_allowed_hosts(tmp_path, elsewhere, names):
    table, _ = names
    table.update({"images.test": "127.0.0.1", "inside.corp": "127.0.0.1"})
    fetcher = LabelStudio().fetcher(tmp_path, allowed=["images.test"])
    Elsewhere.answers["/moved"] = (302, {"Location": "/a.png"}, b"")
    assert fetcher.fetch(task(f"http://images.test:{elsewhere}/moved")) == b"elsewhere"
    Elsewhere.answers["/out"] = (302, {"Location": f"http://inside.corp:{elsewhere}/a.png"}, b"")
    with pytest.raises(ImageNotAllowed, match=r"inside\.corp are not allowed"):
        fetcher.fetch(task(f"http://images.test:{elsewhere}/out"))
    Elsewhere.answers["/loop"] = (302, {"Location": "/loop"}, b"")
    with pytest.raises(ValueError, match="redirects more than"):
        fetcher.fetch(task(f"http://images.test:{elsewhere}/loop"))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.5", "192.168.1.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"),
        *("64:ff9b::a00:5", "2002:a00:5::1", "::127.0.0.1", "64:ff9b:1::1", "fec0::1"),
        "192.0.0.192",
    ],
)
def test_label_studio_cannot_send_the_backend_into_the_private_network(tmp_path, names, address):
    names[0]["bucket.test"] = address
    server = LabelStudio(httpx.Response(303, headers={"location": "http://bucket.test/a?sig=1"}))
    with pytest.raises(ImageNotAllowed, match="inside a private network"):
        server.fetcher(tmp_path).fetch(task("s3://bucket/a.png"))


def test_link_local_addresses_are_refused_even_where_the_host_is_allowed(tmp_path, names):
    names[0]["metadata.test"] = "169.254.169.254"
    with pytest.raises(ImageNotAllowed):
        LabelStudio().fetcher(tmp_path, allowed=["metadata.test"]).fetch(
            task("http://metadata.test/latest")
        )


def test_a_signed_address_is_read_without_the_token(tmp_path, elsewhere, names):
    names[0]["bucket.test"] = "127.0.0.1"
    target = f"http://bucket.test:{elsewhere}/a.png"
    server = LabelStudio(httpx.Response(303, headers={"location": target}))
    fetcher = server.fetcher(tmp_path, allowed=["bucket.test"])
    assert fetcher.fetch(task("s3://bucket/a.png")) == b"elsewhere"
    assert "authorization" not in Elsewhere.requests[0][1]


def test_a_store_beside_label_studio_on_another_port_is_no_login_page(tmp_path, elsewhere):
    target = f"http://localhost:{elsewhere}/a.png"
    server = LabelStudio(httpx.Response(303, headers={"location": target}))
    fetcher = server.fetcher(tmp_path, allowed=["localhost"], url="http://localhost:8080")
    assert fetcher.fetch(task("s3://bucket/a.png")) == b"elsewhere"


def test_a_redirect_to_the_login_page_says_that_the_token_may_not_read(tmp_path):
    server = LabelStudio(httpx.Response(302, headers={"location": "/user/login/?next=/data"}))
    with pytest.raises(Unauthorised, match="/user/login/ instead of delivering"):
        server.fetcher(tmp_path).fetch(task("/data/upload/1/a.png"))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (httpx.Response(404), ToolNotFound, "does not exist"),
        (httpx.Response(401), Unauthorised, "may not be read"),
        (httpx.Response(403), Unauthorised, "local-files storage"),
        (httpx.Response(500), ToolNotFound, "may be gone"),
        (httpx.Response(424), ImageUnreachable, "from its storage"),
        (httpx.Response(204), ValueError, "answered 204"),
        (httpx.Response(200, html="<html>Log in"), ValueError, "a web page, no image"),
    ],
)
def test_each_failure_has_its_own_error_and_is_not_cached(tmp_path, answer, error, message):
    server = OneFileFails(answer)
    fetcher = server.fetcher(tmp_path)
    with pytest.raises(error, match=message):
        fetcher.fetch(task("/data/upload/1/a.png"))
    server.answer = httpx.Response(200, content=b"pixels")
    assert fetcher.fetch(task("/data/upload/1/a.png")) == b"pixels"


class OneFileFails(LabelStudio):
    """Files as `answer` says; the API answers while `api` is no 5xx."""

    api = httpx.Response(200, json={})

    def __call__(self, request):
        if not request.url.path.startswith("/api"):
            return super().__call__(request)
        self.requests.append(request)
        return streamed(self.api)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_file_that_label_studio_fails_at_concerns_it_alone_while_its_api_answers(
    tmp_path, status
):
    server = OneFileFails(httpx.Response(status))
    fetcher = server.fetcher(tmp_path)
    with pytest.raises(ImageUnreachable, match=f"answered {status}"):
        fetcher.fetch(task("/data/upload/1/a.png"))
    server.api = httpx.Response(401)  # answers, too
    with pytest.raises(ImageUnreachable):
        fetcher.fetch(task("/data/upload/1/a.png"))
    server.api = httpx.Response(503)
    with pytest.raises(Unavailable, match="whoami"):
        fetcher.fetch(task("/data/upload/1/a.png"))


def test_where_label_studio_fails_at_all_it_is_asked_for_no_second_file(tmp_path):
    server = OneFileFails(httpx.Response(500))
    server.api = httpx.Response(500)
    with pytest.raises(Unavailable, match="whoami"):
        server.fetcher(tmp_path).fetch(task("/data/upload/1/a.png"))


def test_a_task_that_label_studio_fails_to_tell_of_concerns_its_image_alone(tmp_path):
    class OneTaskFails(LabelStudio):
        def __call__(self, request):
            return streamed(httpx.Response(502 if "tasks" in request.url.path else 200, json={}))

    reference = data_reference("data:image/png;base64,cGl4ZWxz")
    with pytest.raises(ImageUnreachable, match="502"):
        OneTaskFails().fetcher(tmp_path).fetch(task(reference))


def test_a_bucket_that_is_down_concerns_its_images_alone(tmp_path, names, dropping):
    names[0]["bucket.test"] = "93.184.216.34"
    there = httpx.Response(303, headers={"Location": "http://bucket.test/a.png?sig=hidden"})
    server = LabelStudio(there)
    fetcher = server.fetcher(tmp_path)
    for image in ("/tasks/7/presign/?fileuri=czM6Ly9iL2EucG5n", "s3://b/a.png"):
        with pytest.raises(ImageUnreachable, match=r"^bucket\.test did not deliver"):
            fetcher.fetch(task(image))
    assert not any("/api" in path for _, path in server.paths())


def test_a_host_that_failed_is_waited_for_less_and_soon_not_asked_until_it_delivers(
    tmp_path, names, dropping, monkeypatch
):
    names[0].update({"down.test": "10.0.0.1", "images.test": "10.0.0.2"})
    fetcher = LabelStudio().fetcher(tmp_path, ["down.test", "images.test"], cache_bytes=0)
    for host in ["down"] * 8 + ["images"]:
        with pytest.raises(ImageUnreachable):
            fetcher.fetch(task(f"http://{host}.test/a.png"))
    assert [seconds for _, seconds in dropping] == [20.0, 2.0, 2.0, 2.0, 2.0, 20.0]
    monkeypatch.setattr(outages, "PROBE_S", 0.0)
    answer = httpx.Response(200, content=b"pixels")
    with monkeypatch.context() as patch:
        transport = httpx.MockTransport(lambda _: streamed(answer))
        patch.setattr(module, "DeadlineTransport", lambda *_: transport)
        assert fetcher.fetch(task("http://down.test/a.png")) == b"pixels"
    with pytest.raises(ImageUnreachable):
        fetcher.fetch(task("http://down.test/a.png"))
    assert dropping[-1] == ("10.0.0.1", 20.0)


def test_a_bucket_that_label_studio_fails_at_keeps_no_other_file_of_it_from_being_read(tmp_path):
    class OneBucketFails(OneFileFails):
        def __call__(self, request):
            is_fine = "resolve" not in request.url.path or request.url.params["fileuri"] == fine
            self.answer = httpx.Response(200 if is_fine else 503, content=b"pixels")
            return super().__call__(request)

    fine = base64.urlsafe_b64encode(b"s3://fine/a.png").decode()
    fetcher = OneBucketFails().fetcher(tmp_path)
    for number in range(7):
        with pytest.raises(ImageUnreachable, match="was not asked for" if number > 4 else "503"):
            fetcher.fetch(task(f"s3://down/{number}.png"))
    for image in ("s3://fine/a.png", "/data/upload/1/a.png"):
        assert fetcher.fetch(task(image)) == b"pixels"


@pytest.mark.parametrize(("fails_s", "num_asked"), [(0.0, 5), (60.0, 7)])
def test_a_bucket_that_label_studio_waits_for_in_vain_is_down_and_one_that_lacks_files_is_not(
    tmp_path, monkeypatch, fails_s, num_asked
):
    monkeypatch.setattr(module, "STORAGE_FAILS_S", fails_s)
    server = OneFileFails(httpx.Response(424))
    fetcher = server.fetcher(tmp_path)
    failures = []
    for number in range(7):
        with pytest.raises(ImageUnreachable) as failed:
            fetcher.fetch(task(f"s3://bucket/{number}.png"))
        failures.append(failed.value)
    assert [failure.was_asked for failure in failures].count(True) == num_asked
    assert {failure.host for failure in failures} == {"Label Studio's s3://bucket"}
    assert all(failure.failing_s < 60.0 for failure in failures if not failure.was_asked)
    assert sum("resolve" in path for _, path in server.paths()) == num_asked


def test_files_are_asked_for_as_soon_as_label_studio_is_back(tmp_path):
    server = OneFileFails(httpx.Response(502))
    server.api = httpx.Response(502)
    fetcher = server.fetcher(tmp_path)
    for _ in range(7):
        with pytest.raises(Unavailable, match="whoami"):
            fetcher.fetch(task("/data/upload/1/a.png"))
    server.answer = server.api = httpx.Response(200, content=b"pixels")
    assert fetcher.fetch(task("/data/upload/1/a.png")) == b"pixels"


def test_the_file_after_one_that_label_studio_failed_at_is_asked_for_once(tmp_path):
    server = OneFileFails(httpx.Response(502))
    fetcher = server.fetcher(tmp_path)
    asked = []
    for image in ("a", "b"):
        with pytest.raises(ImageUnreachable):
            fetcher.fetch(task(f"/data/upload/1/{image}.png"))
        asked.append(sum(path.endswith(f"{image}.png") for _, path in server.paths()))
    assert asked == [2, 1]


def test_signatures_and_passwords_do_not_reach_messages(tmp_path, elsewhere):
    fetcher = LabelStudio().fetcher(tmp_path, allowed=["127.0.0.1"])
    with pytest.raises(ToolNotFound) as caught:
        fetcher.fetch(task(f"http://user:secret@127.0.0.1:{elsewhere}/b.png?sig=hidden"))
    assert f"http://127.0.0.1:{elsewhere}/b.png" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_file_beyond_the_limit_is_refused_while_it_arrives(tmp_path, elsewhere, monkeypatch):
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 5)
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        LabelStudio().fetcher(tmp_path).fetch(task("/data/upload/1/a.png"))
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        LabelStudio().fetcher(tmp_path, allowed=["127.0.0.1"]).fetch(
            task(f"http://127.0.0.1:{elsewhere}/a.png")
        )


def test_a_second_fetch_comes_from_the_cache_also_of_another_process(tmp_path):
    server = LabelStudio()
    server.fetcher(tmp_path).fetch(task("/data/upload/1/a.png"))
    again = server.fetcher(tmp_path).fetch(task("/data/upload/1/a.png"))
    assert again == b"pixels"
    assert len(server.requests) == 1


def test_a_task_id_that_is_handed_out_again_gets_its_own_image(tmp_path):
    server = LabelStudio()
    fetcher = server.fetcher(tmp_path)
    fetcher.fetch(task("/data/upload/1/a.png"))
    server.answer = httpx.Response(200, content=b"other pixels")
    later = datetime(2027, 1, 1, tzinfo=UTC)
    assert fetcher.fetch(task("/data/upload/1/a.png", created_at=later)) == b"other pixels"


def test_an_empty_cache_file_is_fetched_again(tmp_path):
    server = LabelStudio()
    fetcher = server.fetcher(tmp_path)
    fetcher.fetch(task("/data/upload/1/a.png"))
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"")
    assert fetcher.fetch(task("/data/upload/1/a.png")) == b"pixels"


@pytest.mark.parametrize("image", ["http://exa mple\x00/a.png", "http://[::1/a.png", "/data/\x01"])
def test_an_address_that_is_none_fails_that_task_alone(tmp_path, image):
    with pytest.raises(ValueError):  # noqa: PT011
        LabelStudio().fetcher(tmp_path, allowed=["*"]).fetch(task(image))


def test_credentials_in_an_address_do_not_reach_messages(tmp_path):
    for image in (
        "ftp://user:secret@h/a.png?sig=secret",
        "ftp://user:secret@h/http://other/a.png",
        f"{URL}/api/users?token=secret",
    ):
        with pytest.raises(ImageNotAllowed) as caught:
            LabelStudio().fetcher(tmp_path).fetch(task(image))
        assert "secret" not in str(caught.value)


def test_two_processes_keep_one_bound(tmp_path):
    server = LabelStudio(httpx.Response(200, content=b"x" * 100))
    fetchers = [server.fetcher(tmp_path, cache_bytes=1000) for _ in range(2)]
    for number in range(40):
        fetchers[number % 2].fetch(task(f"/data/upload/1/{number}.png"))
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 1100


def test_without_a_key_an_image_says_what_to_set(tmp_path):
    transport = httpx.MockTransport(lambda request: streamed(httpx.Response(401)))
    client = LabelStudioClient(URL, lambda: None, transport=transport)
    with pytest.raises(Unauthorised, match="LABEL_STUDIO_API_KEY is not set"):
        ImageFetcher(client, tmp_path, 0).fetch(task("/data/upload/1/a.png?sig=hidden"))


def test_a_dead_host_of_an_image_concerns_that_image_alone(tmp_path, elsewhere, names):
    names[0]["images.test"] = "127.0.0.1"
    Elsewhere.answers["/busy.png"] = (503, {}, b"")
    fetcher = LabelStudio().fetcher(tmp_path, allowed=["images.test"])
    with pytest.raises(ImageUnreachable, match="answered 503"):
        fetcher.fetch(task(f"http://images.test:{elsewhere}/busy.png"))


class Trickle:
    """A server on loopback that sends one piece again and again, slowly, after a beginning."""

    def __init__(self, beginning, piece):
        self._beginning, self._piece = beginning, piece
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._socket.close()
        self._thread.join()

    def _serve(self):
        connection, _ = self._socket.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(self._beginning)
            while not self._is_over.wait(0.02):
                connection.sendall(self._piece)


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_a_server_that_trickles_is_given_up_in_time(tmp_path, monkeypatch, beginning, piece):
    monkeypatch.setattr(module, "MAX_DOWNLOAD_S", 0.3)
    with Trickle(beginning, piece) as server:
        started = time.monotonic()
        with pytest.raises(ImageUnreachable):
            LabelStudio().fetcher(tmp_path, allowed=["127.0.0.1"]).fetch(
                task(f"http://127.0.0.1:{server.port}/a.png")
            )
        assert time.monotonic() - started < 2


def test_label_studio_that_trickles_headers_is_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", ())
    monkeypatch.setattr(client_module, "MAX_DOWNLOAD_S", 0.3)
    monkeypatch.setattr(client_module, "MAX_CALL_S", 0.3)
    for call in (lambda client: client.whoami(), lambda client: client.download("/a.png", 9)):
        with Trickle(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n") as server:
            client = LabelStudioClient(f"http://127.0.0.1:{server.port}", "token")
            with pytest.raises(Unavailable):
                call(client)


def test_headers_without_end_are_refused(tmp_path):
    with (
        Trickle(b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 100_000) as server,
        pytest.raises(ImageUnreachable),
    ):
        LabelStudio().fetcher(tmp_path, allowed=["127.0.0.1"]).fetch(
            task(f"http://127.0.0.1:{server.port}/a.png")
        )


def _zipped(content, times=1):
    for _ in range(times):
        content = gzip.compress(content)
    return content


@pytest.fixture
def fetched_from(tmp_path, elsewhere):
    def fetch(headers, content):
        Elsewhere.answers["/z.png"] = (200, headers, content)
        fetcher = LabelStudio().fetcher(tmp_path, allowed=["127.0.0.1"], cache_bytes=0)
        return fetcher.fetch(task(f"http://127.0.0.1:{elsewhere}/z.png"))

    return fetch


def test_a_compressed_file_is_read_though_it_was_not_asked_for(fetched_from):
    assert fetched_from({"Content-Encoding": "gzip"}, _zipped(b"pixels" * 99)) == b"pixels" * 99
    assert fetched_from({"Content-Encoding": "deflate"}, zlib.compress(b"pixels")) == b"pixels"
    assert Elsewhere.requests[-1][1]["accept-encoding"] == "identity"


def test_a_compressed_bomb_is_stopped_at_the_limit(fetched_from, monkeypatch):
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 10**6)
    bomb = _zipped(bytes(10**8))
    tracemalloc.start()
    with pytest.raises(ValueError, match="larger than 1000000 bytes"):
        fetched_from({"Content-Encoding": "gzip"}, bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**7


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "compress"])
def test_other_and_nested_compressions_are_refused(fetched_from, encoding):
    with pytest.raises(ValueError, match="comes compressed as"):
        fetched_from({"Content-Encoding": encoding}, _zipped(bytes(10**6), times=2))


def test_a_damaged_compression_is_named(fetched_from):
    with pytest.raises(ValueError, match="is damaged"):
        fetched_from({"Content-Encoding": "gzip"}, b"not compressed at all")


def test_a_length_beyond_the_limit_is_refused_before_the_body(fetched_from):
    with pytest.raises(ValueError, match="larger than"):
        fetched_from({"Content-Length": "9" * 12}, b"")


def test_a_body_shorter_than_announced_is_no_file(fetched_from):
    with pytest.raises(ImageUnreachable):
        fetched_from({"Content-Length": "100", "Connection": "close"}, b"pix")


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "exa mple", "b\u00fccher..test"])
def test_a_host_that_is_none_is_named(tmp_path, host):
    with pytest.raises(ValueError, match=r"host|address"):
        LabelStudio().fetcher(tmp_path, allowed=[host, "*.test"]).fetch(task(f"http://{host}/a"))


@pytest.mark.parametrize(
    ("url", "known", "references", "path"),
    [
        ("http://ls.test:8080", {}, ["/data/upload/1/a.png"], ""),
        ("http://ls.test:8080", {}, ["/ls/data/upload/1/a.png"], "/ls"),
        ("http://ls.test:8080", {}, ["http://pub.test/ls/data/local-files/?d=a"], ""),
        (
            "http://ls.test:8080",
            {"learned": lambda: ["http://pub.test/other"]},
            ["http://pub.test/ls/data/local-files/?d=a", "http://[", "s3://b/a", ""],
            "/ls",
        ),
        ("http://ls.test:8080", {"learned": lambda: ["http://pub.test/ls"]}, [], ""),
        (
            "http://ls.test:8080",
            {"public_url": "https://pub.test/ls"},
            ["/x/data/upload/1/a"],
            "/ls",
        ),
        ("http://ls.test/ls", {"public_url": "https://pub.test"}, ["/x/data/upload/1/a"], ""),
        ("http://ls.test/ls", {}, [], "/ls"),
    ],
)
def test_the_path_that_browsers_need_is_told_or_seen(tmp_path, url, known, references, path):
    fetcher = LabelStudio().fetcher(tmp_path, url=url, **known)
    assert fetcher.addresses.path_below(lambda: references) == path


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("/data/upload/1/a.png", "uploads"),
        ("/ls/data/upload/1/a.png", "uploads"),
        ("https://pub.test/ls/data/local-files/?d=a", "local files at pub.test"),
        ("https://pub.test/ls/tasks/7/resolve/?fileuri=a", "cloud storage at pub.test"),
        ("/storage-data/uploaded/?filepath=upload/1/a.png", "uploads in a bucket"),
        ("s3://bucket/a.png", "cloud storage (s3://)"),
        ("https://user:secret@elsewhere.test/a.png", "the host elsewhere.test"),
        ("data:sha256,00", "in the task itself"),
        ("ftp://h/a.png", "ftp addresses"),
        ("a.png", "other addresses"),
        ("", "no image"),
    ],
)
def test_addresses_are_told_apart_by_how_they_are_reached(tmp_path, image, kind):
    fetcher = LabelStudio().fetcher(tmp_path, public_url="https://pub.test/ls")
    assert fetcher.addresses.kind(task(image)) == kind


def test_an_image_in_its_task_is_known_by_its_digest_and_asked_for_when_it_is_needed(tmp_path):
    image = "data:image/png;base64,cGl4ZWxz"
    payload = {"id": 7, "data": {"image": image, "text": "data: is a word"}}
    parsed = parse_task(payload, "image", 1)
    assert parsed.image == data_reference(image)
    assert len(parsed.image) < 100
    server = LabelStudio(httpx.Response(200, json=payload))
    fetcher = server.fetcher(tmp_path)
    assert fetcher.fetch(parsed) == b"pixels"
    assert server.requests == []
    assert fetcher.fetch(task(parsed.image)) == b"pixels"  # as it comes out of the database
    assert [request.url.path for request in server.requests] == ["/api/tasks/7"]
    server.answer = httpx.Response(200, json={"id": 7, "data": {"image": "/data/upload/1/a.png"}})
    with pytest.raises(ValueError, match="does not hold the image any more"):
        fetcher.fetch(task(parsed.image))
