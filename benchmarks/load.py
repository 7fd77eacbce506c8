"""The backend under what 100 annotators send while its worker trains: latency, errors, memory.

Starts a real Label Studio and `ralis serve` on empty folders, labels a small project, waits for the
first version, then asks for trainings one after another while it sends requests at a steady rate.

    python benchmarks/load.py --seconds 600 --rate 20 --out benchmarks/results/load.json
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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
NUM_ANNOTATORS = 100
MIX = ("health", "setup", "predict") * 5 + ("webhook",) * 3 + ("job_status",) * 2
"""Each next task is asked for with the first three; two of three are submitted."""
MEMORY_EVERY_S = 5.0

Call = Callable[[httpx.Client, int], httpx.Response]
"""Sends one request of one annotator, by their number."""


def main() -> None:
    """Measure, print, write."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="ralis-load-") as folder,
        _label_studio(options, Path(folder)) as studio,
        _backend(studio, folder) as (address, pid),
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        project = _labelled_project(studio, address, folder)
        _wait_for_first_version(client, project)
        training, memory = _Training(client, project), _Memory(pid)
        answers = _load(client, _requests(studio, project), options)
        report = _report(answers, training.stop(), memory.stop(), options)
    print(json.dumps(report, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


@dataclass
class _Answers:
    """What came back, by the request's name: latencies in ms of good answers, errors by kind."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Counter[str] = field(default_factory=Counter)


class _Memory:
    """Resident memory of the backend's processes over time, in MB."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: list[dict[str, float]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> dict[str, Any]:
        self._is_over.set()
        self._thread.join()
        return {
            name: {
                "first_mb": round(self._samples[0].get(name, 0.0)),
                "last_mb": round(self._samples[-1].get(name, 0.0)),
                "most_mb": round(max(sample.get(name, 0.0) for sample in self._samples)),
                "each_minute_mb": [round(s.get(name, 0.0)) for s in self._samples[::12]],
            }
            for name in ("web", "worker")
        }

    def _run(self) -> None:
        while True:
            totals: dict[str, float] = defaultdict(float)
            for pid in _descendants(self._pid):
                with suppress(OSError):
                    totals[_role(pid)] += _resident_mb(pid)
            self._samples.append(totals)
            if self._is_over.wait(MEMORY_EVERY_S):
                return


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found[1:]


def _role(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return "worker" if b"worker" in command else "web"


def _resident_mb(pid: int) -> float:
    """Its own share of memory: what processes share is divided between them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


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


def _load(client: httpx.Client, calls: dict[str, Call], options: argparse.Namespace) -> _Answers:
    """Send each request at its own time, whether earlier ones came back or not."""
    answers = _Answers()

    def send(number: int, due: float) -> None:
        name = MIX[number % len(MIX)]
        time.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        try:
            calls[name](client, number % NUM_ANNOTATORS).raise_for_status()
        except httpx.HTTPError as error:
            answers.errors[f"{name}: {str(error) or type(error).__name__}"[:100]] += 1
            return
        answers.latencies[name].append((time.perf_counter() - started) * 1000)

    begin = time.perf_counter()
    with ThreadPoolExecutor(64) as pool:
        for number in range(round(options.seconds * options.rate)):
            pool.submit(send, number, begin + number / options.rate)
    return answers


def _requests(studio: httpx.Client, project: dict[str, Any]) -> dict[str, Call]:
    """What Label Studio sends for a next task, and for a submitted annotation; by name."""
    tasks = studio.get("/api/tasks", params={"project": project["id"]}).json()["tasks"]
    setup = {"project": project["uid"], "schema": CONFIG, "hostname": "", "extra_params": None}
    submitted = [studio.get(f"/api/tasks/{task['id']}").json()["annotations"][0] for task in tasks]
    status = {"project": project["uid"]}

    def event(annotator: int) -> dict[str, Any]:
        index = annotator % len(tasks)
        return {
            "action": "ANNOTATION_UPDATED",
            "project": project,
            "annotation": submitted[index],
            "task": tasks[index],
        }

    def predict(annotator: int) -> dict[str, Any]:
        return _predict(project, tasks[annotator % len(tasks)])

    return {
        "health": lambda client, _: client.get("/health"),
        "setup": lambda client, _: client.post("/setup", json=setup),
        "predict": lambda client, annotator: client.post("/predict", json=predict(annotator)),
        "webhook": lambda client, annotator: client.post("/webhook", json=event(annotator)),
        "job_status": lambda client, _: client.post("/job_status", json=status),
    }


def _predict(project: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    return {"tasks": [task], "project": project["uid"], "label_config": CONFIG, "params": {}}


def _labelled_project(studio: httpx.Client, address: str, folder: str) -> dict[str, Any]:
    project = _post(studio, "/api/projects", {"title": "Load", "label_config": CONFIG})
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
def _backend(studio: httpx.Client, folder: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    process = subprocess.Popen(
        _ralis("serve", "--port", str(port)), env=_environment(studio, folder), cwd=folder
    )
    try:
        while not _is_open(port):
            if process.poll() is not None:
                raise RuntimeError(f"ralis serve ended with code {process.returncode}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process.pid
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
    answers: _Answers, busy_share: float, memory: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    return {
        "rate": options.rate,
        "seconds": options.seconds,
        "annotators": NUM_ANNOTATORS,
        "training_share_percent": round(100 * busy_share),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[1], 1),
        "errors": dict(answers.errors),
        **{
            name: {
                "requests": len(values),
                "p50_ms": round(float(np.percentile(values, 50)), 1),
                "p99_ms": round(float(np.percentile(values, 99)), 1),
                "most_ms": round(max(values), 1),
            }
            for name, values in sorted(answers.latencies.items())
        },
        "memory": memory,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=20, help="requests per second")
    parser.add_argument(
        "--label-studio", type=Path, default=Path(".venv-label-studio/bin/label-studio")
    )
    parser.add_argument(
        "--label-studio-data", type=Path, help="an initialised data folder to copy: a faster start"
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
