import os
import signal
import socket
import subprocess
import time

import httpx
import pytest

from ralis_backend.cli.demo.label_studio import free_port
from tests.cli.process import RALIS, wait_for


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children_of(process_id):
    path = f"/proc/{process_id}/task/{process_id}/children"
    with open(path) as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.e2e
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads /proc")
def test_serve_answers_at_once_restarts_what_dies_and_stops_on_a_signal(environment, tmp_path):
    port = free_port()
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*RALIS, "serve", "--port", str(port)],
            env=environment,
            cwd=tmp_path,
            stderr=output,
        )
    try:
        wait_for(lambda: is_open(port))
        opened = time.monotonic()
        address = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{address}/health", timeout=5).status_code == 200
        assert time.monotonic() - opened < 1.0
        config = (
            '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">'
            '<Label value="road"/></BrushLabels></View>'
        )
        body = {"project": "3.1763700000", "schema": config}
        assert httpx.post(f"{address}/setup", json=body, timeout=5).json() == {
            "model_version": "ralis-v0"
        }
        assert "ralis_request_seconds" in httpx.get(f"{address}/metrics", timeout=5).text

        wait_for(lambda: len(children_of(server.pid)) == 2)
        worker = max(children_of(server.pid))
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: "worker ended with code -9" in log.read_text())
        wait_for(lambda: log.read_text().count("worker started") == 2)

        running = children_of(server.pid)
        stopped = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0
        assert time.monotonic() - stopped < 12
        assert not is_open(port)
        wait_for(lambda: not any(os.path.exists(f"/proc/{child}") for child in running), 5)
    finally:
        server.kill()
        server.wait()
