"""Certificates and proxies: a real TLS server, a real proxy, both on loopback."""

from __future__ import annotations

import select
import socket
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest

from ralis_backend.labelstudio import client as client_module
from ralis_backend.labelstudio import fetcher as fetcher_module
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import Unavailable
from ralis_backend.labelstudio.fetcher import ImageFetcher, ImageNotAllowed
from ralis_backend.labelstudio.network import Network
from ralis_backend.online.tool import ImageUnreachable, ToolTask
from tests.labelstudio.certificates import make_certificates
from tests.local_server import LocalServer

PROXY = "http://proxy.corp:3128"
CREATED = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", ())


class Server(BaseHTTPRequestHandler):
    """Label Studio's `whoami` and a picture."""

    def do_GET(self):
        content = b'{"email": "a@b.co"}' if "whoami" in self.path else b"pixels"
        kind = "application/json" if "whoami" in self.path else "image/png"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


class Proxy(BaseHTTPRequestHandler):
    """A forward proxy that knows every name as loopback, and writes down what it was asked."""

    asked: list[tuple[str, str]] = []  # noqa: RUF012
    unreachable: str | None = None

    def do_CONNECT(self):
        self.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
        if self.path.rpartition(":")[0] == self.unreachable:
            self.send_error(502)
            return
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as far:
            self.send_response(200)
            self.end_headers()
            pair = [self.connection, far]
            while True:
                ready, _, _ = select.select(pair, [], [], 5)
                for end in ready:
                    content = end.recv(65536)
                    if not content:
                        return
                    pair[end is self.connection].sendall(content)
                if not ready:
                    return

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"pixels")

    def log_message(self, *arguments):
        pass


@contextmanager
def running(handler, context=None):
    with LocalServer(handler, context) as server:
        server.handle_error = lambda *arguments: None
        yield server.server_port


@pytest.fixture
def proxy():
    Proxy.asked, Proxy.unreachable = [], None
    with running(Proxy) as port:
        yield f"http://user:pa%40ss@127.0.0.1:{port}"


@pytest.fixture
def names(monkeypatch):
    """Names -> addresses; others cannot be resolved, as inside a company's network."""
    table = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host, port, *arguments, **options):
        if host in table:
            found = table[host] if isinstance(table[host], list) else [table[host]]
            return [(10 if ":" in it else 2, 1, 6, "", (it, port)) for it in found]
        if str(host)[0].isdigit():
            return resolve(host, port, *arguments, **options)
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(fetcher_module.socket, "getaddrinfo", getaddrinfo)
    return table


def test_a_company_authority_is_trusted_when_it_is_named_and_asked_for_when_not(tmp_path):
    ca, context = make_certificates(tmp_path / "ca", "127.0.0.1")
    with running(Server, context) as port:
        url = f"https://127.0.0.1:{port}"
        doubting = LabelStudioClient(url, "token")
        with pytest.raises(Unavailable, match="SSL_CERT_FILE"):
            doubting.whoami()
        doubting.close()
        trusting = LabelStudioClient(url, "token", network=Network((ca,)))
        assert trusting.whoami() == {"email": "a@b.co"}
        trusting.close()


def test_images_of_other_hosts_are_checked_against_the_same_authorities(tmp_path, names):
    ca, context = make_certificates(tmp_path / "ca", "images.corp")
    names["images.corp"] = "127.0.0.1"
    with running(Server, context) as port:
        image = f"https://images.corp:{port}/a.png"
        with pytest.raises(ImageUnreachable, match="SSL_CERT_FILE"):
            fetch(tmp_path / "1", image, Network(), ["images.corp"])
        assert fetch(tmp_path / "2", image, Network((ca,)), ["images.corp"]) == b"pixels"


def test_a_file_without_certificates_is_named(tmp_path):
    path = tmp_path / "empty.pem"
    path.write_text("no certificate")
    with pytest.raises(ValueError, match=r"empty\.pem holds no certificates"):
        LabelStudioClient("https://ls.test", "token", network=Network((path,)))


def fetch(folder, image, network, allowed=()):
    client = LabelStudioClient("http://label-studio:8080", "token", network=network)
    fetcher = ImageFetcher(client, folder / "cache", 0, allowed)
    return fetcher.fetch(ToolTask(7, CREATED, image, project_id=1))


def test_a_named_host_that_only_the_proxy_knows_is_reached_through_it(tmp_path, proxy, names):
    network = Network(proxies={"http": proxy})
    assert fetch(tmp_path, "http://images.com/a.png", network, ["images.com"]) == b"pixels"
    ((asked, credentials),) = Proxy.asked
    assert asked == "http://images.com/a.png"
    assert credentials == "Basic dXNlcjpwYUBzcw=="


def test_label_studio_itself_is_reached_through_the_proxy_unless_it_is_near(proxy):
    for url, is_proxied in (("http://ls.example.com", True), ("http://127.0.0.1:1", False)):
        Proxy.asked = []
        client = LabelStudioClient(url, "token", network=Network(proxies={"http": proxy}))
        if is_proxied:
            assert client.download("/data/upload/1/a.png", 100).content == b"pixels"
        else:
            with pytest.raises(Unavailable):
                client.download("/data/upload/1/a.png", 100)
        client.close()
        wanted = ["http://ls.example.com/data/upload/1/a.png"] if is_proxied else []
        assert [asked for asked, _ in Proxy.asked] == wanted


