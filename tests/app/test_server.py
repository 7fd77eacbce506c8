"""The real server as a process of its own, and clients that take their time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from ralis_backend.cli.demo.label_studio import free_port
from tests.app.calls import CONFIG, UID, basic, task
from tests.cli.process import wait_for
from tests.local_server import LocalServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SLOW_IMAGE_S = 15.0
HEAD_S, TRANSFER_S, IMAGE_S = 3.0, 4.0, 3.0
"""What a request and an image may take here; the real limits would be waited for in vain."""
SOON_S = 2.5
"""Less than any of these, which an answer would wait for if it were held up."""
SERVER = f"""
from ralis_backend.app import server
from ralis_backend.cli import main
from ralis_backend.online import learner

server.HEAD_S, server.TRANSFER_S, learner.IMAGE_S = {HEAD_S}, {TRANSFER_S}, {IMAGE_S}
main()
"""
USER = basic("ralis", "secret")


class SlowImages(BaseHTTPRequestHandler):
    """A Label Studio whose images come late."""

    def do_GET(self):
        self.server.stop.wait(SLOW_IMAGE_S)
        self.send_error(404)

    def log_message(self, *_):
        pass


@contextmanager
def slow_label_studio():
    with LocalServer(SlowImages) as server:
        server.stop = threading.Event()
        yield server.url
        server.stop.set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(folder):
    """One web process, one thread for what has none of its own: the least that can be had."""
    port = free_port()
    with slow_label_studio() as label_studio, (folder / "log").open("w") as log:
        web = subprocess.Popen(
            [
                *(sys.executable, "-c", SERVER, "web"),
                *("--port", str(port), "--workers", "1", "--threads", "1"),
            ],
            cwd=folder,
            stderr=log,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(("RALIS_", "LABEL_"))},
                "RALIS_DATA_DIR": str(folder / "state"),
                "RALIS_ENCODER_WEIGHTS": "none",
                "RALIS_AUTH_USER": "ralis",
                "RALIS_AUTH_PASSWORD": "secret",
                "LABEL_STUDIO_URL": label_studio,
                "LABEL_STUDIO_API_KEY": "key",
                "OMP_NUM_THREADS": "1",
            },
        )
        try:
            wait_for(lambda: is_open(port))
            post((base := f"http://127.0.0.1:{port}"), "/setup", project=UID, schema=CONFIG)
            yield base
        finally:
            web.terminate()
            assert web.wait(20) == 0


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(address, path, headers=USER, **body):
    return httpx.post(f"{address}{path}", json=body, headers=headers, timeout=90)


def connected(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


@contextmanager
def many(address, count):
    with ExitStack() as opened:
        yield [opened.enter_context(connected(address)) for _ in range(count)]


def head(path, length, headers=USER):
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(
        [
            f"POST {path} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            *lines,
            "",
            "",
        ]
    ).encode()


def check_quick(address):
    """Health, setup and a webhook are answered in time."""
    event = {"action": "PROJECT_UPDATED", "project": UID}
    for ask in (
        lambda: httpx.get(f"{address}/health", timeout=5),
        lambda: post(address, "/setup", project=UID, schema=CONFIG),
        lambda: post(address, "/webhook", **event),
    ):
        began = time.monotonic()
        assert ask().is_success
        assert time.monotonic() - began < SOON_S


def test_half_a_request_line_holds_up_nobody_and_is_not_waited_for(address):
    with many(address, 600) as clients:
        for client in clients:
            client.sendall(b"GET /hea")
        check_quick(address)
        began = time.monotonic()
        assert clients[-1].recv(1) == b""
        assert time.monotonic() - began < HEAD_S + 3


def test_bodies_that_trickle_hold_up_nobody(address):
    paths = ("/webhook", "/predict", "/setup", "/health") * 5
    with many(address, len(paths)) as clients:
        for client, path in zip(clients, paths, strict=True):
            client.sendall(head(path, 1_000_000) + b"{")
        check_quick(address)


def test_a_body_that_trickles_is_ended_though_bytes_keep_coming(address):
    with connected(address) as client:
        client.sendall(head("/webhook", 100_000))  # may take two seconds more
        began = time.monotonic()
        with suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - began < 60:
                client.sendall(b" ")
                time.sleep(0.2)
        assert TRANSFER_S < time.monotonic() - began < TRANSFER_S + 10


def test_answers_that_nobody_reads_hold_up_nobody(address):
    body = json.dumps({"tasks": ["x"] * 20_000, "project": UID, "label_config": CONFIG}).encode()
    with many(address, 4) as clients:
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.sendall(head("/predict", len(body)) + body)
        check_quick(address)
        assert post(address, "/predict", tasks=[], project=UID, label_config=CONFIG).is_success


def test_idle_connections_are_kept_and_hold_up_nobody(address):
    with httpx.Client() as kept:
        assert kept.get(f"{address}/health").is_success
        with many(address, 390) as others:
            for other in others:
                other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            check_quick(address)
            for other in others:
                assert other.recv(12) == b"HTTP/1.1 200"
        assert kept.get(f"{address}/health").is_success


def test_images_that_come_late_hold_up_nobody_and_say_so(address, folder):
    def predict(number):
        body = {"tasks": [task(number)], "project": UID, "label_config": CONFIG}
        return post(address, "/predict", **body).json()["results"][0]

    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(predict, number) for number in range(16)]
        for _ in range(8):
            check_quick(address)
            time.sleep(0.2)
        results = [answer.result() for answer in answers]
    assert all(it["result"] == [] and it["model_version"] == "ralis-v0" for it in results)
    assert all("open the task again" in it["error"] for it in results)
    assert "the image did not arrive within" in (folder / "log").read_text()


def exchange(address, *parts):
    """What is answered to bytes, until the server closes or is silent."""
    with connected(address) as client:
        client.settimeout(2)
        answer = b""
        for part in parts:
            client.sendall(part)
        try:
            while chunk := client.recv(65536):
                answer += chunk
        except OSError:
            pass
        return answer.decode("latin-1")


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /health HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"OPTIONS /setup HTTP/1.1\r\nHost: localhost\r\n\r\n", 401),
        (b"TRACE /setup HTTP/1.1\r\nHost: localhost\r\n\r\n", 401),
        (b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET http://other/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 401),
        (b"GET /health\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 401),
        (
            b"POST /setup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Content-Length: 3\r\n\r\n{}",
            400,
        ),
        (
            b"POST /setup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST /setup HTTP/1.0\r\nConnection: keep-alive\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /setup HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /setup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n", 413),
    ],
)
def test_odd_requests_are_answered_as_one_expects(address, request_head, status):
    answer = exchange(address, request_head)
    assert answer.startswith((f"HTTP/1.1 {status} ", f"HTTP/1.0 {status} ")), answer[:200]
    assert answer.count("Content-Length:") == 1


def test_pipelined_requests_are_answered_in_order(address):
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /versions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = exchange(address, one * 5 + last)
    assert answer.count("HTTP/1.1 200 OK") == 5
    assert answer.index("HTTP/1.1 401") > answer.rindex("HTTP/1.1 200")


def test_a_large_body_is_not_received_of_strangers(address):
    answer = exchange(address, head("/predict", 10_000_000, {}), b"{" * 1000)
    assert answer.startswith("HTTP/1.1 401 ")
    assert "RALIS_AUTH_USER" in answer
    chunked = head("/predict", 0, {}).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    assert exchange(address, chunked).startswith("HTTP/1.1 401 ")
