"""Latency of the backend while its worker trains: requests at a steady rate, p50 and p99 each.

Starts a real Label Studio and `ralis serve` on empty folders, labels a small project, waits for the
first version, then asks for trainings one after another while it sends requests.

    python benchmarks/latency.py --seconds 60 --rate 10
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.cli.demo.scenes import generate

TOKEN = "0123456789abcdef0123456789abcdef01234567"
USER, PASSWORD = "admin@example.com", "ralis-demo-1"
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="region" toName="image"><Label value="Suggested region"/></RectangleLabels>
<PolygonLabels name="polygon" toName="image"><Label value="upper"/><Label value="lower"/>
</PolygonLabels></View>"""
NUM_IMAGES = 12


def main() -> None:
    """Measure and print."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="ralis-latency-") as folder,
        _label_studio(options, Path(folder)) as studio,
        _backend(studio, folder) as address,
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        project = _labelled_project(studio, address, folder)
        _wait_for_first_version(client, project)
        training = _Training(client, project)
        latencies = _load(client, _requests(studio, project), options)
        busy_share = training.stop()
    print(json.dumps(_report(latencies, busy_share, options), indent=2))


class _Training:
    """Asks for a training whenever none runs; counts how often one did."""

    def __init__(self, client: httpx.Client, project: dict[str, Any]) -> None:
        self._client, self._project = client, project
        self._looks: list[bool] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> float:
        self._is_over.set()
        self._thread.join()
        return sum(self._looks) / max(1, len(self._looks))

    def _run(self) -> None:
        while not self._is_over.wait(0.5):
            status = _status(self._client, self._project)
            self._looks.append(status["job_status"] == "started")
            if status["job_status"] == "finished":
                self._client.post("/train", json={"project": self._project["uid"]})


def _load(
    client: httpx.Client,
    requests: list[tuple[str, Callable[[httpx.Client], httpx.Response]]],
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    """Latency in ms of each request, sent at its own time whether earlier ones came back or not."""
    latencies: dict[str, list[float]] = defaultdict(list)

    def send(number: int, due: float) -> None:
        name, call = requests[number % len(requests)]
        time.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        call(client).raise_for_status()
        latencies[name].append((time.perf_counter() - started) * 1000)

    begin = time.perf_counter()
    with ThreadPoolExecutor(32) as pool:
        futures = [
            pool.submit(send, number, begin + number / options.rate)
            for number in range(round(options.seconds * options.rate))
        ]
        for future in futures:
            future.result()
    return latencies


def _requests(
    studio: httpx.Client, project: dict[str, Any]
) -> list[tuple[str, Callable[[httpx.Client], httpx.Response]]]:
    """What Label Studio sends for a next task, and for a submitted annotation."""
    tasks = studio.get("/api/tasks", params={"project": project["id"]}).json()["tasks"]
    setup = {"project": project["uid"], "schema": CONFIG, "hostname": "", "extra_params": None}
    annotation = studio.get(f"/api/tasks/{tasks[0]['id']}").json()["annotations"][0]
    event = {
        "action": "ANNOTATION_UPDATED",
        "project": project,
        "annotation": annotation,
        "task": tasks[0],
    }
    return [
        ("health", lambda client: client.get("/health")),
        ("setup", lambda client: client.post("/setup", json=setup)),
        ("predict", lambda client: client.post("/predict", json=_predict(project, tasks))),
        ("webhook", lambda client: client.post("/webhook", json=event)),
    ]


def _predict(project: dict[str, Any], tasks: list[dict[str, Any]]) -> dict[str, Any]:
    task = tasks[time.perf_counter_ns() % len(tasks)]
    return {"tasks": [task], "project": project["uid"], "label_config": CONFIG, "params": {}}


def _labelled_project(studio: httpx.Client, address: str, folder: str) -> dict[str, Any]:
    project = _post(studio, "/api/projects", {"title": "Latency", "label_config": CONFIG})
    files = [("file", (f"{i}.png", _png(scene.image))) for i, scene in enumerate(_scenes())]
    studio.post(f"/api/projects/{project['id']}/import", files=files).raise_for_status()
    arguments = ("connect", "--project", str(project["id"]), "--backend-url", address)
    subprocess.run(_ralis(*arguments), env=_environment(studio, folder), cwd=folder, check=True)
    tasks = studio.get("/api/tasks", params={"project": project["id"]}).json()["tasks"]
    for task in tasks:
        _post(studio, f"/api/tasks/{task['id']}/annotations", {"result": _halves()})
    created = np.datetime64(project["created_at"].rstrip("Z")).astype("datetime64[s]").astype(int)
    return {**project, "uid": f"{project['id']}.{created}"}


def _halves() -> list[dict[str, Any]]:
    halves = {"upper": (0, 50), "lower": (50, 100)}
    return [
        {
            "id": label,
            "type": "polygonlabels",
            "from_name": "polygon",
            "to_name": "image",
            "original_width": 480,
            "original_height": 360,
            "image_rotation": 0,
            "value": {
                "points": [[0, top], [100, top], [100, bottom], [0, bottom]],
                "polygonlabels": [label],
            },
        }
        for label, (top, bottom) in halves.items()
    ]


def _wait_for_first_version(client: httpx.Client, project: dict[str, Any]) -> None:
    client.post("/train", json={"project": project["uid"]}).raise_for_status()
    deadline = time.monotonic() + 600
    while (status := _status(client, project))["published_version"] in (None, "v0"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no version was published within ten minutes: {status}")
        time.sleep(1)


def _status(client: httpx.Client, project: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/job_status", json={"project": project["uid"]})
    answer.raise_for_status()
    return dict(answer.json())


@contextmanager
def _label_studio(options: argparse.Namespace, folder: Path) -> Iterator[httpx.Client]:
    data_dir = folder / "label-studio"
    if options.label_studio_data:
        shutil.copytree(options.label_studio_data, data_dir)
    server = LabelStudioServer(options.label_studio, data_dir, free_port(), USER, PASSWORD, TOKEN)
    headers = {"Authorization": f"Token {TOKEN}"}
    with server, httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


@contextmanager
def _backend(studio: httpx.Client, folder: str) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        _ralis("serve", "--port", str(port)), env=_environment(studio, folder), cwd=folder
    )
    try:
        while not _is_open(port):
            if process.poll() is not None:
                raise RuntimeError(f"ralis serve ended with code {process.returncode}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _environment(studio: httpx.Client, folder: str) -> dict[str, str]:
    return {
        **os.environ,
        "LABEL_STUDIO_URL": str(studio.base_url).rstrip("/"),
        "LABEL_STUDIO_API_KEY": TOKEN,
        "RALIS_DATA_DIR": f"{folder}/ralis",
        "RALIS_MODE": "in-place",
        "RALIS_LOG_LEVEL": "WARNING",
    }


def _ralis(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ralis_backend.cli", *arguments]


def _scenes() -> Iterator[Any]:
    yield from generate(NUM_IMAGES, (360, 480), seed=0)


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _post(studio: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = studio.post(path, json=body)
    answer.raise_for_status()
    return dict(answer.json())


def _report(
    latencies: dict[str, list[float]], busy_share: float, options: argparse.Namespace
) -> dict[str, Any]:
    return {
        "rate": options.rate,
        "seconds": options.seconds,
        "training_share_percent": round(100 * busy_share),
        **{
            name: {
                "requests": len(values),
                "p50_ms": round(float(np.percentile(values, 50)), 1),
                "p99_ms": round(float(np.percentile(values, 99)), 1),
            }
            for name, values in sorted(latencies.items())
        },
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=10, help="requests per second")
    parser.add_argument(
        "--label-studio", type=Path, default=Path(".venv-label-studio/bin/label-studio")
    )
    parser.add_argument(
        "--label-studio-data", type=Path, help="an initialised data folder to copy: a faster start"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