def test_a_tunnel_ends_at_the_certificate_of_the_named_host(tmp_path, proxy, names):
    ca, context = make_certificates(tmp_path / "ca", "images.com")
    with running(Server, context) as port:
        network = Network((ca,), {"https": proxy})
        image = f"https://images.com:{port}/a.png"
        assert fetch(tmp_path, image, network, ["images.com"]) == b"pixels"
        assert Proxy.asked[0][0] == f"images.com:{port}"
        with pytest.raises(ImageUnreachable, match="SSL_CERT_FILE"):
            fetch(tmp_path, f"https://other.com:{port}/a.png", network, ["other.com"])


def test_where_label_studio_sends_us_is_pinned_to_its_address_behind_the_proxy(
    tmp_path, proxy, names
):
    ca, context = make_certificates(tmp_path / "ca", "bucket.com")
    names["bucket.com"] = "93.184.216.34"  # the proxy of this test takes every address to loopback
    with running(Server, context) as port:
        client = LabelStudioClient(
            "http://label-studio:8080", "t", network=Network((ca,), {"https": proxy})
        )
        fetcher = ImageFetcher(client, tmp_path / "cache", 0)
        content = fetcher._from_elsewhere(f"https://bucket.com:{port}/a?sig=1", is_trusted=True)
    assert content == b"pixels"
    assert Proxy.asked[0][0] == f"93.184.216.34:{port}"


def test_a_proxy_is_asked_for_each_of_a_buckets_addresses_the_older_family_first(
    tmp_path, proxy, names
):
    ca, context = make_certificates(tmp_path / "ca", "bucket.com")
    names["bucket.com"] = ["2606:2800:220:1::1", "93.184.216.34"]
    Proxy.unreachable = "93.184.216.34"
    with running(Server, context) as port:
        client = LabelStudioClient(
            "http://label-studio:8080", "t", network=Network((ca,), {"https": proxy, "http": proxy})
        )
        fetcher = ImageFetcher(client, tmp_path / "cache", 0)
        content = fetcher._from_elsewhere(f"https://bucket.com:{port}/a?sig=1", is_trusted=True)
        assert content == b"pixels"
        asked = [f"93.184.216.34:{port}", f"[2606:2800:220:1::1]:{port}"]
        assert [place for place, _ in Proxy.asked] == asked
    names["bucket.com"] = ["2606:2800:220:1::1"]
    assert fetcher._from_elsewhere("http://bucket.com/a?sig=1", is_trusted=True) == b"pixels"
    assert Proxy.asked[-1][0] == "http://[2606:2800:220:1::1]/a?sig=1"


@pytest.mark.parametrize(
    ("image", "allowed", "address"),
    [
        ("http://other.com/a.png", (), None),
        ("http://intranet.com/a.png", (), "10.0.0.5"),
        ("http://metadata.com/latest", ("metadata.com",), "169.254.169.254"),
        ("http://169.254.169.254/latest", ("169.254.169.254",), None),
    ],
)
def test_no_proxy_is_asked_for_what_may_not_be_read(
    tmp_path, proxy, names, image, allowed, address
):
    if address:
        names[urlsplit(image).hostname] = address
    with pytest.raises(ImageNotAllowed):
        fetch(tmp_path, image, Network(proxies={"http": proxy}), allowed)
    assert Proxy.asked == []


@pytest.mark.parametrize("address", ["10.0.0.5", "169.254.169.254", None])
def test_label_studio_cannot_send_the_proxy_inside(tmp_path, proxy, names, address):
    if address:
        names["bucket.com"] = address
    client = LabelStudioClient(
        "http://label-studio:8080", "t", network=Network(proxies={"http": proxy})
    )
    with pytest.raises(ImageNotAllowed, match="RALIS_IMAGE_HOSTS"):
        ImageFetcher(client, tmp_path, 0)._from_elsewhere("http://bucket.com/a", is_trusted=True)
    assert Proxy.asked == []


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_proxied"),
    [
        ("http://images.com/a", (), True),
        ("https://images.com/a", (), False),  # no proxy is set for https
        ("http://label-studio:8080", (), False),
        ("http://localhost:8080", (), False),
        ("http://127.0.0.1:8080", (), False),
        ("http://192.168.1.5", (), False),
        ("http://[::1]:8080", (), False),
        ("http://8.8.8.8", (), True),
        ("http://ls.corp", ("corp",), False),
        ("http://xn--bcher-kva.corp", ("bücher.corp",), False),
        ("http://bücher.corp", ("*.xn--bcher-kva.corp",), False),
        ("http://ls.corp.", ("ls.corp",), False),
        ("http://[::ffff:8.8.8.8]", ("8.8.8.0/24",), False),
        ("http://ls.corp", (".corp",), False),
        ("http://ls.corp", ("*.corp",), False),
        ("http://xcorp.com", ("corp.com",), True),
        ("http://ls.corp:8080", ("ls.corp:8080",), False),
        ("http://ls.corp:8081", ("ls.corp:8080",), True),
        ("http://8.8.8.8", ("8.0.0.0/8",), False),
        ("http://ls.corp", ("8.0.0.0/8", "", ":"), True),
        ("http://ls.corp", ("*",), False),
    ],
)
def test_who_is_reached_through_the_proxy(url, no_proxy, is_proxied):
    network = Network(proxies={"http": PROXY}, no_proxy=no_proxy)
    assert network.proxy_of(url) == (PROXY if is_proxied else None)
